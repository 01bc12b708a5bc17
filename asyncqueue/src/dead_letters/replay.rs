//! Puts dead letters back on their queue.
//!
//! A replay publishes the message as it was, waits until it is stored, and then deletes the dead
//! letter. If the original message is still there, because its worker could not acknowledge it, it
//! is removed first.
//!
//! A replay that is interrupted and repeated finds its own message and stores no second one. Its
//! message id consists of the call id and the sequence of the dead letter, so another dead letter
//! of the same call is another replay. Other calls that share the id do not affect it.

use async_nats::{
    header::NATS_MESSAGE_ID,
    jetstream::{
        context::{PublishError, PublishErrorKind},
        message::{PublishMessage, StreamMessage},
    },
};

use super::DeadLetters;
use crate::{
    directory::QueueEntry,
    jetstream::{NatsError, delete_message, last_message, message_at},
    message::{
        dead_letter::{self, DeadLetter, DeadLetterKind, Omitted},
        native::H_MESSAGE_ID,
    },
    subject::call_subject,
};

/// The outcome of replaying a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayOutcome {
    /// The message is on the queue again, and the dead letter is deleted.
    Replayed,
    /// An interrupted replay had put the message on the queue already. The dead letter is deleted.
    AlreadyReplayed,
    /// The dead letter is no longer there: it was replayed or deleted by another request.
    NotFound,
}

/// A replay failed. The dead letter is still there, and a repeat is safe.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The dead letter does not hold all of its message.
    #[error(
        "not replayed, {} bytes of headers and {} bytes of body were left out of it: submit the \
         call again",
        .0.headers, .0.body
    )]
    Incomplete(Omitted),
    /// The NATS client can't read the dead letter.
    #[error("not replayed, its {0}: `dead purge` deletes it")]
    Unreadable(String),
    /// No stream accepts the message.
    #[error("not replayed, no stream listens on `{subject}`")]
    NoStream {
        /// The subject to which the message was published.
        subject: String,
    },
    /// The queue's stream did not store the message.
    #[error("not replayed, the queue did not store it")]
    NotStored(#[source] PublishError),
    /// The message is on the queue again, and the dead letter is still there.
    #[error("replayed, but its dead letter is still there: replay it again to delete it")]
    NotDeleted(#[source] NatsError),
    /// NATS is unavailable or refused the request.
    #[error(transparent)]
    Nats(#[from] NatsError),
}

// === impl ReplayError ===

impl ReplayError {
    /// Returns whether the error concerns only this letter. Otherwise other letters fail for the
    /// same reason.
    #[must_use]
    pub fn is_per_letter(&self) -> bool {
        match self {
            Self::Incomplete(_) | Self::Unreadable(_) => true,
            Self::NotStored(error) => error.kind() == PublishErrorKind::MaxPayloadExceeded,
            Self::NoStream { .. } | Self::NotDeleted(_) | Self::Nats(_) => false,
        }
    }
}

// === impl DeadLetters ===

impl DeadLetters {
    /// Puts the message of a dead letter back on the stream that it came from, and deletes the dead
    /// letter. `entry` is where calls of the queue go now. The attempts are counted from the
    /// beginning. If the queue takes turns between its functions, the call's function has its lane
    /// then.
    pub async fn replay(
        &self,
        letter: &DeadLetter,
        entry: &QueueEntry,
    ) -> Result<ReplayOutcome, ReplayError> {
        if let Some(why) = &letter.unreadable {
            return Err(ReplayError::Unreadable(why.clone()));
        }
        let Some(message) = self.message(letter.sequence).await? else {
            return Ok(ReplayOutcome::NotFound);
        };
        if letter.omitted != Omitted::default() {
            return Err(ReplayError::Incomplete(letter.omitted));
        }
        let (stream, subject) = self.destination(letter, entry, &message.subject);
        self.remove_original(letter, &message, &stream).await?;
        let replayed = self.republish(letter, message, stream, subject).await?;
        if let (DeadLetterKind::Call, Some(function)) = (letter.kind, &letter.function) {
            let route = entry.route_of_unknown_fairness(self.queue.clone());
            self.lanes.ensure(&route, function).await;
        }
        self.delete(letter).await.map_err(ReplayError::NotDeleted)?;
        Ok(replayed)
    }

    /// Returns the stream that a message came from, and the subject that it gets there. A call that
    /// had the queue's own subject, as all calls of its form do, gets a separate subject that
    /// distinguishes it from them. A result keeps its subject.
    fn destination(
        &self,
        letter: &DeadLetter,
        entry: &QueueEntry,
        dead_subject: &str,
    ) -> (String, String) {
        let (stream, subject) = match (letter.kind, &letter.origin) {
            (DeadLetterKind::Callback, Some(origin)) => {
                return (self.queue.callback_stream(), origin.subject.clone());
            }
            (DeadLetterKind::Callback, None) => {
                (self.queue.callback_stream(), self.queue.callback_stream())
            }
            (DeadLetterKind::Call, _) => (entry.stream.clone(), entry.subject.clone()),
        };
        let subject = match &letter.function {
            Some(function) => call_subject(&subject, function, &letter.call_id),
            None => dead_subject.replacen(&self.queue.dead_letter_stream(), &subject, 1),
        };
        (stream, subject)
    }

    /// Removes the message that became a dead letter from its stream. It is still there if its
    /// worker died before it acknowledged it. Without the removal, both it and the replay would be
    /// delivered.
    async fn remove_original(
        &self,
        letter: &DeadLetter,
        message: &StreamMessage,
        stream: &str,
    ) -> Result<(), NatsError> {
        let Some(origin) = &letter.origin else { return Ok(()) };
        let Some(original) = message_at(&self.js, stream, origin.sequence).await? else {
            return Ok(());
        };
        // A stream that was deleted and recreated may have another message there.
        if original.subject.as_str() == origin.subject && original.payload == message.payload {
            delete_message(
                &self.js,
                stream,
                origin.sequence,
                "remove the message of the dead letter",
            )
            .await?;
        }
        Ok(())
    }

    async fn republish(
        &self,
        letter: &DeadLetter,
        message: StreamMessage,
        stream: String,
        subject: String,
    ) -> Result<ReplayOutcome, ReplayError> {
        let id = format!("{}.replay.{}", letter.call_id, letter.sequence);
        // If that was longer ago than the duplicate window, only the message itself shows it.
        let pending = last_message(&self.js, &stream, &subject).await?;
        let pending_id = pending.as_ref().and_then(|pending| pending.headers.get(NATS_MESSAGE_ID));
        if pending_id.is_some_and(|pending_id| pending_id.as_str() == id) {
            return Ok(ReplayOutcome::AlreadyReplayed);
        }
        let mut headers = dead_letter::original_headers(&message.headers);
        headers.insert(NATS_MESSAGE_ID, id);
        // The id that functions used as message id, for a call that had none or whose worker did
        // not keep it.
        if letter.kind == DeadLetterKind::Call && headers.get(H_MESSAGE_ID).is_none() {
            headers.insert(H_MESSAGE_ID, letter.call_id.as_str());
        }
        let replay = PublishMessage::build()
            .headers(headers)
            .payload(message.payload)
            .expected_stream(&stream);
        let publish = async { self.js.send_publish(subject.clone(), replay).await?.await };
        match publish.await {
            Ok(ack) if ack.duplicate => Ok(ReplayOutcome::AlreadyReplayed),
            Ok(_) => Ok(ReplayOutcome::Replayed),
            Err(error) if error.kind() == PublishErrorKind::StreamNotFound => {
                Err(ReplayError::NoStream { subject })
            }
            Err(error) => Err(ReplayError::NotStored(error)),
        }
    }
}
