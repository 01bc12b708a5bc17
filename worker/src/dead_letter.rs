//! Ends messages whose attempts are exhausted or that can't be read: with a dead letter, or with a
//! line in the log.

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
use tracing::{error, field::display, warn};

use crate::{
    consumer::{InFlightPermit, delivery::Delivery},
    metrics::Metrics,
    record::Record,
    record_store::RecordStore,
};

/// Delay of the redelivery of a message whose dead letter can't be stored: the storage is full, or
/// the stream is missing.
const REDELIVERY_DELAY: Duration = Duration::from_secs(60);

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
    pub(crate) store: RecordStore,
    pub(crate) metrics: Metrics,
}

/// A message that becomes a dead letter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    pub(crate) headers: Option<&'a HeaderMap>,
    pub(crate) payload: &'a Bytes,
    /// Subject that the message has, or would have had.
    pub(crate) subject: &'a str,
    /// Sequence of the call, or of the message if it is not a call.
    pub(crate) sequence: u64,
}

/// Outcome of writing a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeadLetterOutcome {
    /// The message is stored as a dead letter, or was dropped: dead letters are disabled, or it
    /// does not fit in any form.
    Ended,
    /// The dead letter can't be stored now.
    NotStored,
}

// === impl Message ===

impl<'a> From<&'a Delivery> for Message<'a> {
    fn from(delivery: &'a Delivery) -> Self {
        let message = &delivery.message;
        Self {
            headers: message.headers.as_ref(),
            payload: &message.payload,
            subject: &message.subject,
            sequence: delivery.sequence,
        }
    }
}

// === impl DeadLetterOutcome ===

impl DeadLetterOutcome {
    /// Returns how to settle the message that was delivered.
    pub(crate) fn ack(self) -> AckKind {
        match self {
            Self::Ended => AckKind::Ack,
            Self::NotStored => AckKind::Nak(Some(REDELIVERY_DELAY)),
        }
    }
}

// === impl DeadLetterWriter ===

impl DeadLetterWriter {
    /// Writes a dead letter for a message, whether it is a call or not. Leaves out what does not
    /// fit. If dead letters are disabled, logs and drops the message.
    pub(crate) async fn write(
        &self,
        message: Message<'_>,
        call: Option<(&FunctionName, &CallId)>,
        death: DeathInfo,
        permit: &mut InFlightPermit,
    ) -> DeadLetterOutcome {
        let Message { payload, subject, sequence, .. } = message;
        let (function, call_id) = call.unzip();
        let (call_id, function) = (call_id.map(display), function.map(display));
        if !self.enabled {
            error!(
                call_id,
                function,
                subject,
                sequence,
                attempts = death.attempts,
                "dropped: dead letters are disabled: {}",
                death.reason
            );
            self.metrics.record_dead_letter(false);
            return DeadLetterOutcome::Ended;
        }
        match self.store(message, call, &death, permit).await {
            Ok(form) => {
                if form != DeadLetterForm::Whole {
                    warn!(
                        call_id,
                        function,
                        ?form,
                        bytes = payload.len(),
                        "dead letter too large: stored without its headers or its body"
                    );
                }
                self.metrics.record_dead_letter(true);
                DeadLetterOutcome::Ended
            }
            Err(refused @ PublishFailure::TooLarge(_)) => {
                error!(
                    call_id,
                    function,
                    subject,
                    sequence,
                    ?refused,
                    "dropped: even a dead letter without headers and body is too large: {}",
                    death.reason
                );
                self.metrics.record_dead_letter(false);
                DeadLetterOutcome::Ended
            }
            Err(failure) => {
                let (stream, reason) = (&self.stream, failure.as_str());
                error!(
                    call_id,
                    function,
                    stream,
                    subject,
                    reason,
                    "failed to store a dead letter: its message stays in the queue and is \
                     delivered again later"
                );
                DeadLetterOutcome::NotStored
            }
        }
    }

    /// Stores a dead letter in the first form that fits, and returns the form. Returns
    /// [`PublishFailure::TooLarge`] if none fits.
    async fn store(
        &self,
        message: Message<'_>,
        call: Option<(&FunctionName, &CallId)>,
        death: &DeathInfo,
        permit: &mut InFlightPermit,
    ) -> Result<DeadLetterForm, PublishFailure> {
        let Message { headers, payload, subject, sequence } = message;
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
        let whole = dead_letter::headers(headers, subject, death, &self.worker, Timestamp::now());
        let id = dead_letter::message_id(subject, sequence);
        let mut refused = PublishFailure::Unavailable;
        for form in DeadLetterForm::ALL {
            let (headers, body) = form.apply(&whole, payload);
            let store = || {
                let (headers, body) = (headers.clone(), body.clone());
                store_once(&self.js, &self.stream, &dead_subject, &id, headers, body)
            };
            let record = Record::DeadLetter;
            match self.store.store_with_retries(record, permit, |_| {}, store).await {
                Ok(()) => return Ok(form),
                Err(failure @ PublishFailure::TooLarge(_)) => refused = failure,
                Err(failure) => return Err(failure),
            }
        }
        Err(refused)
    }
}
