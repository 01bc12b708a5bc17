//! Stores dead letters.

use std::time::Duration;

use async_nats::jetstream::{AckKind, Context, Message, context::PublishErrorKind, message::PublishMessage};
use asyncqueue::{
    CallId, FunctionName, QueueName,
    message::dead_letter::{self, Death},
    subject::call_subject,
};
use jiff::Timestamp;
use tokio::time::{Instant, sleep};
use tracing::{debug, error};

use crate::delivery::Delivery;

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
    js: Context,
    stream: String,
    worker: String,
}

// === impl Graveyard ===

impl Graveyard {
    pub(crate) fn new(js: Context, queue: &QueueName, worker: String) -> Self {
        Self { js, stream: queue.dead_letter_stream(), worker }
    }

    /// Stores the message of a call, or of something that is none, as a dead letter and says what its end is: acknowledged once it is stored, or put off
    /// where it can't be. Nothing is lost for want of a graveyard.
    pub(crate) async fn bury(
        &self,
        message: &Message,
        call: Option<(&FunctionName, &CallId)>,
        death: Death,
    ) -> AckKind {
        let sequence = Delivery::of(message).sequence;
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
            let Err(refused) = publish.await else { return AckKind::Ack };
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
