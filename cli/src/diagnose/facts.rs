//! What is known of a queue.

use asyncqueue::{QueueName, depth::Depth, stats::WorkerReplies};

use super::AsyncQueue;

/// What is known of a queue.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) queue: QueueName,
    /// Name of the stream that its calls go to. `None` if only dead letters of it are left, or if
    /// only its `AsyncQueue` is known.
    pub(crate) wanted_stream: Option<String>,
    /// Whether that stream exists.
    pub(crate) has_stream: bool,
    /// Why no server answers for that stream, which exists.
    pub(crate) stream_error: Option<String>,
    /// Number of consumers of its calls.
    pub(crate) consumers: usize,
    /// Whether one of them is paused.
    pub(crate) is_paused: bool,
    pub(crate) depth: Depth,
    /// Number of stored calls that were delivered more than once.
    pub(crate) redelivered: u64,
    /// Results that are not delivered yet.
    pub(crate) callbacks: u64,
    pub(crate) dead_letters: u64,
    /// The most frequent reason of the newest of them.
    pub(crate) dead_reason: Option<DeadReason>,
    pub(crate) workers: WorkerReplies,
    /// Age of the oldest call that has not ended.
    pub(crate) oldest_seconds: Option<u64>,
    pub(crate) kubernetes: Kubernetes,
}

/// The most frequent reason of dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeadReason {
    pub(crate) reason: String,
    /// How many of those that were read have it.
    pub(crate) count: usize,
    /// How many were read.
    pub(crate) read: usize,
}

/// What Kubernetes knows of the queue.
#[derive(Clone, Debug)]
pub(crate) enum Kubernetes {
    /// No operator created the queue, so Kubernetes was not asked.
    Standalone,
    /// It can't be read, for this reason.
    NotRead(String),
    /// Its `AsyncQueue`. More than one if namespaces dispute about the name.
    Read(Vec<AsyncQueue>),
}

// === impl Facts ===

impl Facts {
    /// Returns the number of connected workers, and how many calls they run at most; `None` if
    /// they do not report that.
    pub(crate) fn slots(&self) -> Option<(usize, u64)> {
        match &self.workers {
            WorkerReplies::None => Some((0, 0)),
            WorkerReplies::NoReply => None,
            WorkerReplies::Replied(all) => {
                let slots = all.iter().map(|worker| u64::from(worker.max_inflight)).sum();
                Some((all.len(), slots))
            }
        }
    }

    /// Returns the objects of the queue, as far as they were read.
    pub(crate) fn async_queues(&self) -> &[AsyncQueue] {
        match &self.kubernetes {
            Kubernetes::Read(all) => all,
            Kubernetes::Standalone | Kubernetes::NotRead(_) => &[],
        }
    }
}

impl DeadReason {
    /// Returns the most frequent of these reasons. The number of the attempt is not part of it.
    pub(crate) fn most_frequent<'a>(reasons: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let mut counts: Vec<(&str, usize)> = Vec::new();
        for reason in reasons {
            let reason = reason.split(" (attempt ").next().unwrap_or(reason);
            match counts.iter_mut().find(|(known, _)| *known == reason) {
                Some((_, count)) => *count += 1,
                None => counts.push((reason, 1)),
            }
        }
        let read = counts.iter().map(|(_, count)| count).sum();
        // Of several, the first.
        let (reason, count) = counts.into_iter().rev().max_by_key(|(_, count)| *count)?;
        Some(Self { reason: reason.to_owned(), count, read })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_frequent_reason_does_not_depend_on_the_attempt() {
        let reasons = ["no route", "it failed (attempt 3 of 3)", "it failed (attempt 1 of 1)"];
        let expected = DeadReason { reason: "it failed".to_owned(), count: 2, read: 3 };
        assert_eq!(DeadReason::most_frequent(reasons), Some(expected));
        assert_eq!(DeadReason::most_frequent([]), None);
        assert_eq!(DeadReason::most_frequent(["a", "b"]).unwrap().reason, "a");
    }
}
