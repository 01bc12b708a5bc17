//! How a worker renews its share.

use std::collections::BTreeMap;

use asyncqueue::{
    FunctionName,
    shares::{
        Shares,
        division::{self, Claim, FunctionClaim},
    },
};

use super::{
    setup::Setup,
    state::{
        Attempt, Entry, Held, Life, Renewal, Share, Stage, State, WORKERS, Worker, from_product,
        name, names, to_product,
    },
    time::LEASE,
};
use crate::guard::Guard;

/// The model has no limits of functions: they are divided in the same way.
static NO_FUNCTIONS: BTreeMap<FunctionName, FunctionClaim> = BTreeMap::new();

/// A worker reads the entry, decides on its share, and sends it.
pub(super) fn send(setup: &Setup, state: &mut State, w: usize) -> Option<()> {
    let (entry, worker) = (state.entry, &mut state.workers[w]);
    if !worker.runs() || worker.is_cut_off || worker.renewal.is_some() {
        return None;
    }
    let mut is_dead = [false; WORKERS];
    for v in (0..WORKERS).filter(|v| *v != w && entry[*v].is_some()) {
        let seen = *worker.seen[v].get_or_insert(0);
        is_dead[v] =
            seen >= LEASE && setup.has(Guard::DeadShareReturns) || !setup.has(Guard::ShareHasLease);
    }
    let total = setup.total(worker.has_learned);
    let renewal = divide(setup, &entry, is_dead, w, worker.claim(setup, total, w));
    let (before, own) = (entry[w].unwrap_or_default(), renewal.entry[w].unwrap_or_default());
    if let Some(held) = &mut worker.held {
        if setup.has(Guard::LowerShareFirst) {
            held.slots = held.slots.min(renewal.slots);
        }
        if own.rate < before.rate && setup.has(Guard::LowerRateFirst) {
            held.rate = own.rate;
        }
    }
    worker.renewal = Some(Renewal {
        attempt: Attempt { entry: renewal.entry, is_stale: false },
        held: Held { slots: renewal.slots, rate: own.rate, total, age: 0 },
        stage: Stage::Sent,
    });
    Some(())
}

struct Division {
    entry: Entry,
    slots: u8,
}

/// Calls the product's function, and changes what follows from it if a guard is removed.
fn divide(
    setup: &Setup,
    entry: &Entry,
    is_dead: [bool; WORKERS],
    w: usize,
    claim: Claim<'_>,
) -> Division {
    let (shares, dead) = (to_product(entry), names(|v| is_dead[v]));
    let renewal = division::renew(&shares, &dead, &claim);
    let mut divided = from_product(&renewal.shares);
    let mut slots = u8::try_from(renewal.slots).unwrap_or(u8::MAX);
    if !setup.has(Guard::ShareFromFree) {
        // What it would get if the others had only what is theirs.
        let mut others = entry.map(|share| share.map(|share| Share { slots: 0, ..share }));
        others[w] = entry[w];
        let shares: Shares = to_product(&others);
        slots = u8::try_from(division::renew(&shares, &dead, &claim).slots).unwrap_or(u8::MAX);
    }
    if let Some(own) = &mut divided[w]
        && (!setup.has(Guard::ShareCountsOpen) || !setup.has(Guard::ShareFromFree))
    {
        own.slots = slots;
    }
    Division { entry: divided, slots }
}

impl Worker {
    fn claim(&self, setup: &Setup, total: u8, w: usize) -> Claim<'static> {
        Claim {
            worker: name(w),
            concurrency: Some(total.into()),
            has_rate: setup.has_rate,
            max_inflight: setup.max_inflight.into(),
            open: self.count_open().into(),
            leaving: self.life == Life::Leaving,
            busy: false,
            functions: &NO_FUNCTIONS,
        }
    }
}

/// NATS stores the share of a worker, or refuses it.
pub(super) fn write(setup: &Setup, state: &mut State, w: usize) -> Option<()> {
    let mut renewal = state.workers[w].renewal.filter(|renewal| renewal.stage == Stage::Sent)?;
    let is_refused = renewal.attempt.is_stale && setup.has(Guard::ShareComparesRevision);
    renewal.stage = if is_refused { Stage::Refused } else { Stage::Written };
    if !is_refused {
        state.store(renewal.attempt.entry, w);
    }
    // What follows does not depend on what was written.
    renewal.attempt = Attempt::default();
    state.workers[w].renewal = Some(renewal);
    Some(())
}

/// A worker gets the answer.
pub(super) fn answer(setup: &Setup, state: &mut State, w: usize) -> Option<()> {
    let worker = &mut state.workers[w];
    if !worker.runs() || worker.is_cut_off {
        return None;
    }
    let renewal = worker.renewal.filter(|renewal| renewal.stage != Stage::Sent)?;
    worker.renewal = None;
    if renewal.stage == Stage::Written || !setup.has(Guard::RaiseShareWhenWritten) {
        let is_from_sending = setup.has(Guard::LeaseFromSending);
        let age = if is_from_sending { renewal.held.age } else { 0 };
        worker.held = Some(Held { age, ..renewal.held });
    }
    Some(())
}

/// A worker does not get an answer to its write, and gives it up.
pub(super) fn give_up(state: &mut State, w: usize) -> Option<()> {
    let worker = &mut state.workers[w];
    if !worker.runs() || (state.faults.lost_writes == 0 && !worker.is_cut_off) {
        return None;
    }
    let renewal = worker.renewal.take()?;
    if !worker.is_cut_off {
        state.faults.lost_writes -= 1;
    }
    if renewal.stage == Stage::Sent {
        worker.late = Some(renewal.attempt);
    }
    Some(())
}

/// NATS gets a write that its worker has given up.
pub(super) fn write_late(setup: &Setup, state: &mut State, w: usize) -> Option<()> {
    let late = state.workers[w].late.take()?;
    if !late.is_stale || !setup.has(Guard::ShareComparesRevision) {
        state.store(late.entry, w);
    }
    Some(())
}

/// Such a write is lost.
pub(super) fn drop_late(state: &mut State, w: usize) -> Option<()> {
    state.workers[w].late.take().map(|_| ())
}

/// A worker that leaves, and runs nothing, removes its share.
pub(super) fn remove(state: &mut State, w: usize) -> Option<()> {
    let worker = &mut state.workers[w];
    let may_end = worker.runs() && !worker.is_cut_off && worker.life == Life::Leaving;
    if !may_end || worker.count_open() > 0 || worker.renewal.is_some() {
        return None;
    }
    (worker.life, worker.held) = (Life::Gone, None);
    let mut entry = state.entry;
    if entry[w].take().is_some() {
        state.store(entry, w);
    }
    Some(())
}
