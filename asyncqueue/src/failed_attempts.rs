//! The failed attempts of a call, as the workers remember them that made them.
//!
//! Nothing of it is stored. So it is best effort: what the workers that run now remember.

use std::time::Duration;

use async_nats::Client;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{
    call_id::CallId,
    jetstream::NatsError,
    names::QueueName,
    worker_requests::{REPLY_TIMEOUT, WorkerRequest, is_no_worker, status_request_subject},
};

/// What a question begins with. No call id holds a colon, so no other question does.
const QUESTION: &str = "attempts: ";

/// Maximum time for all replies.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(1);

/// Maximum number of attempts that are returned.
const MAX_ATTEMPTS: usize = 1_000;

/// An attempt of a call, or to deliver its callback, that has failed. There is another one after
/// it, unless the queue was deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedAttempt {
    /// The call's sequence on its queue's stream. Other calls may share the id.
    pub sequence: u64,
    /// What was tried.
    pub of: Tried,
    /// Number of the attempt, from 1.
    pub attempt: u64,
    /// When it had failed.
    pub at: Timestamp,
    /// The status of the function or the receiver, or the one that stands for no answer.
    pub status: u16,
    /// Why it failed, in words. Has nothing of the content of requests and answers.
    pub error: String,
}

/// What was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tried {
    /// To run the call.
    Call,
    /// To deliver its callback.
    Callback,
}

/// Returns the question for the failed attempts of the calls with an id, on the subject
/// [`status_request_subject`]. Each worker replies with the [`FailedAttempt`]s that it remembers,
/// as a list in JSON. Workers before version 0.2 do not reply.
#[must_use]
pub fn question(call: &CallId) -> String {
    format!("{QUESTION}{call}")
}

/// Reads what [`question`] wrote.
#[must_use]
pub fn asked_for(request: &[u8]) -> Option<CallId> {
    std::str::from_utf8(request).ok()?.strip_prefix(QUESTION)?.parse().ok()
}

/// Asks the workers of a queue for the failed attempts of the calls with an id, oldest first.
/// `workers` is how many are expected to reply; without it, a reply is waited for a short time.
///
/// # Errors
///
/// Fails if NATS is unavailable.
pub async fn failed_attempts(
    client: &Client,
    queue: &QueueName,
    call: &CallId,
    workers: Option<usize>,
) -> Result<Vec<FailedAttempt>, NatsError> {
    let subject = status_request_subject(queue);
    let mut request = WorkerRequest::send(client, subject, question(call).into()).await?;
    let (limit, mut replies) = (Instant::now() + TOTAL_TIMEOUT, 0);
    let mut attempts: Vec<FailedAttempt> = Vec::new();
    while attempts.len() < MAX_ATTEMPTS
        && workers.is_none_or(|workers| replies < workers)
        && let Some(reply) = request.next(limit.min(Instant::now() + REPLY_TIMEOUT)).await
        && !is_no_worker(&reply)
    {
        replies += 1;
        let of_worker = serde_json::from_slice::<Vec<FailedAttempt>>(&reply.payload);
        attempts.extend(of_worker.unwrap_or_default());
    }
    attempts.truncate(MAX_ATTEMPTS);
    attempts.sort_by_key(|attempt| attempt.at);
    Ok(attempts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn question_names_its_call_and_is_no_other_question() {
        let call: CallId = "order-7".parse().unwrap();
        assert_eq!(asked_for(question(&call).as_bytes()), Some(call.clone()));
        assert_eq!(crate::call::CallRef::decode(question(&call).as_bytes()), None);
        for other in ["attempts 7", "stats", "record", "attempts: ", "attempts: a b", ""] {
            assert_eq!(asked_for(other.as_bytes()), None, "{other}");
        }
    }
}
