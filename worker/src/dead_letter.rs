//! Ends messages that are given up: with a dead letter, or with a line in the log.

use async_nats::{
    HeaderMap,
    jetstream::{AckKind, Context},
};
use asyncqueue::{
    CallId, FunctionName,
    dead_letters::{DeathInfo, store_once},
    message::dead_letter::{self, DeadLetterForm, UNKNOWN_TOKEN},
    publish_failure::PublishFailure,
    subject::call_subject,
};
use bytes::Bytes;
use jiff::Timestamp;
use std::time::Duration;
use tracing::{error, warn};

use crate::{
    delivery::Delivered,
    metrics::Metrics,
    pull::Ticket,
    store::{Record, Store},
};

/// How long a message is put off if its dead letter can't be stored: the store has no room, or the
/// stream is missing.
const PUT_OFF: Duration = Duration::from_secs(60);

/// Writes the dead letters of a queue.
#[derive(Clone, Debug)]
pub(crate) struct DeadLetterWriter {
    pub(crate) js: Context,
    /// Name of the stream of dead letters.
    pub(crate) stream: String,
    /// Name of this worker.
    pub(crate) worker: String,
    /// Whether dead letters are kept.
    pub(crate) enabled: bool,
    pub(crate) store: Store,
    pub(crate) metrics: Metrics,
}

/// A message that is given up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    pub(crate) headers: Option<&'a HeaderMap>,
    pub(crate) payload: &'a Bytes,
    /// Subject that the message has, or would have had.
    pub(crate) subject: &'a str,
    /// Sequence of the call, or of the message if it is not a call.
    pub(crate) sequence: u64,
}

/// Outcome of giving up a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeadLetterOutcome {
    /// The message is stored as a dead letter, or was dropped: dead letters are disabled, or it
    /// does not fit in any form.
    Ended,
    /// The dead letter can't be stored now.
    NotStored,
}

// === impl Message ===

impl<'a> From<&'a Delivered> for Message<'a> {
    fn from(delivered: &'a Delivered) -> Self {
        let message = &delivered.message;
        Self {
            headers: message.headers.as_ref(),
            payload: &message.payload,
            subject: &message.subject,
            sequence: delivered.sequence,
        }
    }
}

// === impl DeadLetterOutcome ===

impl DeadLetterOutcome {
    /// Returns how to settle the message that was delivered.
    pub(crate) fn ack(self) -> AckKind {
        match self {
            Self::Ended => AckKind::Ack,
            Self::NotStored => AckKind::Nak(Some(PUT_OFF)),
        }
    }
}

// === impl DeadLetterWriter ===

impl DeadLetterWriter {
    /// Stores a message as a dead letter, whether it is a call or not. Leaves out what does not
    /// fit. If dead letters are disabled, logs and drops the message.
    pub(crate) async fn write(
        &self,
        message: Message<'_>,
        call: Option<(&FunctionName, &CallId)>,
        death: DeathInfo,
        ticket: &mut Ticket,
    ) -> DeadLetterOutcome {
        let Message { headers, payload, subject, sequence } = message;
        let (call_id, function) = call.map(|(function, id)| (id, function)).unzip();
        let (shown_id, shown_function) =
            (call_id.map(tracing::field::display), function.map(tracing::field::display));
        if !self.enabled {
            error!(
                call_id = shown_id,
                function = shown_function,
                subject,
                sequence,
                attempts = death.attempts,
                "dropped: dead letters are disabled: {}",
                death.reason
            );
            self.metrics.dead_letter(false);
            return DeadLetterOutcome::Ended;
        }
        let dead_subject = match call {
            Some((function, id)) => call_subject(&self.stream, function, id),
            None => {
                format!(
                    "{}.{UNKNOWN_TOKEN}.{UNKNOWN_TOKEN}.{}",
                    self.stream,
                    CallId::from_sequence(sequence)
                )
            }
        };
        let whole = dead_letter::headers(headers, subject, &death, &self.worker, Timestamp::now());
        let id = dead_letter::message_id(subject, sequence);
        let mut refused = PublishFailure::Unavailable;
        for form in DeadLetterForm::ALL {
            let (headers, body) = form.apply(&whole, payload);
            let stored = self.store.until_stored(Record::DeadLetter, ticket, None, || {
                store_once(
                    &self.js,
                    &self.stream,
                    &dead_subject,
                    &id,
                    headers.clone(),
                    body.clone(),
                )
            });
            match stored.await {
                Ok(()) => {
                    if form != DeadLetterForm::Whole {
                        warn!(
                            call_id = shown_id,
                            function = shown_function,
                            ?form,
                            bytes = payload.len(),
                            "a dead letter is too large: its headers or its body are left out"
                        );
                    }
                    self.metrics.dead_letter(true);
                    return DeadLetterOutcome::Ended;
                }
                Err(failure @ PublishFailure::TooLarge(_)) => refused = failure,
                Err(failure) => {
                    let (stream, reason) = (&self.stream, failure.as_str());
                    error!(
                        call_id = shown_id,
                        function = shown_function,
                        stream,
                        subject,
                        reason,
                        "a dead letter can't be stored: its message stays in the queue and is put off"
                    );
                    return DeadLetterOutcome::NotStored;
                }
            }
        }
        error!(
            call_id = shown_id,
            function = shown_function,
            subject,
            sequence,
            ?refused,
            "dropped: not even a dead letter without headers and body fits: {}",
            death.reason
        );
        self.metrics.dead_letter(false);
        DeadLetterOutcome::Ended
    }
}
