//! What workers say of themselves over core NATS, so that `inflight` is the number of running calls and
//! not the number of unacknowledged messages (a waiting retry is unacknowledged too).

use serde::{Deserialize, Serialize};

use crate::name::QueueName;

/// All queues' statistics; the token after it is the queue's name.
pub const STATS_SUBJECTS: &str = "asyncqueue.stats.*";

/// The subject of one queue's statistics.
#[must_use]
pub fn stats_subject(queue: &QueueName) -> String {
    format!("asyncqueue.stats.{queue}")
}

/// One worker process, now. Sent on change and every few seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerStats {
    /// The worker's name: its pod, or its host and process id.
    pub worker: String,
    /// Calls that run in it.
    pub running: u32,
    /// How many it would run at once.
    pub max_inflight: u32,
    /// Calls whose end can't be stored. Not known before version 0.2.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocked: Vec<BlockedCalls>,
}

/// Calls of a worker whose end can't be stored, for one reason.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockedCalls {
    /// What can't be stored: `result`, `dead_letter`, `tombstone` or `attempt_offset`.
    pub record: String,
    /// Why: `no_space`, `stream_full`, `no_stream` or `unavailable`.
    pub reason: String,
    /// How many calls wait.
    pub calls: u32,
}
