//! The end of what is given up: a dead letter, or a line in the log.

use std::time::Duration;

use async_nats::jetstream::{AckKind, Context, context::PublishErrorKind, message::PublishMessage};
use asyncqueue::{
    CallId, FunctionName,
    message::dead_letter::{self, Death},
    subject::call_subject,
};
use jiff::Timestamp;
use tokio::time::{Instant, sleep};
use tracing::{debug, error};

use crate::{delivery::Delivered, metrics::Metrics};

/// While NATS is away: the message can't be acknowledged either.
const PAUSE: Duration = Duration::from_secs(1);

/// While the servers of a cluster choose a stream's leader, nobody answers for it, as if it were not there. They take ten
/// seconds at most, and may have to begin anew: what is missing for longer is not there.
pub(crate) const ELECTION: Duration = Duration::from_secs(20);

/// How long a message waits whose dead letter can't be stored at all: somebody has to see to it.
const PUT_OFF: Duration = Duration::from_secs(60);

/// The queue's stream of dead letters.
#[derive(Clone, Debug)]
pub(crate) struct Graveyard {
    pub(crate) js: Context,
    pub(crate) stream: String,
    /// Who buries.
    pub(crate) worker: String,
    /// Whether dead letters are kept.
    pub(crate) enabled: bool,
    pub(crate) metrics: Metrics,
}

// === impl Graveyard ===

impl Graveyard {
    /// Stores the message of a call, or of something that is none, as a dead letter and says what its end is:
    /// acknowledged once it is stored, or put off where it can't be. Nothing is lost for want of a graveyard, unless
    /// none is wanted: then it is told and let go.
    pub(crate) async fn bury(
        &self,
        delivered: &Delivered,
        call: Option<(&FunctionName, &CallId)>,
        death: Death,
    ) -> AckKind {
        let (message, sequence) = (&delivered.message, delivered.sequence);
        if !self.enabled {
            let (call_id, function) = call.map(|(function, id)| (id, function)).unzip();
            error!(
                call_id = call_id.map(tracing::field::display), function = function.map(tracing::field::display),
                subject = %message.subject, sequence, attempts = death.attempts,
                "it is let go, since no dead letters are kept: {}", death.reason
            );
            self.metrics.buried(false);
            return AckKind::Ack;
        }
        let subject = match call {
            Some((function, id)) => call_subject(&self.stream, function, id),
            None => format!("{}.unknown.unknown.{}", self.stream, CallId::of_sequence(sequence)),
        };
        let headers = dead_letter::headers(
            message.headers.as_ref(),
            &message.subject,
            &death,
            &self.worker,
            Timestamp::now(),
        );
        let id = format!("{}.{sequence}", message.subject);
        let begun = Instant::now();
        loop {
            let dead = PublishMessage::build()
                .headers(headers.clone())
                .payload(message.payload.clone())
                // Buried twice, because the first burial was not acknowledged, it lies there once.
                .message_id(&id);
            let publish = async { self.js.send_publish(subject.clone(), dead).await?.await };
            let Err(refused) = publish.await else {
                self.metrics.buried(true);
                return AckKind::Ack;
            };
            let is_for_ever = match refused.kind() {
                PublishErrorKind::StreamNotFound => begun.elapsed() > ELECTION,
                kind => kind == PublishErrorKind::MaxPayloadExceeded,
            };
            if is_for_ever {
                let stream = &self.stream;
                error!(stream, %subject, error = %refused, "a dead letter can't be stored: its message stays in the queue");
                return AckKind::Nak(Some(PUT_OFF));
            }
            debug!(error = %refused, "a dead letter is not stored yet, trying again");
            sleep(PAUSE).await;
        }
    }
}
