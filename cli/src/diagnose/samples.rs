//! Facts for the tests.

use asyncqueue::{
    depth::Depth,
    stats::{WorkerReplies, WorkerStats},
};
use serde_json::json;

use super::{AsyncQueue, Facts, Kubernetes};

/// The UID of the samples.
pub(super) const UID: &str = "1";

/// An `AsyncQueue` with conditions: type, status, reason and message.
pub(super) fn async_queue(conditions: &[(&str, &str, &str, &str)]) -> AsyncQueue {
    let conditions = conditions.iter().map(|(kind, status, reason, message)| {
        json!({ "type": kind, "status": status, "reason": reason, "message": message })
    });
    let object = json!({
        "metadata": { "name": "jobs", "namespace": "ns", "uid": UID },
        "spec": { "replicas": 1 },
        "status": { "conditions": conditions.collect::<Vec<_>>() },
    });
    serde_json::from_value(object).unwrap()
}

/// A worker that runs so many calls.
pub(super) fn worker(running: u32, max_inflight: u32) -> WorkerStats {
    WorkerStats { worker: "w-1".to_owned(), running, max_inflight, ..WorkerStats::default() }
}

/// A queue whose worker runs one of two calls.
pub(super) fn healthy() -> Facts {
    Facts {
        queue: "jobs".parse().unwrap(),
        wanted_stream: Some("jobs".to_owned()),
        has_stream: true,
        stream_error: None,
        consumers: 1,
        is_paused: false,
        depth: Depth { running: 1, ..Depth::default() },
        redelivered: 0,
        callbacks: 0,
        dead_letters: 0,
        dead_reason: None,
        workers: WorkerReplies::Replied(vec![worker(1, 5)]),
        oldest_seconds: Some(1),
        kubernetes: Kubernetes::Read(vec![async_queue(&[("Ready", "True", "Reconciled", "")])]),
    }
}
