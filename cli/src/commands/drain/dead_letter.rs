//! Stores dead letters of messages that cannot be calls.

use async_nats::jetstream::Context;
use asyncqueue::{
    Invocation, QueueName,
    dead_letters::{DeathInfo, store_once},
    message::dead_letter::{self, UNKNOWN_TOKEN},
    publish_failure::PublishFailure,
    subject::call_subject,
};
use asyncqueue_runtime::error::error_chain;
use jiff::Timestamp;
use tracing::warn;

use super::{
    identity::{MessageIdentity, SourceId},
    retry::Retry,
    source::Message,
};

/// Name of the worker in these dead letters.
const WORKER: &str = "kubectl-aq drain";

/// A message that becomes a dead letter.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewDeadLetter<'a> {
    pub(super) source_id: &'a SourceId,
    pub(super) identity: &'a MessageIdentity,
    pub(super) message: &'a Message,
    /// The call in the message, if it can be decoded.
    pub(super) call: Option<&'a Invocation>,
    pub(super) queue: &'a QueueName,
    /// Why it cannot be a call. Contains nothing of the message's content.
    pub(super) reason: &'a str,
}

// === impl NewDeadLetter ===

impl NewDeadLetter<'_> {
    /// Stores it, and returns whether it is stored. It is not stored if it is too large, or if the
    /// queue keeps no dead letters: a letter without its body would lose what the source has.
    pub(super) async fn store(&self, js: &Context, retry: &Retry) -> anyhow::Result<bool> {
        let Self { source_id, identity, message, queue, reason, .. } = *self;
        let (stream, sequence) = (queue.dead_letter_stream(), identity.sequence);
        let subject = self.subject(&stream)?;
        let from = source_id.subject(identity);
        let id = dead_letter::message_id(&from, sequence);
        let death = DeathInfo { reason: reason.to_owned(), attempts: 0, status: None };
        let headers =
            dead_letter::headers(Some(&message.headers), &from, &death, WORKER, Timestamp::now());
        loop {
            retry.wait_connected().await;
            let stored =
                store_once(js, &stream, &subject, &id, headers.clone(), message.payload.clone())
                    .await;
            let Err(error) = stored else {
                warn!(
                    source = source_id.label(),
                    sequence,
                    queue = %queue,
                    "stored as a dead letter: {reason}"
                );
                return Ok(true);
            };
            match PublishFailure::from_error(&error) {
                PublishFailure::TooLarge(_) | PublishFailure::NoStream => {
                    let why = error_chain(&error);
                    warn!(
                        source = source_id.label(),
                        sequence,
                        stream,
                        "message stays at the source: it cannot be a call ({reason}), and storing \
                         it as a dead letter failed: {why}"
                    );
                    return Ok(false);
                }
                _ => retry.wait_before_retry(&error_chain(&error)).await,
            }
        }
    }

    fn subject(&self, stream: &str) -> anyhow::Result<String> {
        Ok(match self.call {
            Some(call) => call_subject(stream, &call.function, &call.call_id),
            None => {
                format!("{stream}.{UNKNOWN_TOKEN}.{UNKNOWN_TOKEN}.{}", self.identity.call_id()?)
            }
        })
    }
}
