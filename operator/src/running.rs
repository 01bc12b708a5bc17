//! How many calls run, as the workers say.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_nats::Client;
use asyncqueue::{
    QueueName,
    stats::{BlockedCalls, STATS_SUBJECTS, WorkerStats},
};
use futures::StreamExt;
use tracing::warn;

/// A worker speaks every 5 seconds, and is gone when it was not heard of three times.
const SILENCE: Duration = Duration::from_secs(15);

/// The calls that run, by queue and worker.
#[derive(Debug, Default)]
pub(crate) struct Running {
    queues: Mutex<HashMap<QueueName, Workers>>,
}

/// By the worker's name.
type Workers = HashMap<String, Worker>;

/// What a worker has said of itself, and when.
#[derive(Debug)]
struct Worker {
    running: u32,
    blocked: Vec<BlockedCalls>,
    at: Instant,
}

// === impl Running ===

impl Running {
    /// Takes in what a worker says.
    fn record(&self, queue: QueueName, stats: WorkerStats, now: Instant) {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let workers = queues.entry(queue).or_default();
        workers.retain(|_, worker| worker.is_alive(now));
        let WorkerStats { worker, running, blocked, .. } = stats;
        workers.insert(worker, Worker { running, blocked, at: now });
    }

    /// How many calls of a queue run.
    pub(crate) fn of(&self, queue: &QueueName, now: Instant) -> u64 {
        let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let workers = queues.get(queue).into_iter().flat_map(HashMap::values);
        workers.filter(|worker| worker.is_alive(now)).map(|worker| u64::from(worker.running)).sum()
    }

    /// The calls of a queue whose end its workers can't store, by what it is and why; sorted.
    pub(crate) fn blocked(&self, queue: &QueueName, now: Instant) -> Vec<BlockedCalls> {
        let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let workers = queues.get(queue).into_iter().flat_map(HashMap::values);
        let mut kinds: BTreeMap<(&str, &str), u32> = BTreeMap::new();
        for blocked in workers.filter(|worker| worker.is_alive(now)).flat_map(|worker| &worker.blocked) {
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

    /// Forgets a queue.
    pub(crate) fn forget(&self, queue: &QueueName) {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner).remove(queue);
    }

    /// Listens to the workers for as long as the client lives.
    pub(crate) async fn listen(&self, client: &Client) {
        let mut messages = match client.subscribe(STATS_SUBJECTS).await {
            Ok(messages) => messages,
            Err(error) => return warn!(%error, "the workers' statistics can't be listened to"),
        };
        let prefix = STATS_SUBJECTS.trim_end_matches('*');
        while let Some(message) = messages.next().await {
            let queue = message.subject.strip_prefix(prefix).and_then(|queue| queue.parse().ok());
            if let (Some(queue), Ok(stats)) = (queue, serde_json::from_slice(&message.payload)) {
                self.record(queue, stats, Instant::now());
            }
        }
    }
}

// === impl Worker ===

impl Worker {
    fn is_alive(&self, now: Instant) -> bool {
        now.duration_since(self.at) < SILENCE
    }
}

#[cfg(test)]
mod tests {
    use asyncqueue::stats::stats_subject;

    use super::*;

    fn stats(worker: &str, running: u32) -> WorkerStats {
        WorkerStats { worker: worker.to_owned(), running, max_inflight: 10, blocked: Vec::new() }
    }

    #[test]
    fn a_queues_workers_are_added_up_and_the_silent_ones_dropped() {
        let (running, start) = (Running::default(), Instant::now());
        let queue: QueueName = "q".parse().unwrap();
        running.record(queue.clone(), stats("a", 2), start);
        running.record(queue.clone(), stats("b", 3), start + SILENCE / 2);
        running.record("other".parse().unwrap(), stats("c", 9), start);
        assert_eq!(running.of(&queue, start + SILENCE / 2), 5);
        running.record(queue.clone(), stats("b", 1), start + SILENCE / 2);
        assert_eq!(running.of(&queue, start + SILENCE / 2), 3);
        assert_eq!(running.of(&queue, start + SILENCE), 1);
        running.forget(&queue);
        assert_eq!(running.of(&queue, start), 0);
    }

    #[test]
    fn the_subject_names_the_queue() {
        let queue: QueueName = "q".parse().unwrap();
        assert_eq!(stats_subject(&queue), STATS_SUBJECTS.replace('*', "q"));
    }

    #[test]
    fn blocked_calls_of_all_workers_are_added_up() {
        let running = Running::default();
        let queue: QueueName = "jobs".parse().unwrap();
        let now = Instant::now();
        let kind = |record: &str, calls| BlockedCalls {
            record: record.to_owned(),
            reason: "no_space".to_owned(),
            calls,
        };
        for (worker, blocked) in
            [("w-1", vec![kind("result", 2), kind("dead_letter", 1)]), ("w-2", vec![kind("result", 3)])]
        {
            running.record(queue.clone(), WorkerStats { blocked, ..stats(worker, 1) }, now);
        }
        assert_eq!(running.blocked(&queue, now), [kind("dead_letter", 1), kind("result", 5)]);
        assert!(running.blocked(&queue, now + SILENCE).is_empty());
    }
}
