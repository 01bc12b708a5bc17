//! Stores an invocation on its queue's stream.

use std::{error::Error as _, time::Duration};

use async_nats::{
    connection::State,
    jetstream::{
        Context, ErrorCode,
        context::{PublishError, PublishErrorKind},
        message::PublishMessage,
    },
};

use crate::{ensure::server_error, invocation::Invocation, message::native, subject::call_subject};

/// What became of an invocation that is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Submitted {
    /// It is stored now.
    Stored,
    /// A call with its id is pending, or ended within the duplicate window: nothing was stored.
    Duplicate,
}

/// Why an invocation is not stored. After [`SubmitError::Unavailable`] it may be, all the same: a repeat with
/// the same call id is safe.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// Body and headers are more than the server takes.
    #[error("the call is larger than NATS takes: at most {limit} bytes with its headers")]
    TooLarge {
        /// The server's limit in bytes.
        limit: usize,
    },
    /// The stream holds as many messages or bytes as it may.
    #[error("the queue is full: {reason}")]
    QueueFull {
        /// The server's words.
        reason: String,
    },
    /// No stream listens on the subject.
    #[error("no stream stores calls of this queue: is there an AsyncQueue for it?")]
    NoStream,
    /// NATS is away or does not answer.
    #[error("NATS is not available: {reason}")]
    Unavailable {
        /// What was seen of it.
        reason: String,
    },
}

/// Stores invocations and waits until they are stored.
#[derive(Clone, Debug)]
pub struct Submitter {
    js: Context,
    timeout: Duration,
}

// === impl SubmitError ===

impl SubmitError {
    /// A word for the label of a metric.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too_large",
            Self::QueueFull { .. } => "queue_full",
            Self::NoStream => "no_stream",
            Self::Unavailable { .. } => "unavailable",
        }
    }
}

// === impl Submitter ===

impl Submitter {
    /// A submitter that gives up after `timeout` without the server's word.
    #[must_use]
    pub fn new(js: Context, timeout: Duration) -> Self {
        Self { js, timeout }
    }

    /// Publishes the invocation below the queue's `subject` and returns when the stream has stored it.
    pub async fn submit(&self, invocation: &Invocation, subject: &str) -> Result<Submitted, SubmitError> {
        let client = self.js.client();
        // Known to be away: an answer now is better than one after the timeout.
        if client.connection_state() != State::Connected {
            return Err(SubmitError::Unavailable { reason: "not connected".to_owned() });
        }
        let subject = call_subject(subject, &invocation.function, &invocation.call_id);
        let message = PublishMessage::build()
            .headers(native::encode(invocation))
            .payload(invocation.body.clone())
            // No call with this id is pending: its subject has no message.
            .expected_last_subject_sequence(0);
        let publish = async { self.js.send_publish(subject, message).await?.await };
        match tokio::time::timeout(self.timeout, publish).await {
            Ok(Ok(ack)) if ack.duplicate => Ok(Submitted::Duplicate),
            Ok(Ok(_)) => Ok(Submitted::Stored),
            Ok(Err(error)) if error.kind() == PublishErrorKind::WrongLastSequence => Ok(Submitted::Duplicate),
            Ok(Err(error)) => Err(classify(&error, client.server_info().max_payload)),
            Err(_) => Err(SubmitError::Unavailable {
                reason: format!("no answer in {}", crate::GoDuration(self.timeout)),
            }),
        }
    }
}

fn classify(error: &PublishError, max_payload: usize) -> SubmitError {
    match error.kind() {
        PublishErrorKind::StreamNotFound => return SubmitError::NoStream,
        PublishErrorKind::MaxPayloadExceeded => return SubmitError::TooLarge { limit: max_payload },
        _ => {}
    }
    match error.source().and_then(server_error) {
        Some(refused) if refused.error_code() == ErrorCode::STREAM_STORE_FAILED => {
            SubmitError::QueueFull { reason: refused.to_string() }
        }
        _ => SubmitError::Unavailable { reason: error.to_string() },
    }
}
