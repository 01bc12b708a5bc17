//! A request to the workers of a queue, before its consumers are replaced: record how many attempts
//! of each call were made that waits for the next one. `JetStream` counts deliveries for each
//! consumer, and the new consumers count from 1.

use std::time::Duration;

use async_nats::Client;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{
    jetstream::NatsError,
    names::QueueName,
    worker_requests::{WorkerRequest, status_request_subject},
};

/// The request, on the subject of the queue's questions ([`status_request_subject`]). Each worker
/// of the queue answers with [`WaitingRecords`] in JSON. Workers before version 0.2 do not answer.
pub const RECORD_REQUEST: &str = "record";

/// Maximum time for all answers. A worker may have a hundred thousand calls to record.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// The answer of a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WaitingRecords {
    /// The worker's name, as in its statistics.
    pub worker: String,
    /// Distinguishes worker processes with the same name.
    pub instance: String,
    /// Number of calls that it has in flight. If there are any, it records nothing.
    pub in_flight: u64,
    /// Number of calls of which it has recorded the attempts.
    pub recorded: u64,
    /// Number of calls of which the record could not be stored.
    pub failed: u64,
    /// Number of delayed calls that it has handed back and that are not due: they have no attempts.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub scheduled: u64,
}

// Serde passes a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Sends the request, and returns the answers, one for each worker. Waits until this many workers
/// have answered, or one has calls in flight.
pub(crate) async fn request_records(
    client: &Client,
    queue: &QueueName,
    workers: usize,
) -> Result<Vec<WaitingRecords>, NatsError> {
    let subject = status_request_subject(queue);
    let mut request = WorkerRequest::send(client, subject, RECORD_REQUEST.into()).await?;
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    let mut answers: Vec<WaitingRecords> = Vec::new();
    while answers.len() < workers
        && let Some(answer) = request
            .reply(deadline, |message| {
                serde_json::from_slice::<WaitingRecords>(&message.payload).ok()
            })
            .await
    {
        let is_busy = answer.in_flight > 0;
        answers.push(answer);
        if is_busy {
            break;
        }
    }
    Ok(answers)
}
