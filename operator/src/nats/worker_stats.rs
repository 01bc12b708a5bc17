//! Counts the calls in flight, from the statistics that workers publish.
//!
//! Any client that may publish on NATS can claim to be a worker of any queue. So the memory is
//! bounded: by the queues that exist, and for each queue by the maximum number of its workers.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_nats::Client;
use asyncqueue::{
    QueueName,
    stats::{BlockedCalls, LimitedFunction, MAX_LIMITED, STATS_SUBJECTS, WorkerStats},
};
use futures::StreamExt;
use tracing::warn;

/// Time without a report after which a worker is not counted: three reports, one every 5 seconds.
const WORKER_TIMEOUT: Duration = Duration::from_secs(15);

/// Time after which all delayed calls of a worker that is gone have come to others: workers hand a
/// call back for an hour at most.
const LEFT_TIMEOUT: Duration = Duration::from_secs(3600);

/// Maximum number of workers of one queue at a time: twice the maximum of replicas, while all are
/// replaced.
const MAX_WORKERS: usize = 2_000;

/// Maximum size of statistics, in bytes, and maximum length of a worker's name, which is that of a
/// pod.
const MAX_PAYLOAD: usize = 16 * 1024;
const MAX_WORKER_NAME: usize = 253;

/// Maximum length of the text that distinguishes workers with the same name.
const MAX_INSTANCE: usize = 16;

/// Maximum number of kinds of blocked calls of one worker, and maximum length of each name in them.
const MAX_BLOCKED_KINDS: usize = 16;
const MAX_BLOCKED_NAME: usize = 32;

/// The calls in flight, by queue and worker. Only queues that exist are in it.
#[derive(Debug, Default)]
pub(crate) struct InflightTracker {
    queues: Mutex<HashMap<QueueName, Workers>>,
}

/// The workers of a queue.
#[derive(Debug, Default)]
struct Workers {
    /// By name.
    alive: HashMap<String, Worker>,
    /// The delayed calls of workers that are gone.
    left: LeftCalls,
}

/// Delayed calls that workers had handed back which are gone. They are not due yet, although no
/// worker reports them.
#[derive(Clone, Copy, Debug, Default)]
struct LeftCalls {
    count: u64,
    /// When the last of these workers was found to be gone.
    since: Option<Instant>,
}

/// The last report of a worker, and its time.
#[derive(Debug)]
struct Worker {
    running: u32,
    scheduled: u64,
    blocked: Vec<BlockedCalls>,
    limited: Vec<LimitedFunction>,
    at: Instant,
}

// === impl InflightTracker ===

impl InflightTracker {
    /// Sets which queues exist. Reports of other queues are removed.
    pub(crate) fn set_queues(&self, known: impl IntoIterator<Item = QueueName>) {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let mut previous = std::mem::take(&mut *queues);
        *queues = known
            .into_iter()
            .map(|queue| {
                let workers = previous.remove(&queue).unwrap_or_default();
                (queue, workers)
            })
            .collect();
    }

    /// Returns whether the queue exists.
    pub(crate) fn has_queue(&self, queue: &QueueName) -> bool {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner).contains_key(queue)
    }

    /// Records the report of a worker of a known queue.
    fn record(&self, queue: &QueueName, stats: WorkerStats, now: Instant) {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(workers) = queues.get_mut(queue) else { return };
        workers.remove_dead(now);
        let WorkerStats { worker, instance, running, scheduled, blocked, limited, .. } = stats;
        let (worker, scheduled) = (worker + &instance, scheduled.unwrap_or_default());
        let alive = &mut workers.alive;
        if alive.len() < MAX_WORKERS || alive.contains_key(&worker) {
            alive.insert(worker, Worker { running, scheduled, blocked, limited, at: now });
        }
    }

    /// Returns the number of calls in flight of a queue.
    pub(crate) fn calls(&self, queue: &QueueName, now: Instant) -> u64 {
        let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let workers = queues.get(queue).into_iter().flat_map(|workers| workers.alive.values());
        workers.filter(|worker| worker.is_alive(now)).map(|worker| u64::from(worker.running)).sum()
    }

    /// Returns the number of delayed calls of a queue that are not due, of at most `max` calls that
    /// were delivered and do not run.
    pub(crate) fn scheduled(&self, queue: &QueueName, max: u64, now: Instant) -> u64 {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.get_mut(queue).map_or(0, |workers| workers.scheduled(max, now))
    }

    /// Returns the calls of a queue whose end its workers can't store, by record and reason;
    /// sorted.
    pub(crate) fn blocked(&self, queue: &QueueName, now: Instant) -> Vec<BlockedCalls> {
        let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let workers = queues.get(queue).into_iter().flat_map(|workers| workers.alive.values());
        let mut kinds: BTreeMap<(&str, &str), u32> = BTreeMap::new();
        for blocked in
            workers.filter(|worker| worker.is_alive(now)).flat_map(|worker| &worker.blocked)
        {
            let calls = kinds.entry((&blocked.record, &blocked.reason)).or_default();
            *calls = calls.saturating_add(blocked.calls);
        }
        let kinds = kinds.into_iter();
        kinds
            .map(|((record, reason), calls)| BlockedCalls {
                record: record.to_owned(),
                reason: reason.to_owned(),
                calls,
            })
            .collect()
    }

    /// Returns the functions of a queue whose limits its workers have learned, over all workers;
    /// sorted by name.
    pub(crate) fn limited(&self, queue: &QueueName, now: Instant) -> Vec<LimitedFunction> {
        let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let workers = queues.get(queue).into_iter().flat_map(|workers| workers.alive.values());
        let alive = workers.filter(|worker| worker.is_alive(now));
        LimitedFunction::sum(alive.flat_map(|worker| &worker.limited))
    }

    /// Removes a queue and its workers.
    pub(crate) fn remove_queue(&self, queue: &QueueName) {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner).remove(queue);
    }

    /// Receives the reports of workers for as long as the client lives.
    pub(crate) async fn listen(&self, client: &Client) {
        let mut messages = match client.subscribe(STATS_SUBJECTS).await {
            Ok(messages) => messages,
            Err(error) => return warn!(%error, "failed to subscribe to the statistics of workers"),
        };
        let prefix = STATS_SUBJECTS.trim_end_matches('*');
        while let Some(message) = messages.next().await {
            let queue = message.subject.strip_prefix(prefix).and_then(|queue| queue.parse().ok());
            if let (Some(queue), Some(stats)) = (queue, decode(&message.payload)) {
                self.record(&queue, stats, Instant::now());
            }
        }
    }
}

/// Decodes the report of a worker; `None` if it is not valid.
fn decode(payload: &[u8]) -> Option<WorkerStats> {
    let stats: WorkerStats =
        serde_json::from_slice(payload).ok().filter(|_| payload.len() <= MAX_PAYLOAD)?;
    // These texts are shown in a condition.
    let is_valid_name = |text: &str| {
        text.len() <= MAX_BLOCKED_NAME
            && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    };
    let are_names_valid = stats
        .blocked
        .iter()
        .all(|blocked| is_valid_name(&blocked.record) && is_valid_name(&blocked.reason));
    let is_valid = stats.worker.len() <= MAX_WORKER_NAME
        && stats.instance.len() <= MAX_INSTANCE
        && stats.blocked.len() <= MAX_BLOCKED_KINDS
        && stats.limited.len() <= MAX_LIMITED
        && are_names_valid;
    is_valid.then_some(stats)
}

// === impl Workers ===

impl Workers {
    /// Removes the workers that report nothing any more. Their delayed calls stay.
    fn remove_dead(&mut self, now: Instant) {
        let mut left = 0_u64;
        self.alive.retain(|_, worker| {
            let is_alive = worker.is_alive(now);
            if !is_alive {
                left = left.saturating_add(worker.scheduled);
            }
            is_alive
        });
        if left > 0 {
            self.left.count = self.left.count.saturating_add(left);
            self.left.since = Some(now);
        }
    }

    fn scheduled(&mut self, max: u64, now: Instant) -> u64 {
        self.remove_dead(now);
        let reported = self.alive.values().map(|worker| worker.scheduled);
        let reported = reported.fold(0, u64::saturating_add).min(max);
        // Without a worker, no call comes to another one.
        let has_ended = self.left.since.is_some_and(|since| now >= since + LEFT_TIMEOUT);
        if has_ended && !self.alive.is_empty() {
            self.left = LeftCalls::default();
        }
        self.left.count = self.left.count.min(max - reported);
        reported + self.left.count
    }
}

// === impl Worker ===

impl Worker {
    fn is_alive(&self, now: Instant) -> bool {
        now.duration_since(self.at) < WORKER_TIMEOUT
    }
}

#[cfg(test)]
mod tests {
    use asyncqueue::{
        FunctionName,
        stats::{
            durations::{BUCKETS, DurationCounts},
            stats_subject,
        },
    };

    use super::*;

    fn stats(worker: &str, running: u32) -> WorkerStats {
        WorkerStats { worker: worker.to_owned(), running, ..WorkerStats::default() }
    }

    #[test]
    fn workers_of_a_queue_are_summed_until_they_time_out() {
        let (queue, start) = ("q".parse().unwrap(), Instant::now());
        let tracker = tracker_of(["q", "other"]);
        tracker.record(&queue, stats("a", 2), start);
        tracker.record(&queue, stats("b", 3), start + WORKER_TIMEOUT / 2);
        tracker.record(&"other".parse().unwrap(), stats("c", 9), start);
        assert_eq!(tracker.calls(&queue, start + WORKER_TIMEOUT / 2), 5);
        tracker.record(&queue, stats("b", 1), start + WORKER_TIMEOUT / 2);
        assert_eq!(tracker.calls(&queue, start + WORKER_TIMEOUT / 2), 3);
        assert_eq!(tracker.calls(&queue, start + WORKER_TIMEOUT), 1);
        tracker.remove_queue(&queue);
        assert_eq!(tracker.calls(&queue, start), 0);
    }

    fn limited(name: &str, limit: u32, refused: u64) -> LimitedFunction {
        let function = FunctionName::new(name, "ns").unwrap();
        LimitedFunction { function, limit, refused }
    }

    #[test]
    fn learned_limits_of_living_workers_are_summed() {
        let (tracker, queue) = (tracker_of(["jobs"]), "jobs".parse().unwrap());
        let start = Instant::now();
        for (worker, functions, at) in [
            ("w-1", vec![limited("a", 4, 2), limited("b", 1, 1)], start),
            ("w-2", vec![limited("a", 3, 5)], start + WORKER_TIMEOUT / 2),
        ] {
            tracker.record(&queue, WorkerStats { limited: functions, ..stats(worker, 1) }, at);
        }
        let (middle, end) = (start + WORKER_TIMEOUT / 2, start + WORKER_TIMEOUT);
        assert_eq!(tracker.limited(&queue, middle), [limited("a", 7, 7), limited("b", 1, 1)]);
        assert_eq!(tracker.limited(&queue, end), [limited("a", 3, 5)]);
    }

    fn tracker_of<const N: usize>(queues: [&str; N]) -> InflightTracker {
        let tracker = InflightTracker::default();
        tracker.set_queues(queues.map(|queue| queue.parse().unwrap()));
        tracker
    }

    fn count_workers(tracker: &InflightTracker) -> usize {
        tracker.queues.lock().unwrap().values().map(|workers| workers.alive.len()).sum()
    }

    #[test]
    fn delayed_calls_of_a_worker_that_is_gone_stay_scheduled() {
        let (tracker, start) = (tracker_of(["q"]), Instant::now());
        let queue: QueueName = "q".parse().unwrap();
        let report = |worker: &str, scheduled, now| {
            tracker.record(&queue, WorkerStats { scheduled, ..stats(worker, 0) }, now);
        };
        report("a", Some(100), start);
        report("b", Some(20), start);
        report("of an earlier version", None, start);
        assert_eq!(tracker.scheduled(&queue, 500, start), 120);
        assert_eq!(tracker.scheduled(&queue, 110, start), 110, "no more than there are");
        // All of them are replaced by one.
        let gone = start + WORKER_TIMEOUT;
        report("c", Some(5), gone);
        assert_eq!(tracker.scheduled(&queue, 500, gone), 125);
        // The first ones become due, and some wait for their retry then.
        assert_eq!(tracker.scheduled(&queue, 45, gone), 45);
        assert_eq!(tracker.scheduled(&queue, 500, gone), 45, "the others have ended");
        let mut now = gone;
        while now < gone + LEFT_TIMEOUT {
            now += WORKER_TIMEOUT / 2;
            report("c", Some(7), now);
        }
        assert_eq!(tracker.scheduled(&queue, 500, now), 7, "others have them by now");
    }

    #[test]
    fn delayed_calls_stay_scheduled_while_there_is_no_worker() {
        let (tracker, start) = (tracker_of(["q"]), Instant::now());
        let queue: QueueName = "q".parse().unwrap();
        tracker.record(&queue, WorkerStats { scheduled: Some(3), ..stats("a", 0) }, start);
        let much_later = start + LEFT_TIMEOUT * 9;
        assert_eq!(tracker.scheduled(&queue, 3, much_later), 3);
        assert_eq!(tracker.scheduled(&queue, 3, much_later + LEFT_TIMEOUT * 2), 3);
    }

    #[test]
    fn invented_queues_and_workers_are_bounded() {
        let (tracker, now) = (tracker_of(["jobs"]), Instant::now());
        for number in 0..10_000 {
            tracker.record(&format!("invented-{number}").parse().unwrap(), stats("w", 1), now);
        }
        assert_eq!((count_workers(&tracker), tracker.queues.lock().unwrap().len()), (0, 1));
        let jobs: QueueName = "jobs".parse().unwrap();
        for number in 0..10_000 {
            tracker.record(&jobs, stats(&format!("invented-{number}"), 1), now);
        }
        assert_eq!(count_workers(&tracker), MAX_WORKERS);
        // A known worker can still report, and all are removed with the queue.
        tracker.record(&jobs, stats("invented-0", 7), now);
        assert_eq!(tracker.calls(&jobs, now), MAX_WORKERS as u64 + 6);
        tracker.set_queues(["jobs".parse().unwrap(), "other".parse().unwrap()]);
        assert_eq!(count_workers(&tracker), MAX_WORKERS);
        tracker.set_queues(["other".parse().unwrap()]);
        assert_eq!((count_workers(&tracker), tracker.calls(&jobs, now)), (0, 0));
        assert!(tracker.has_queue(&"other".parse().unwrap()) && !tracker.has_queue(&jobs));
    }

    #[test]
    fn invalid_statistics_are_ignored() {
        let json = |stats: &WorkerStats| serde_json::to_vec(stats).unwrap();
        assert_eq!(decode(&json(&stats("w-1", 2))), Some(stats("w-1", 2)));
        let durations = Some(DurationCounts::from_buckets([u64::MAX; BUCKETS]));
        let with_durations = WorkerStats { durations, ..stats("w-1", 2) };
        assert_eq!(decode(&json(&with_durations)), Some(with_durations));
        let with = |record: &str, count| {
            let blocked =
                BlockedCalls { record: record.to_owned(), reason: "no_space".to_owned(), calls: 1 };
            json(&WorkerStats { blocked: vec![blocked; count], ..stats("w", 1) })
        };
        assert!(decode(&with("dead_letter", MAX_BLOCKED_KINDS)).is_some());
        let with_limited = |count| {
            json(&WorkerStats { limited: vec![limited("f", 1, 1); count], ..stats("w", 1) })
        };
        assert!(decode(&with_limited(MAX_LIMITED)).is_some());
        for bad in [
            with_limited(MAX_LIMITED + 1),
            br#"{"worker":"w","running":1,"maxInflight":1,
                "limited":[{"function":"a b","limit":1,"refused":1}]}"#
                .to_vec(),
            with("dead_letter", MAX_BLOCKED_KINDS + 1),
            with("Click http://evil", 1),
            with(&"x".repeat(MAX_BLOCKED_NAME + 1), 1),
            json(&stats(&"w".repeat(MAX_WORKER_NAME + 1), 1)),
            json(&WorkerStats { instance: "i".repeat(MAX_INSTANCE + 1), ..stats("w", 1) }),
            [json(&stats("w", 1)), vec![b' '; MAX_PAYLOAD]].concat(),
            b"[]".to_vec(),
        ] {
            assert_eq!(decode(&bad), None, "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn the_subject_names_the_queue() {
        let queue: QueueName = "q".parse().unwrap();
        assert_eq!(stats_subject(&queue), STATS_SUBJECTS.replace('*', "q"));
    }

    #[test]
    fn blocked_calls_of_all_workers_are_summed() {
        let tracker = tracker_of(["jobs"]);
        let queue: QueueName = "jobs".parse().unwrap();
        let now = Instant::now();
        let kind = |record: &str, calls| BlockedCalls {
            record: record.to_owned(),
            reason: "no_space".to_owned(),
            calls,
        };
        for (worker, blocked) in [
            ("w-1", vec![kind("result", 2), kind("dead_letter", 1)]),
            ("w-2", vec![kind("result", 3)]),
        ] {
            tracker.record(&queue, WorkerStats { blocked, ..stats(worker, 1) }, now);
        }
        assert_eq!(tracker.blocked(&queue, now), [kind("dead_letter", 1), kind("result", 5)]);
        assert!(tracker.blocked(&queue, now + WORKER_TIMEOUT).is_empty());
    }
}
