//! How many lanes queues may have, and how many they have. Pure, but for the shared state.
//!
//! A lane is a consumer, which costs nats-server memory, and in a stream with several replicas a
//! Raft group. The operator counts the lanes of all queues at each sweep. While there are too many,
//! functions without a lane share one.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use asyncqueue::lanes::LaneCounts;
use kube::ResourceExt;

use crate::crd::AsyncQueue;

/// Maximum numbers of lanes, as the settings say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LaneLimits {
    /// Of functions of one queue with lanes of their own.
    pub(crate) per_queue: usize,
    /// Of lanes of all queues.
    pub(crate) total: usize,
    /// Of lanes of queues whose streams have several replicas.
    pub(crate) replicated: usize,
}

/// The lanes of one queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QueueLanes {
    pub(crate) counts: LaneCounts,
    /// Whether its stream has several replicas.
    pub(crate) is_replicated: bool,
}

/// The lanes of all queues, in relation to the maxima.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LaneUse {
    pub(crate) all: Usage,
    pub(crate) replicated: Usage,
}

/// How much of a maximum is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) lanes: usize,
    /// Whether no lanes are to be created. From the maximum on, until a twentieth of it is free:
    /// the directory is not to change with each lane.
    pub(crate) is_full: bool,
}

/// Why functions share a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SharingCause {
    /// The queue has as many lanes as it may have.
    Queue,
    /// The installation has as many lanes as it may have.
    Installation,
    /// The installation has as many lanes of streams with several replicas as it may have.
    Replicated,
    /// One of these was the case: a function keeps the lane that it shares until that has no call.
    Earlier,
}

/// The lanes of all queues, as the last sweeps found them.
#[derive(Debug)]
pub(crate) struct LaneStates {
    pub(crate) limits: LaneLimits,
    found: Mutex<Found>,
}

#[derive(Debug, Default)]
struct Found {
    /// By the UID of the `AsyncQueue`.
    queues: HashMap<String, QueueLanes>,
    usage: LaneUse,
}

// === impl QueueLanes ===

impl QueueLanes {
    /// Returns why functions share a lane; `None` if none do.
    pub(crate) fn sharing_cause(
        &self,
        limits: &LaneLimits,
        usage: &LaneUse,
    ) -> Option<SharingCause> {
        if self.counts.sharing == 0 {
            None
        } else if self.counts.own >= limits.per_queue {
            Some(SharingCause::Queue)
        } else if usage.all.is_full {
            Some(SharingCause::Installation)
        } else if self.is_replicated && usage.replicated.is_full {
            Some(SharingCause::Replicated)
        } else {
            Some(SharingCause::Earlier)
        }
    }
}

// === impl Usage ===

impl Usage {
    fn next(self, lanes: usize, max: usize) -> Self {
        let stays_full = self.is_full && lanes.saturating_mul(20) > max.saturating_mul(19);
        Self { lanes, is_full: lanes >= max || stays_full }
    }

    /// Returns how many lanes each of so many queues may create now.
    fn share(self, max: usize, queues: usize) -> usize {
        if self.is_full { 0 } else { max.saturating_sub(self.lanes) / queues.max(1) }
    }
}

// === impl LaneUse ===

impl LaneUse {
    /// Returns the use that follows from the lanes of all queues.
    fn next<'a>(self, queues: impl Iterator<Item = &'a QueueLanes>, limits: &LaneLimits) -> Self {
        let (mut all, mut replicated) = (0, 0);
        for queue in queues {
            all += queue.counts.total();
            replicated += if queue.is_replicated { queue.counts.total() } else { 0 };
        }
        Self {
            all: self.all.next(all, limits.total),
            replicated: self.replicated.next(replicated, limits.replicated),
        }
    }

    /// Returns how many functions of a queue may have lanes of their own, for programs that store
    /// calls. They do not know how many other lanes there are.
    pub(crate) fn max_own(&self, limits: &LaneLimits, is_replicated: bool) -> usize {
        let is_full = self.all.is_full || (is_replicated && self.replicated.is_full);
        if is_full { 0 } else { limits.per_queue }
    }

    /// Returns how many functions of a queue may have lanes of their own after a sweep. What is
    /// free is divided among the queues that are swept, so that the sum of all sweeps is in the
    /// maximum.
    pub(crate) fn max_own_after_sweep(
        &self,
        limits: &LaneLimits,
        queue: &QueueLanes,
        queues: usize,
    ) -> usize {
        let all = self.all.share(limits.total, queues);
        let replicated = self.replicated.share(limits.replicated, queues);
        let new = if queue.is_replicated { all.min(replicated) } else { all };
        limits.per_queue.min(queue.counts.own.saturating_add(new))
    }
}

// === impl LaneStates ===

impl LaneStates {
    pub(crate) fn new(limits: LaneLimits) -> Self {
        Self { limits, found: Mutex::default() }
    }

    /// Records the lanes of all queues that have some. Returns whether that changes how many lanes
    /// programs that store calls may create.
    pub(crate) fn record(&self, queues: HashMap<String, QueueLanes>) -> bool {
        let mut found = self.lock();
        let before = found.usage;
        found.usage = before.next(queues.values(), &self.limits);
        found.queues = queues;
        let max_own = |usage: &LaneUse| [false, true].map(|of| usage.max_own(&self.limits, of));
        max_own(&before) != max_own(&found.usage)
    }

    /// Returns the lanes of a queue; `None` if it has none, or was not swept yet.
    pub(crate) fn of(&self, queue: &AsyncQueue) -> Option<QueueLanes> {
        self.lock().queues.get(&queue.uid()?).copied()
    }

    /// Returns the lanes of all queues.
    pub(crate) fn usage(&self) -> LaneUse {
        self.lock().usage
    }

    /// Returns how many functions of each queue may have lanes of their own, for programs that
    /// store calls.
    pub(crate) fn max_own(&self) -> impl Fn(&AsyncQueue) -> usize + use<> {
        let (limits, usage) = (self.limits, self.usage());
        move |queue| usage.max_own(&limits, is_replicated(queue))
    }

    fn lock(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns whether the stream of a queue has several replicas.
pub(crate) fn is_replicated(queue: &AsyncQueue) -> bool {
    queue.spec.stream.replicas > 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: LaneLimits = LaneLimits { per_queue: 90, total: 200, replicated: 40 };

    fn lanes(own: usize, sharing: usize, is_replicated: bool) -> QueueLanes {
        let shared = usize::from(sharing > 0);
        QueueLanes { counts: LaneCounts { own, shared, sharing }, is_replicated }
    }

    fn usage_of(before: LaneUse, queues: &[QueueLanes]) -> LaneUse {
        before.next(queues.iter(), &LIMITS)
    }

    #[test]
    fn a_full_installation_takes_lanes_again_when_a_twentieth_is_free() {
        let mut usage = LaneUse::default();
        for (own, is_full) in [(199, false), (200, true), (191, true), (190, false), (199, false)] {
            usage = usage_of(usage, &[lanes(own, 0, false)]);
            assert_eq!(usage.all, Usage { lanes: own, is_full }, "{own}");
            assert_eq!(usage.max_own(&LIMITS, false), if is_full { 0 } else { 90 });
        }
    }

    #[test]
    fn replicated_lanes_count_twice() {
        let usage = usage_of(LaneUse::default(), &[lanes(60, 0, false), lanes(39, 5, true)]);
        assert_eq!((usage.all.lanes, usage.replicated.lanes), (100, 40));
        assert_eq!([false, true].map(|of| usage.max_own(&LIMITS, of)), [90, 0]);
    }

    #[test]
    fn all_sweeps_together_stay_in_the_maximum() {
        for used in [0, 50, 150, 199, 200] {
            for queues in 1..10 {
                let found: Vec<_> = (0..queues)
                    .map(|number| lanes(if number == 0 { used } else { 0 }, 0, number % 2 == 1))
                    .collect();
                let usage = usage_of(LaneUse::default(), &found);
                let new = |queue: &QueueLanes| {
                    let max_own = usage.max_own_after_sweep(&LIMITS, queue, queues);
                    max_own.saturating_sub(queue.counts.own)
                };
                let replicated = found.iter().filter(|queue| queue.is_replicated);
                assert!(used + found.iter().map(new).sum::<usize>() <= 200, "{used} {queues}");
                assert!(replicated.map(new).sum::<usize>() <= 40, "{used} {queues}");
            }
        }
        let usage = LaneUse::default();
        assert_eq!(usage.max_own_after_sweep(&LIMITS, &lanes(0, 0, false), 1), 90);
    }

    #[test]
    fn sharing_has_a_cause() {
        let full = Usage { lanes: 200, is_full: true };
        let cause = |queue: QueueLanes, usage: LaneUse| queue.sharing_cause(&LIMITS, &usage);
        let none = LaneUse::default();
        assert_eq!(cause(lanes(90, 0, false), none), None);
        assert_eq!(cause(lanes(90, 3, false), none), Some(SharingCause::Queue));
        assert_eq!(cause(lanes(2, 3, true), none), Some(SharingCause::Earlier));
        let all = LaneUse { all: full, ..none };
        assert_eq!(cause(lanes(2, 3, false), all), Some(SharingCause::Installation));
        let replicated = LaneUse { replicated: full, ..none };
        assert_eq!(cause(lanes(2, 3, false), replicated), Some(SharingCause::Earlier));
        assert_eq!(cause(lanes(2, 3, true), replicated), Some(SharingCause::Replicated));
    }

    #[test]
    fn a_change_is_what_programs_have_to_know() {
        let states = LaneStates::new(LIMITS);
        let record = |own| states.record([("1".to_owned(), lanes(own, 0, false))].into());
        assert!(!record(90) && !record(199));
        assert!(record(200) && !record(199));
        assert!(record(0));
        assert_eq!(states.usage().all.lanes, 0);
    }
}
