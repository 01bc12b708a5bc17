//! The state of the entry and of the workers.

use std::collections::{BTreeMap, BTreeSet};

use asyncqueue::shares::{Shares, WorkerShare};

use super::setup::{Faults, STARTS_WITHIN, Setup};
use crate::{guard::Guard, rule::Rule};

/// Maximum number of workers.
pub const WORKERS: usize = 3;
/// Maximum number of invocations that a worker has open.
pub const OPEN: usize = 3;

/// The names of the workers in the product's entry.
const NAMES: [&str; WORKERS] = ["a", "b", "c"];

/// The state of the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The entry in KV.
    pub(super) entry: Entry,
    pub(super) workers: [Worker; WORKERS],
    /// Whether the directory has the changed limits.
    pub(super) has_changed: bool,
    /// Whether the share of a worker that is up has outlived its lease.
    pub(super) has_lapsed: bool,
    /// The faults that may still happen.
    pub(super) faults: Faults,
    /// The rule that a step has broken.
    pub(super) broken: Option<Rule>,
}

/// The shares of all workers.
pub(super) type Entry = [Option<Share>; WORKERS];

/// The share of a worker. Its number of writes is not kept: it only says whether the worker has
/// written since another one saw its share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Share {
    pub(super) slots: u8,
    pub(super) rate: u32,
    pub(super) leaving: bool,
}

/// A worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Worker {
    pub(super) life: Life,
    pub(super) is_stopped: bool,
    pub(super) is_cut_off: bool,
    /// Whether it knows the changed limits.
    pub(super) has_learned: bool,
    /// What it may start by.
    pub(super) held: Option<Held>,
    pub(super) open: [Option<Invocation>; OPEN],
    /// The renewal that it waits for.
    pub(super) renewal: Option<Renewal>,
    /// A write that it has given up, and that NATS may still get.
    pub(super) late: Option<Attempt>,
    /// For how long it has seen the last write of each other worker.
    pub(super) seen: [Option<u8>; WORKERS],
    /// Time since its share was written.
    pub(super) age: u8,
}

/// Whether a worker is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Life {
    /// It was not started yet.
    #[default]
    Absent,
    Up,
    /// It was asked to end, and finishes what it runs.
    Leaving,
    Gone,
}

/// The share by which a worker starts invocations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Held {
    pub(super) slots: u8,
    pub(super) rate: u32,
    /// The total of which it is a part.
    pub(super) total: u8,
    /// Time since the renewal was sent.
    pub(super) age: u8,
}

/// An invocation that a worker has permitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Invocation {
    /// Time since it was permitted; `None`: the request was sent.
    pub(super) unsent: Option<u8>,
    /// The total by which it was permitted.
    pub(super) total: u8,
    /// Whether the share of its worker has outlived its lease since then.
    pub(super) has_lapsed: bool,
    /// Whether its worker was stopped before the request.
    pub(super) was_stopped: bool,
}

/// A renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Renewal {
    pub(super) attempt: Attempt,
    /// What the worker may start by when the share is written.
    pub(super) held: Held,
    pub(super) stage: Stage,
}

/// How far a renewal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Stage {
    Sent,
    Written,
    /// Another worker has written since the entry was read.
    Refused,
}

/// A write of the entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Attempt {
    pub(super) entry: Entry,
    /// Whether the entry was written since it was read.
    pub(super) is_stale: bool,
}

// === impl State ===

impl State {
    pub(super) fn new(workers: usize, faults: Faults) -> Self {
        let (entry, mut all) = (Entry::default(), [Worker::default(); WORKERS]);
        for worker in all.iter_mut().take(workers) {
            worker.life = Life::Up;
        }
        Self { entry, workers: all, has_changed: false, has_lapsed: false, faults, broken: None }
    }

    /// Forgets what has no effect any more, so that fewer states differ.
    pub(super) fn forget(&mut self, setup: &Setup) {
        for worker in &mut self.workers {
            if setup.has(Guard::ShareComparesRevision) {
                worker.late = worker.late.filter(|late| !late.is_stale);
                if let Some(renewal) = &mut worker.renewal
                    && (renewal.attempt.is_stale || renewal.stage == Stage::Refused)
                {
                    renewal.stage = Stage::Refused;
                    renewal.attempt = Attempt::default();
                }
            }
            if setup.has(Guard::ShareLapses) {
                worker.held = worker.held.filter(|held| held.age < STARTS_WITHIN);
            }
            if !worker.is_up() {
                worker.age = 0;
            }
        }
    }

    /// Replaces the entry. All writes that are on their way are over an old one from now on.
    pub(super) fn store(&mut self, entry: Entry, writer: usize) {
        for worker in &mut self.workers {
            if let Some(renewal) = &mut worker.renewal
                && renewal.stage == Stage::Sent
            {
                renewal.attempt.is_stale = true;
            }
            if let Some(late) = &mut worker.late {
                late.is_stale = true;
            }
            for (v, seen) in worker.seen.iter_mut().enumerate() {
                if v == writer || entry[v].is_none() {
                    *seen = None;
                }
            }
        }
        self.workers[writer].age = 0;
        self.entry = entry;
    }
}

// === impl Worker ===

impl Worker {
    /// Returns whether it is there.
    pub(super) fn is_up(&self) -> bool {
        matches!(self.life, Life::Up | Life::Leaving)
    }

    /// Returns whether it takes steps.
    pub(super) fn runs(&self) -> bool {
        self.is_up() && !self.is_stopped
    }

    /// Returns the number of open invocations, as the worker counts them.
    pub(super) fn count_open(&self) -> u8 {
        self.open.iter().flatten().map(|_| 1).sum()
    }
}

/// Returns the entry as the product has it.
pub(super) fn to_product(entry: &Entry) -> Shares {
    let share = |share: &Share| WorkerShare {
        beat: 0,
        slots: share.slots.into(),
        rate: share.rate,
        leaving: share.leaving,
        ..WorkerShare::default()
    };
    let workers = NAMES.iter().zip(entry);
    let workers: BTreeMap<_, _> = workers
        .filter_map(|(name, of_worker)| Some(((*name).to_owned(), share(of_worker.as_ref()?))))
        .collect();
    Shares { workers }
}

/// Returns the entry of the product as the model has it.
pub(super) fn from_product(shares: &Shares) -> Entry {
    NAMES.map(|name| {
        let share = shares.workers.get(name)?;
        let slots = u8::try_from(share.slots).unwrap_or(u8::MAX);
        Some(Share { slots, rate: share.rate, leaving: share.leaving })
    })
}

/// Returns the name of a worker in the product's entry.
pub(super) fn name(w: usize) -> &'static str {
    NAMES[w]
}

/// Returns the names of some workers.
pub(super) fn names(are: impl Fn(usize) -> bool) -> BTreeSet<String> {
    (0..WORKERS).filter(|w| are(*w)).map(|w| NAMES[w].to_owned()).collect()
}
