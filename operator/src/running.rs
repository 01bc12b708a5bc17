//! How many calls run, as the workers say.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_nats::Client;
use asyncqueue::{
    QueueName,
    stats::{STATS_SUBJECTS, WorkerStats},
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

/// By the worker's name: how many calls run in it, and when it said so.
type Workers = HashMap<String, (u32, Instant)>;

// === impl Running ===

impl Running {
    /// Takes in what a worker says.
    fn record(&self, queue: QueueName, stats: WorkerStats, now: Instant) {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let workers = queues.entry(queue).or_default();
        workers.retain(|_, (_, at)| now.duration_since(*at) < SILENCE);
        workers.insert(stats.worker, (stats.running, now));
    }

    /// How many calls of a queue run.
    pub(crate) fn of(&self, queue: &QueueName, now: Instant) -> u64 {
        let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let workers = queues.get(queue).into_iter().flat_map(HashMap::values);
        workers
            .filter(|(_, at)| now.duration_since(*at) < SILENCE)
            .map(|(running, _)| u64::from(*running))
            .sum()
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
}
