//! Statistics that workers publish over core NATS. With them, `inflight` is the number of running
//! calls and not of unacknowledged messages: a call that waits for its retry is unacknowledged too.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use async_nats::{Client, Message};
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};

pub use self::durations::DurationCounts;
use crate::{
    jetstream::NatsError,
    names::{FunctionName, QueueName},
    worker_requests::status_request_subject,
};

pub mod durations;

/// Subjects of all queues' statistics; the last token is the queue's name.
pub const STATS_SUBJECTS: &str = "asyncqueue.stats.*";

/// The question for a worker's statistics, on the subject of its queue's questions
/// ([`status_request_subject`]). Each worker of the queue answers with its [`WorkerStats`] in JSON.
/// Workers before version 0.2 do not answer.
pub const STATS_REQUEST: &str = "stats";

/// Maximum number of functions in [`WorkerStats::limited`].
pub const MAX_LIMITED: usize = 20;

/// How long to wait for the next answer. Workers answer within milliseconds.
const REPLY_TIMEOUT: Duration = Duration::from_millis(250);

/// Maximum time for reading all answers.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Returns the subject of one queue's statistics.
#[must_use]
pub fn stats_subject(queue: &QueueName) -> String {
    format!("asyncqueue.stats.{queue}")
}

/// The current statistics of one worker process. Published on each change and every few seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerStats {
    /// The worker's name: its pod, or as its setting says.
    pub worker: String,
    /// Distinguishes worker processes with the same name. Empty before version 0.2.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub instance: String,
    /// Number of calls that run in the worker.
    pub running: u32,
    /// Number of calls that it runs at most at the same time.
    pub max_inflight: u32,
    /// Number of delayed calls that the worker has handed back and that are not due. `None`: its
    /// version does not know delayed calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled: Option<u64>,
    /// Calls whose end can't be stored. Empty before version 0.2, which does not report them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocked: Vec<BlockedCalls>,
    /// Functions that have refused calls of the worker in the last 10 minutes, and so have a limit
    /// that it has learned: the first [`MAX_LIMITED`] by name. Empty before version 0.2.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limited: Vec<LimitedFunction>,
    /// How long the invocations took that have ended since the worker process started. Refused and
    /// cancelled ones are not counted. `None`: its version does not report them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durations: Option<DurationCounts>,
}

/// The limit of a function that one or all workers have learned from calls that it refuses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LimitedFunction {
    /// The function, as `<name>.<namespace>`.
    pub function: FunctionName,
    /// Maximum number of invocations of it that are open.
    pub limit: u32,
    /// Number of calls that it has refused, since it has calls there.
    pub refused: u64,
}

/// Calls of a worker whose end can't be stored, for one reason.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockedCalls {
    /// The record that can't be stored: `result`, `dead_letter`, `tombstone` or `attempt_offset`.
    pub record: String,
    /// The reason: `no_space`, `stream_full`, `no_stream` or `unavailable`.
    pub reason: String,
    /// Number of calls that wait.
    pub calls: u32,
}

/// The answers of a queue's workers to the [`STATS_REQUEST`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum WorkerReplies {
    /// No worker is connected.
    #[default]
    None,
    /// Workers are connected but do not answer: their version is before 0.2, or they are stuck.
    NoReply,
    /// The statistics of those that answered.
    Replied(Vec<WorkerStats>),
}

/// Asks the workers of all these queues for their statistics, concurrently.
///
/// # Errors
///
/// Fails if NATS is unavailable.
pub async fn request_stats(
    client: &Client,
    queues: &[QueueName],
) -> Result<HashMap<QueueName, WorkerReplies>, NatsError> {
    let mut answers: HashMap<_, _> =
        queues.iter().map(|queue| (queue.clone(), WorkerReplies::NoReply)).collect();
    let inbox = client.new_inbox();
    let mut messages = client
        .subscribe(format!("{inbox}.*"))
        .await
        .map_err(NatsError::during("subscribe to the replies"))?;
    for (number, queue) in queues.iter().enumerate() {
        let (subject, reply) = (status_request_subject(queue), format!("{inbox}.{number}"));
        client
            .publish_with_reply(subject, reply, STATS_REQUEST.into())
            .await
            .map_err(NatsError::during("request the statistics of the workers"))?;
    }
    client.flush().await.map_err(NatsError::during("request the statistics of the workers"))?;
    let (limit, mut without_workers) = (Instant::now() + TOTAL_TIMEOUT, 0);
    while without_workers < queues.len()
        && let Ok(Some(message)) =
            timeout_at(limit.min(Instant::now() + REPLY_TIMEOUT), messages.next()).await
    {
        let number =
            message.subject.rsplit('.').next().and_then(|number| number.parse::<usize>().ok());
        let Some(workers) = number.and_then(|number| answers.get_mut(queues.get(number)?)) else {
            continue;
        };
        workers.add(&message);
        without_workers += usize::from(*workers == WorkerReplies::None);
    }
    Ok(answers)
}

// === impl WorkerStats ===

impl WorkerStats {
    fn is_same_worker(&self, other: &Self) -> bool {
        (&self.worker, &self.instance) == (&other.worker, &other.instance)
    }
}

// === impl LimitedFunction ===

impl LimitedFunction {
    /// Adds up what workers report, by function.
    #[must_use]
    pub fn sum<'a>(reports: impl IntoIterator<Item = &'a Self>) -> Vec<Self> {
        let mut sums: BTreeMap<&FunctionName, (u32, u64)> = BTreeMap::new();
        for Self { function, limit, refused } in reports {
            let sum = sums.entry(function).or_default();
            *sum = (sum.0.saturating_add(*limit), sum.1.saturating_add(*refused));
        }
        let sums = sums.into_iter();
        sums.map(|(function, (limit, refused))| Self { function: function.clone(), limit, refused })
            .collect()
    }
}

// === impl WorkerReplies ===

impl WorkerReplies {
    /// Applies one answer. A status means that there is no responder.
    fn add(&mut self, message: &Message) {
        if message.status.is_some() {
            *self = Self::None;
        } else if let Ok(stats) = serde_json::from_slice::<WorkerStats>(&message.payload) {
            match self {
                Self::Replied(all) if all.iter().any(|known| known.is_same_worker(&stats)) => {}
                Self::Replied(all) => all.push(stats),
                Self::None | Self::NoReply => *self = Self::Replied(vec![stats]),
            }
        }
    }

    /// Returns how many delayed calls the workers that answered have handed back.
    #[must_use]
    pub fn scheduled(&self) -> u64 {
        match self {
            Self::None | Self::NoReply => 0,
            Self::Replied(all) => all.iter().filter_map(|worker| worker.scheduled).sum(),
        }
    }

    /// Returns the functions whose limits the workers have learned, over all workers.
    #[must_use]
    pub fn limited(&self) -> Vec<LimitedFunction> {
        match self {
            Self::None | Self::NoReply => Vec::new(),
            Self::Replied(all) => {
                LimitedFunction::sum(all.iter().flat_map(|worker| &worker.limited))
            }
        }
    }

    /// Returns how many workers there are, and how many calls they run; `None` if they do not
    /// answer.
    #[must_use]
    pub fn count(&self) -> Option<(usize, u64)> {
        match self {
            Self::None => Some((0, 0)),
            Self::NoReply => None,
            Self::Replied(all) => {
                Some((all.len(), all.iter().map(|worker| u64::from(worker.running)).sum()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use async_nats::StatusCode;

    use super::*;

    fn message(payload: &str, status: Option<StatusCode>) -> Message {
        Message {
            subject: "_INBOX.1.0".into(),
            reply: None,
            payload: payload.to_owned().into(),
            headers: None,
            status,
            description: None,
            length: 0,
        }
    }

    #[test]
    fn the_workers_that_answer_are_counted_once_each() {
        let mut workers = WorkerReplies::NoReply;
        assert_eq!(workers.count(), None);
        for (worker, running) in [("a", 2), ("b", 3), ("a", 9)] {
            let json = format!(r#"{{"worker":"{worker}","running":{running},"maxInflight":5}}"#);
            workers.add(&message(&json, None));
        }
        let other = r#"{"worker":"a","instance":"1f","running":7,"maxInflight":5,"scheduled":4}"#;
        workers.add(&message(other, None));
        workers.add(&message("what no worker says", None));
        assert_eq!((workers.count(), workers.scheduled()), (Some((3, 12)), 4));
        let mut none = WorkerReplies::NoReply;
        none.add(&message("", Some(StatusCode::NO_RESPONDERS)));
        assert_eq!((none.count(), none), (Some((0, 0)), WorkerReplies::None));
    }
    #[test]
    fn learned_limits_of_all_workers_are_summed() {
        let mut workers = WorkerReplies::NoReply;
        assert!(workers.limited().is_empty());
        for (worker, limited) in [
            (
                "a",
                r#"[{"function":"f.ns","limit":4,"refused":10},
                {"function":"g.ns","limit":1,"refused":2}]"#,
            ),
            ("b", r#"[{"function":"f.ns","limit":3,"refused":5}]"#),
            ("c", "[]"),
        ] {
            let json = format!(
                r#"{{"worker":"{worker}","running":0,"maxInflight":5,"limited":{limited}}}"#
            );
            workers.add(&message(&json, None));
        }
        let limited = |name, limit, refused| {
            let function = FunctionName::new(name, "ns").unwrap();
            LimitedFunction { function, limit, refused }
        };
        assert_eq!(workers.limited(), [limited("f", 7, 15), limited("g", 1, 2)]);
    }
}
