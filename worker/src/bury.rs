//! Stores dead letters.

use std::time::Duration;

use async_nats::jetstream::{AckKind, Context, Message, context::PublishErrorKind, message::PublishMessage};
use asyncqueue::{
    QueueName,
    message::dead_letter::{self, Death},
};
use jiff::Timestamp;
use tokio::time::sleep;
use tracing::{debug, error};

use crate::delivery::Delivery;

/// While NATS is away: the message can't be acknowledged either.
const PAUSE: Duration = Duration::from_secs(1);

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

    /// Stores a message as a dead letter and says what its end is: acknowledged once it is stored, or put off
    /// where it can't be. Nothing is lost for want of a graveyard.
    pub(crate) async fn bury(&self, message: &Message, death: Death) -> AckKind {
        let subject = format!("{}.{}", self.stream, tail(message));
        let headers = dead_letter::headers(
            message.headers.as_ref(),
            &message.subject,
            &death,
            &self.worker,
            Timestamp::now(),
        );
        let id = format!("{}.{}", message.subject, Delivery::of(message).sequence);
        loop {
            let dead = PublishMessage::build()
                .headers(headers.clone())
                .payload(message.payload.clone())
                // Buried twice, because the first burial was not acknowledged, it lies there once.
                .message_id(&id);
            let publish = async { self.js.send_publish(subject.clone(), dead).await?.await };
            let Err(refused) = publish.await else { return AckKind::Ack };
            match refused.kind() {
                PublishErrorKind::StreamNotFound | PublishErrorKind::MaxPayloadExceeded => {
                    let stream = &self.stream;
                    error!(stream, %subject, error = %refused, "a dead letter can't be stored: its message stays in the queue");
                    return AckKind::Nak(Some(PUT_OFF));
                }
                _ => debug!(error = %refused, "a dead letter is not stored yet, trying again"),
            }
            sleep(PAUSE).await;
        }
    }
}

/// What the subject of a dead letter ends with: namespace, function and call id where the message's own has
/// them, or else where in the stream it was.
fn tail(message: &Message) -> String {
    let tokens: Vec<&str> = message.subject.rsplitn(4, '.').collect();
    match (tokens[..].len(), message.info()) {
        (4, _) => format!("{}.{}.{}", tokens[2], tokens[1], tokens[0]),
        (_, Ok(info)) => format!("unknown.unknown.seq-{}", info.stream_sequence),
        (_, Err(_)) => "unknown.unknown.unknown".to_owned(),
    }
}
