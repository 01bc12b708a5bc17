//! The faults of a history: when each could hit a call, and how much it excuses.
//!
//! A fault excuses one repeat of each call that it hits; one that lasts, one for each lease that
//! could run out under it.

use std::time::Duration;

use super::event::{Event, Excuse, QueueNumber, What};

/// How long before it is killed a server may not have written what it delivered. nats-server 2.15
/// writes the progress of a consumer ten times a second, if it is not busy.
pub const LAST_MOMENT: Duration = Duration::from_secs(1);

/// A fault, and the time over which it lasted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultWindow {
    /// In words.
    pub name: String,
    /// When it began.
    pub since: Duration,
    /// When it ended; as `since` where it did not last.
    pub until: Duration,
    /// The only queue that it hit; `None`: all of them.
    pub queue: Option<QueueNumber>,
    /// What it was.
    pub kind: FaultKind,
}

/// What a fault was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// A worker, or its lease, may have died.
    Lost,
    /// The same, since the only server was killed. It may have forgotten what it delivered in the
    /// [`LAST_MOMENT`].
    Killed,
    /// The same, and what the server did was not written.
    Unwritten,
    /// The consumer was deleted, and with it what was delivered how often.
    Forgotten,
    /// The consumers were replaced, after the attempts of what waited were recorded.
    Requeued,
    /// The streams were deleted with what they held.
    Deleted,
}

/// The faults of a history that excuse something, in the order of their beginnings.
#[must_use]
pub fn windows(history: &[Event]) -> Vec<FaultWindow> {
    let end = history.last().map_or(Duration::ZERO, |event| event.at);
    let (mut windows, mut begun): (Vec<FaultWindow>, Vec<FaultWindow>) = (Vec::new(), Vec::new());
    for event in history {
        let What::Fault { name, excuse, queue } = &event.what else { continue };
        let window = |kind| FaultWindow {
            name: name.clone(),
            since: event.at,
            until: event.at,
            queue: *queue,
            kind,
        };
        match excuse {
            Excuse::None => {}
            Excuse::Once => windows.push(window(FaultKind::Lost)),
            Excuse::Forgets => windows.push(window(FaultKind::Forgotten)),
            Excuse::Deletes => windows.push(window(FaultKind::Deleted)),
            Excuse::Begins => begun.push(window(FaultKind::Lost)),
            Excuse::BeginsKilled => begun.push(window(FaultKind::Killed)),
            Excuse::BeginsRequeuing => begun.push(window(FaultKind::Requeued)),
            Excuse::BeginsUnwritten => begun.push(window(FaultKind::Unwritten)),
            Excuse::Ends => {
                // The last one that began, of the same queue: faults of two queues may overlap.
                if let Some(last) = begun.iter().rposition(|fault| fault.queue == *queue) {
                    windows.push(FaultWindow { until: event.at, ..begun.remove(last) });
                }
            }
        }
    }
    windows.extend(
        begun.into_iter().map(|fault| FaultWindow { until: end.max(fault.since), ..fault }),
    );
    windows.sort_by_key(|fault| fault.since);
    windows
}

/// Whether a time is in the last moment before a server was killed.
#[must_use]
pub fn is_in_last_moment(at: Duration, killed: Duration) -> bool {
    at <= killed && killed <= at + LAST_MOMENT
}

/// The faults of one queue, one for each lease that they lasted: each excuses one repeat of a call.
#[derive(Clone, Debug)]
pub(super) struct Faults {
    /// Since when and until when, by the end.
    hits: Vec<(Duration, Duration)>,
    killed: Vec<Duration>,
    unwritten: Vec<(Duration, Duration)>,
    forgotten: Vec<Duration>,
    requeued: Vec<(Duration, Duration)>,
    deleted: Vec<Duration>,
}

impl Faults {
    pub(super) fn of(windows: &[FaultWindow], queue: QueueNumber, lease: Duration) -> Self {
        let (mut hits, mut killed, mut unwritten) = (Vec::new(), Vec::new(), Vec::new());
        let (mut forgotten, mut requeued, mut deleted) = (Vec::new(), Vec::new(), Vec::new());
        for fault in windows.iter().filter(|fault| fault.queue.is_none_or(|only| only == queue)) {
            match fault.kind {
                FaultKind::Lost => {}
                FaultKind::Killed => killed.push(fault.since),
                FaultKind::Unwritten => unwritten.push((fault.since, fault.until)),
                FaultKind::Forgotten => {
                    forgotten.push(fault.since);
                    continue;
                }
                FaultKind::Requeued => {
                    requeued.push((fault.since, fault.until));
                    continue;
                }
                FaultKind::Deleted => {
                    deleted.push(fault.since);
                    continue;
                }
            }
            let mut since = fault.since;
            // What is measured is a little longer than what was meant.
            while since + lease + lease / 10 < fault.until {
                hits.push((since, since + lease));
                since += lease;
            }
            hits.push((since, fault.until));
        }
        hits.sort_by_key(|(_, until)| *until);
        Self { hits, killed, unwritten, forgotten, requeued, deleted }
    }

    /// How many could hit what was in flight between these times, if they hit as long as `reaches`
    /// after their end.
    pub(super) fn between(&self, since: Duration, until: Duration, reaches: Duration) -> u64 {
        let hits =
            |(begins, ends): &&(Duration, Duration)| *begins <= until && since <= *ends + reaches;
        self.hits.iter().filter(hits).count() as u64
    }

    /// Of those [`Self::between`], how many are no part of any of these spans of time as a whole.
    pub(super) fn outside(
        &self,
        since: Duration,
        until: Duration,
        reaches: Duration,
        spans: &[(Duration, Duration)],
    ) -> u64 {
        let is_inside = |begins: Duration, ends: Duration| {
            spans.iter().any(|(first, last)| *first <= begins && ends + reaches <= *last)
        };
        let hits = |(begins, ends): &&(Duration, Duration)| {
            *begins <= until && since <= *ends + reaches && !is_inside(*begins, *ends)
        };
        self.hits.iter().filter(hits).count() as u64
    }

    /// Whether one that lasts was there between these times.
    pub(super) fn last_between(&self, since: Duration, until: Duration) -> bool {
        let mut lasting = self.hits.iter().filter(|(begins, ends)| begins < ends);
        lasting.any(|(begins, ends)| *begins <= until && since <= *ends)
    }

    /// How many of these repeats have no fault of their own. Each repeat is a span of time in which
    /// a fault must have been.
    pub(super) fn unexcused(&self, mut repeats: Vec<(Duration, Duration)>) -> usize {
        let mut free = self.hits.clone();
        repeats.sort_by_key(|(_, again)| *again);
        let mut is_excused = |&&(first, again): &&(Duration, Duration)| {
            // The one that ends first is of the least use to those that come later.
            let fault = free.iter().position(|(since, until)| *since <= again && first <= *until);
            fault.map(|fault| free.remove(fault)).is_some()
        };
        repeats.iter().filter(|repeat| !is_excused(repeat)).count()
    }

    /// Whether what the server did then may be undone since.
    pub(super) fn was_unwritten(&self, at: Duration) -> bool {
        self.unwritten.iter().any(|(since, until)| *since <= at && at <= *until)
    }

    /// Whether a server may have forgotten a delivery of that time.
    pub(super) fn is_delivery_forgotten(&self, at: Duration) -> bool {
        self.killed.iter().any(|killed| is_in_last_moment(at, *killed))
    }

    /// Whether the attempts of a call that was in flight between these times were forgotten.
    pub(super) fn forgotten(&self, since: Duration, until: Duration) -> u64 {
        self.forgotten.iter().filter(|at| since <= **at && **at <= until).count() as u64
    }

    /// Whether the calls were queued again by a time, and no run has `started` since then.
    pub(super) fn is_requeued(&self, time: Duration, started: impl Fn(Duration) -> bool) -> bool {
        self.requeued.iter().any(|(since, until)| *since <= time && !started(*until))
    }

    /// Whether the stream was deleted after a time.
    pub(super) fn is_deleted_after(&self, time: Duration) -> bool {
        self.deleted.iter().any(|at| time <= *at)
    }
}
