//! Stores an invocation on its queue's stream.
//!
//! A client's own id names one call of a queue: while a call with it is pending, the stream takes no other one with
//! it, of whatever function. Whether the second is the first again or another call, their digests tell.
//!
//! The [crate's documentation](crate#calls-from-other-programs) has an example.

use std::{error::Error as _, time::Duration};

use async_nats::{
    HeaderMap as NatsHeaders,
    connection::State,
    header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE,
    jetstream::{
        Context, ErrorCode,
        context::{PublishError, PublishErrorKind},
        message::PublishMessage,
    },
};

use bytes::Bytes;
use tokio::time::{sleep, timeout};

use crate::{
    call_id::CallId,
    ensure::server_error,
    invocation::Invocation,
    message::{digest::message_id, native},
    peek::last_message,
    subject::{call_filter, call_subject},
};

/// The header that names the subjects whose last sequence is expected, where they are not the message's own.
const EXPECTED_LAST_SUBJECT_SEQUENCE_SUBJECT: &str = "Nats-Expected-Last-Subject-Sequence-Subject";

/// Before asking again for an id that was taken and then was not: the call with it has just ended, or is just being
/// stored on a cluster of servers.
const TAKEN_PAUSE: Duration = Duration::from_millis(50);

/// What became of an invocation that is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Submitted {
    /// It is stored now.
    Stored,
    /// It is pending, or ended within the duplicate window: nothing was stored.
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
    /// Body and headers are more than the stream takes of one message.
    #[error("the call is larger than the queue's stream takes: its max_msg_size counts body and headers")]
    TooLargeForStream,
    /// The stream holds as many messages or bytes as it may.
    #[error("the queue is full: {reason}")]
    QueueFull {
        /// The server's words.
        reason: String,
    },
    /// Another call with its id is pending.
    #[error(
        "X-Call-Id `{call_id}` belongs to another call that is pending: function, method, path, query, \
         X-Callback-Url or body differ"
    )]
    Conflict {
        /// The id.
        call_id: CallId,
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

/// Stores invocations and waits until they are stored. Clones share the connection, and one submitter serves as many
/// calls at once as the `max_ack_inflight` of its context allows.
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
            Self::TooLarge { .. } | Self::TooLargeForStream => "too_large",
            Self::QueueFull { .. } => "queue_full",
            Self::Conflict { .. } => "conflict",
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

    /// Stores an invocation whose id is its client's own, below the queue's `subject`, and returns when the stream
    /// has stored it. The same again while it is pending or within the duplicate window stores nothing.
    ///
    /// # Errors
    ///
    /// After [`SubmitError::Unavailable`], the one after which the call may be stored all the same, repeat it with the
    /// same id. After [`SubmitError::QueueFull`] it is not stored, and may be later.
    pub async fn submit(&self, invocation: &Invocation, subject: &str) -> Result<Submitted, SubmitError> {
        let same_id = call_filter(subject, None, &invocation.call_id);
        let mut headers = native::encode(invocation);
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, "0");
        headers.insert(EXPECTED_LAST_SUBJECT_SEQUENCE_SUBJECT, same_id.as_str());
        let stored = async {
            loop {
                let own = call_subject(subject, &invocation.function, &invocation.call_id);
                match self.publish(own, headers.clone(), invocation.body.clone()).await {
                    Err(error) if is_taken(&error) => {}
                    Err(error) => return Err(self.classify(&error)),
                    Ok(submitted) => return Ok(submitted),
                }
                match self.is_same(invocation, subject, &same_id).await? {
                    Some(true) => return Ok(Submitted::Duplicate),
                    Some(false) => {
                        return Err(SubmitError::Conflict { call_id: invocation.call_id.clone() });
                    }
                    None => sleep(TAKEN_PAUSE).await,
                }
            }
        };
        self.in_time(stored).await
    }

    /// Stores an invocation whose id was made for it ([`CallId::generate`]) and so is nobody else's, as
    /// [`Submitter::submit`] does. Spares the server the search for the id, and lets go of the invocation as soon as it
    /// is sent.
    ///
    /// # Errors
    ///
    /// As of [`Submitter::submit`], but for [`SubmitError::Conflict`], which is not looked for.
    pub async fn submit_new(&self, invocation: Invocation, subject: &str) -> Result<Submitted, SubmitError> {
        let (subject, headers, body) = message(invocation, subject);
        let publish = self.publish(subject, headers, body);
        self.in_time(async { publish.await.map_err(|error| self.classify(&error)) }).await
    }

    async fn publish(
        &self,
        subject: String,
        headers: NatsHeaders,
        body: Bytes,
    ) -> Result<Submitted, PublishError> {
        let message = PublishMessage::build().headers(headers).payload(body);
        let ack = self.js.send_publish(subject, message).await?.await?;
        Ok(if ack.duplicate { Submitted::Duplicate } else { Submitted::Stored })
    }

    /// Whether the pending call with an invocation's id asks for the same; `None` where none is pending any more.
    async fn is_same(
        &self,
        invocation: &Invocation,
        subject: &str,
        same_id: &str,
    ) -> Result<Option<bool>, SubmitError> {
        let unavailable =
            |error: &dyn std::error::Error| SubmitError::Unavailable { reason: error.to_string() };
        let stream = self.js.stream_by_subject(subject).await.map_err(|error| unavailable(&error))?;
        let pending = last_message(&self.js, &stream, same_id).await.map_err(|error| unavailable(&error))?;
        // Not by the message's own id, which is another where a dead letter was replayed.
        Ok(pending.map(|pending| {
            native::decode(&pending.headers, pending.payload)
                .is_ok_and(|pending| message_id(&pending) == message_id(invocation))
        }))
    }

    async fn in_time(
        &self,
        submit: impl Future<Output = Result<Submitted, SubmitError>>,
    ) -> Result<Submitted, SubmitError> {
        // Known to be away: an answer now is better than one after the timeout.
        if self.js.client().connection_state() != State::Connected {
            return Err(SubmitError::Unavailable { reason: "not connected".to_owned() });
        }
        timeout(self.timeout, submit).await.unwrap_or_else(|_| {
            let reason = format!("no answer in {}", crate::GoDuration(self.timeout));
            Err(SubmitError::Unavailable { reason })
        })
    }

    fn classify(&self, error: &PublishError) -> SubmitError {
        match error.kind() {
            PublishErrorKind::StreamNotFound => return SubmitError::NoStream,
            PublishErrorKind::MaxPayloadExceeded => {
                return SubmitError::TooLarge { limit: self.js.client().max_payload() };
            }
            _ => {}
        }
        let Some(refused) = error.source().and_then(server_error) else {
            return SubmitError::Unavailable { reason: error.to_string() };
        };
        let reason = refused.to_string();
        match refused.error_code() {
            ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM | ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM => {
                SubmitError::TooLargeForStream
            }
            // The stream's own limits, and those of the account and the server that it is on.
            ErrorCode::STREAM_STORE_FAILED
            | ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
            | ErrorCode::INSUFFICIENT_RESOURCES
            | ErrorCode::MEMORY_RESOURCES_EXCEEDED
            | ErrorCode::STORAGE_RESOURCES_EXCEEDED => SubmitError::QueueFull { reason },
            _ => SubmitError::Unavailable { reason },
        }
    }
}

/// The message of an invocation: its subject, headers and payload. Of the invocation nothing is left.
fn message(invocation: Invocation, subject: &str) -> (String, NatsHeaders, Bytes) {
    let subject = call_subject(subject, &invocation.function, &invocation.call_id);
    (subject, native::encode(&invocation), invocation.body)
}

/// Whether the stream holds a call with the id, or is just storing one.
pub(crate) fn is_taken(error: &PublishError) -> bool {
    let in_process =
        [ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT, ErrorCode::STREAM_DUPLICATE_MESSAGE_CONFLICT];
    error.kind() == PublishErrorKind::WrongLastSequence
        || error.source().and_then(server_error).is_some_and(|e| in_process.contains(&e.error_code()))
}
