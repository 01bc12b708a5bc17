//! The depths that were counted, and for how long each of them is valid.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use asyncqueue::depth::Depth;
use kube::ResourceExt;

use crate::crd::AsyncQueue;

/// A depth is valid for this many intervals of the collector, so that one interval in which NATS
/// does not answer changes nothing.
const VALID_INTERVALS: u32 = 3;

/// The last depth of each queue.
#[derive(Debug)]
pub(super) struct DepthReadings {
    /// By the uid of the queue: the calls of a deleted queue are not those of the next queue of the
    /// same name.
    queues: HashMap<String, Reading>,
    /// Time after which the collector counts again.
    interval: Duration,
}

/// A depth, and the time at which it was counted.
#[derive(Clone, Copy, Debug)]
struct Reading {
    depth: Depth,
    at: Instant,
}

/// What is known of a queue's depth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// It was counted so long ago, which is recent.
    Recent(Depth, Duration),
    /// It was counted so long ago, which is too long.
    Outdated(Duration),
    /// It was never counted.
    Never,
}

// === impl DepthReadings ===

impl DepthReadings {
    /// Creates readings of a collector that has counted nothing yet.
    pub(super) fn new(interval: Duration) -> Self {
        Self { queues: HashMap::new(), interval }
    }

    /// Records the depth of a queue. `at` is the time before NATS was asked.
    pub(super) fn record(&mut self, queue: &AsyncQueue, depth: Depth, at: Instant) {
        if let Some(uid) = queue.uid() {
            self.queues.insert(uid, Reading { depth, at });
        }
    }

    /// Removes all queues but these, and sets the time after which the collector counts again.
    pub(super) fn end_round<'a>(
        &mut self,
        queues: impl IntoIterator<Item = &'a AsyncQueue>,
        interval: Duration,
    ) {
        let mut previous = std::mem::take(&mut self.queues);
        self.queues = queues
            .into_iter()
            .filter_map(|queue| previous.remove_entry(queue.metadata.uid.as_ref()?))
            .collect();
        self.interval = interval;
    }

    /// Returns what is known of a queue's depth.
    pub(super) fn find(&self, queue: &AsyncQueue, now: Instant) -> Known {
        let uid = queue.metadata.uid.as_ref();
        let Some(reading) = uid.and_then(|uid| self.queues.get(uid)) else { return Known::Never };
        let age = now.saturating_duration_since(reading.at);
        if age < self.interval.saturating_mul(VALID_INTERVALS) {
            Known::Recent(reading.depth, age)
        } else {
            Known::Outdated(age)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    const DEPTH: Depth = Depth { waiting: 3, running: 2, retrying: 1, scheduled: 0 };
    const INTERVAL: Duration = Duration::from_secs(5);

    #[test]
    fn a_depth_is_recent_for_three_intervals() {
        let (mut readings, queue, start) =
            (DepthReadings::new(INTERVAL), fixtures::queue("q"), Instant::now());
        assert_eq!(readings.find(&queue, start), Known::Never);
        readings.record(&queue, DEPTH, start);
        let (almost, over) = (Duration::from_millis(14_999), INTERVAL * 3);
        assert_eq!(readings.find(&queue, start + almost), Known::Recent(DEPTH, almost));
        assert_eq!(readings.find(&queue, start + over), Known::Outdated(over));
        // With tens of thousands of streams, the collector pauses for longer.
        readings.end_round([&queue], INTERVAL * 4);
        assert_eq!(readings.find(&queue, start + over), Known::Recent(DEPTH, over));
    }

    #[test]
    fn a_recreated_queue_does_not_have_the_depth_of_the_deleted_one() {
        let (mut readings, deleted, now) =
            (DepthReadings::new(INTERVAL), fixtures::queue("q"), Instant::now());
        readings.record(&deleted, DEPTH, now);
        let mut recreated = deleted.clone();
        recreated.metadata.uid = Some(fixtures::uid("another"));
        assert_eq!(readings.find(&recreated, now), Known::Never);
        readings.end_round([&recreated], INTERVAL);
        assert!(readings.queues.is_empty());
    }
}
