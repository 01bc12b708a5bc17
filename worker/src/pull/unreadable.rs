//! Finds the messages of a consumer that this program's client of NATS can't read
//! ([`asyncqueue::raw_message`]).
//!
//! The client closes the connection each time that such a message is delivered, so that the calls
//! behind it wait. So the messages that were delivered and not acknowledged are checked in two
//! cases. Either the connection has changed and the server has not, or requests were lost
//! repeatedly.

use async_nats::{
    HeaderMap, Message,
    jetstream::{Context, consumer::Info},
};
use asyncqueue::raw_message::{RawMessage, next_raw_message};

use crate::delivery::Delivered;

/// Maximum number of messages that are checked: more than the workers of most queues have at once.
const LOOKS: usize = 10_000;

/// A message that can't be read, and the reason.
pub(super) struct Unreadable {
    pub(super) delivered: Delivered,
    pub(super) why: String,
}

/// Unacknowledged messages of a consumer.
#[derive(Default)]
pub(super) struct Found {
    /// Messages that can't be read.
    pub(super) unreadable: Vec<Unreadable>,
    /// Messages behind the first of these, whose delivery may have been lost with the connection.
    pub(super) behind: Vec<Delivered>,
}

/// Checks the messages that a consumer has delivered and that are not acknowledged.
pub(super) async fn find(js: &Context, consumer: &Info) -> Found {
    let (mut found, mut next) = (Found::default(), consumer.ack_floor.stream_sequence + 1);
    if consumer.num_ack_pending == 0 {
        return found;
    }
    for _ in 0..LOOKS {
        let Ok(Some(message)) = next_raw_message(js, &consumer.stream_name, ">", next).await else {
            break;
        };
        if message.sequence > consumer.delivered.stream_sequence {
            break;
        }
        next = message.sequence + 1;
        match message.read_headers() {
            Err(why) => {
                let delivered = rebuilt(consumer, message, None);
                found.unreadable.push(Unreadable { delivered, why });
            }
            Ok(headers) if !found.unreadable.is_empty() => {
                found.behind.push(rebuilt(consumer, message, Some(headers)));
            }
            Ok(_) => {}
        }
    }
    found
}

/// Returns the message with these headers, as if it had been delivered.
fn rebuilt(consumer: &Info, message: RawMessage, headers: Option<HeaderMap>) -> Delivered {
    let RawMessage { sequence, subject, payload, .. } = message;
    let reply =
        format!("$JS.ACK.{}.{}.1.{sequence}.{sequence}.0.0", consumer.stream_name, consumer.name);
    Delivered::of(Message {
        subject: subject.into(),
        reply: Some(reply.into()),
        length: payload.len(),
        payload,
        headers,
        status: None,
        description: None,
    })
}
