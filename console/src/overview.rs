//! All queues at one time. Pure.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
};

use asyncqueue::{
    QueueName,
    inventory::{CallCounts, QueueInventory},
    stats::WorkerReplies,
};
use jiff::Timestamp;

use self::durations::QueueDurations;
use crate::history::{Percentiles, Sample};

mod durations;

/// All queues, as they were sampled.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overview {
    /// Which queues there are, and where their calls are.
    pub(crate) inventory: QueueInventory,
    /// The state of each queue.
    pub(crate) queues: BTreeMap<QueueName, QueueState>,
    /// What the workers of each queue replied.
    pub(crate) workers: HashMap<QueueName, WorkerReplies>,
    /// When the sample was taken.
    pub(crate) at: Timestamp,
    /// How long the invocations of each queue took.
    durations: HashMap<QueueName, QueueDurations>,
}

/// The state of a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct QueueState {
    /// Whether the stream of its calls exists.
    pub(crate) has_stream: bool,
    /// Calls that are due and do not run.
    pub(crate) waiting: u64,
    /// Calls that run; `None` if workers do not report that.
    pub(crate) running: Option<u64>,
    /// Delayed calls that are not due, as far as workers report them.
    pub(crate) scheduled: u64,
    /// Results that the client does not have yet.
    pub(crate) callbacks: u64,
    /// Dead letters.
    pub(crate) dead: u64,
    /// Connected workers; `None` if they do not report that.
    pub(crate) workers: Option<usize>,
    /// When the oldest call was stored that has not ended.
    pub(crate) oldest: Option<Timestamp>,
    /// How long the invocations took that ended since the sample before. `None`: none did.
    pub(crate) durations: Option<Percentiles>,
}

/// A column by which queues are sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SortBy {
    #[default]
    Name,
    Waiting,
    Running,
    Scheduled,
    Dead,
    Workers,
    Oldest,
    Duration,
}

// === impl Overview ===

impl Overview {
    /// Computes the state of all queues. `before` is the sample before this one.
    pub(crate) fn new(
        inventory: QueueInventory,
        workers: HashMap<QueueName, WorkerReplies>,
        at: Timestamp,
        before: Option<&Self>,
    ) -> Self {
        let none = WorkerReplies::default();
        let (mut queues, mut durations) = (BTreeMap::new(), HashMap::new());
        for queue in inventory.queues.keys() {
            let replies = workers.get(queue).unwrap_or(&none);
            let mut state = QueueState::new(&inventory, queue, replies);
            let last = before.and_then(|before| before.durations.get(queue));
            if let Some(next) = QueueDurations::next(last, replies) {
                state.durations = next.percentiles();
                durations.insert(queue.clone(), next);
            }
            queues.insert(queue.clone(), state);
        }
        Self { inventory, queues, workers, at, durations }
    }

    /// Returns the queues whose names contain a text, sorted. By number, the highest is first; by
    /// age, the oldest; by duration, the longest p95.
    pub(crate) fn select(&self, filter: &str, sort: SortBy) -> Vec<(&QueueName, &QueueState)> {
        let filter = filter.trim().to_ascii_lowercase();
        let mut rows: Vec<_> =
            self.queues.iter().filter(|(name, _)| name.as_str().contains(&filter)).collect();
        match sort {
            SortBy::Name => {}
            SortBy::Waiting => rows.sort_by_key(|(_, state)| Reverse(state.waiting)),
            SortBy::Running => rows.sort_by_key(|(_, state)| Reverse(state.running)),
            SortBy::Scheduled => rows.sort_by_key(|(_, state)| Reverse(state.scheduled)),
            SortBy::Dead => rows.sort_by_key(|(_, state)| Reverse(state.dead)),
            SortBy::Workers => rows.sort_by_key(|(_, state)| Reverse(state.workers)),
            SortBy::Oldest => {
                rows.sort_by_key(|(_, state)| (state.oldest.is_none(), state.oldest));
            }
            SortBy::Duration => rows.sort_by_key(|(_, state)| Reverse(state.durations)),
        }
        rows
    }

    /// Returns a sample of each queue for the history. `before` is the sample before this one.
    pub(crate) fn samples(
        &self,
        before: Option<&Self>,
    ) -> impl Iterator<Item = (QueueName, Sample)> {
        let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        self.queues.iter().map(move |(queue, state)| {
            let sample = Sample {
                waiting: small(state.waiting),
                running: state.running.map(small),
                oldest_seconds: small(state.oldest.map_or(0, |oldest| seconds(oldest, self.at))),
                left_per_minute: before.and_then(|before| self.left_per_minute(before, queue)),
                durations: state.durations,
            };
            (queue.clone(), sample)
        })
    }

    /// Returns how many calls left the queue for each minute since a sample before. `None` if no
    /// time has passed, or if the stream is another one.
    fn left_per_minute(&self, before: &Self, queue: &QueueName) -> Option<u32> {
        let (old, new) = (before.inventory.call_stream(queue)?, self.inventory.call_stream(queue)?);
        let left = new.flow_since(old)?.left;
        let millis = u64::try_from(self.at.duration_since(before.at).as_millis()).ok()?;
        let per_minute = left.saturating_mul(60_000).checked_div(millis)?;
        Some(u32::try_from(per_minute).unwrap_or(u32::MAX))
    }
}

// === impl QueueState ===

impl QueueState {
    fn new(inventory: &QueueInventory, queue: &QueueName, replies: &WorkerReplies) -> Self {
        let stream = inventory.call_stream(queue);
        let CallCounts { waiting, running, scheduled } = inventory.count_calls(queue, replies);
        Self {
            has_stream: stream.is_some(),
            waiting,
            running,
            scheduled,
            callbacks: inventory.messages(&queue.callback_stream()),
            dead: inventory.messages(&queue.dead_letter_stream()),
            workers: replies.count().map(|(workers, _)| workers),
            oldest: stream.filter(|stream| stream.messages > 0).map(|stream| stream.oldest),
            durations: None,
        }
    }

    /// Returns what is wrong with the queue and what to do, if something is.
    pub(crate) fn problem(&self) -> Option<&'static str> {
        match self {
            Self { workers: Some(0), waiting, scheduled, callbacks, .. }
                if waiting + scheduled + callbacks > 0 =>
            {
                Some(
                    "Calls are waiting and no worker is connected. Check the queue's Deployment \
                     and whether it is suspended.",
                )
            }
            Self { workers: None, .. } => Some(
                "Workers are connected and do not report what they run. Check their log and \
                 their version.",
            ),
            Self { has_stream: false, dead: 0, .. } => Some(
                "The queue has no stream yet. The operator creates it, or the first call if the \
                 gateway runs with ensure_stream=true.",
            ),
            _ => None,
        }
    }
}

/// Returns the whole seconds between two times, 0 if the first is not before the second.
pub(crate) fn seconds(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.duration_since(from).as_secs()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use asyncqueue::{directory::QueueEntry, inventory::StreamSummary, stats::WorkerStats};

    use super::*;

    fn stream(name: &str, messages: u64, oldest: &str) -> StreamSummary {
        StreamSummary {
            name: name.to_owned(),
            subjects: Vec::new(),
            owner: None,
            owner_uid: None,
            messages,
            last_sequence: 100,
            oldest: oldest.parse().unwrap(),
        }
    }

    fn overview() -> Overview {
        let (early, late) = ("2026-11-24T10:00:00Z", "2026-11-24T10:05:00Z");
        let streams = vec![stream("a", 9, late), stream("b", 2, early), stream("b-dead", 4, early)];
        let directory =
            ["a", "b", "c"].map(|name| (name.parse().unwrap(), QueueEntry::new(name, name)));
        let worker = WorkerStats {
            worker: "w".to_owned(),
            running: 3,
            max_inflight: 5,
            scheduled: Some(2),
            ..WorkerStats::default()
        };
        let replies = HashMap::from([
            ("a".parse().unwrap(), WorkerReplies::Replied(vec![worker])),
            ("b".parse().unwrap(), WorkerReplies::None),
            ("c".parse().unwrap(), WorkerReplies::NoReply),
        ]);
        let at = "2026-11-24T10:06:00Z".parse().unwrap();
        Overview::new(QueueInventory::new(directory, streams), replies, at, None)
    }

    fn names(rows: Vec<(&QueueName, &QueueState)>) -> Vec<String> {
        rows.into_iter().map(|(name, _)| name.to_string()).collect()
    }

    #[test]
    fn calls_are_divided_into_waiting_running_and_scheduled() {
        let overview = overview();
        let a = &overview.queues[&"a".parse().unwrap()];
        assert_eq!((a.waiting, a.running, a.scheduled, a.workers), (4, Some(3), 2, Some(1)));
        let b = &overview.queues[&"b".parse().unwrap()];
        assert_eq!((b.waiting, b.running, b.dead, b.workers), (2, Some(0), 4, Some(0)));
    }

    #[test]
    fn problem_is_named_with_its_remedy() {
        let overview = overview();
        let problem = |name: &str| overview.queues[&name.parse().unwrap()].problem();
        assert_eq!(problem("a"), None);
        assert!(problem("b").unwrap().contains("no worker is connected"));
        assert!(problem("c").unwrap().contains("do not report"));
    }

    #[test]
    fn queues_are_filtered_and_sorted() {
        let overview = overview();
        assert_eq!(names(overview.select("", SortBy::Name)), ["a", "b", "c"]);
        assert_eq!(names(overview.select(" B ", SortBy::Name)), ["b"]);
        assert_eq!(names(overview.select("", SortBy::Dead))[0], "b");
        assert_eq!(names(overview.select("", SortBy::Oldest)), ["b", "a", "c"]);
        assert_eq!(names(overview.select("", SortBy::Waiting)), ["a", "b", "c"]);
        let mut slow = overview;
        for (name, p50, p95) in [("b", 9, 300), ("c", 10, 200)] {
            let state = slow.queues.get_mut(&name.parse().unwrap()).unwrap();
            let millis = |millis| NonZeroU32::new(millis).unwrap();
            state.durations = Some(Percentiles { p95: millis(p95), p50: millis(p50) });
        }
        assert_eq!(names(slow.select("", SortBy::Duration)), ["b", "c", "a"]);
    }

    #[test]
    fn samples_hold_the_age_of_the_oldest_call() {
        let samples: Vec<_> = overview().samples(None).map(|(_, sample)| sample).collect();
        let ages: Vec<_> = samples.iter().map(|sample| sample.oldest_seconds).collect();
        assert_eq!(ages, [60, 360, 0]);
    }

    #[test]
    fn calls_that_left_are_computed_from_sequences() {
        let before = overview();
        let queue = "a".parse().unwrap();
        let left = |seconds: i64, stored: u64, messages: u64| {
            let mut after = before.clone();
            after.at = before.at + jiff::SignedDuration::from_secs(seconds);
            let stream = after.inventory.streams.get_mut("a").unwrap();
            (stream.last_sequence, stream.messages) = (stored, messages);
            after.left_per_minute(&before, &queue)
        };
        assert_eq!(left(30, 100, 9), Some(0));
        assert_eq!(left(30, 110, 9), Some(20), "10 were stored, and as many left");
        assert_eq!(left(60, 100, 0), Some(9), "all of them left");
        assert_eq!(left(60, 110, 19), Some(0), "10 were stored and none left");
        assert_eq!(left(0, 110, 9), None, "no time has passed");
        assert_eq!(left(60, 5, 5), None, "the stream was recreated");
        assert_eq!(overview().samples(None).find_map(|(_, sample)| sample.left_per_minute), None);
    }
}
