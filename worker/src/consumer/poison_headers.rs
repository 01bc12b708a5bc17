//! Finds the messages of a consumer that this program's NATS client can't read
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

use super::delivery::Delivery;

/// Maximum number of messages that are checked: more than the workers of most queues have at once.
const MAX_SCANNED: usize = 10_000;

/// A message that can't be read, and the reason.
pub(super) struct UndecodableMessage {
    pub(super) delivery: Delivery,
    pub(super) reason: String,
}

/// Unacknowledged messages of a consumer.
#[derive(Default)]
pub(super) struct ScanResult {
    /// Messages that can't be read.
    pub(super) undecodable: Vec<UndecodableMessage>,
    /// Messages behind the first of these, whose delivery may have been lost with the connection.
    pub(super) behind: Vec<Delivery>,
}

/// Checks the messages that a consumer has delivered and that are not acknowledged.
pub(super) async fn scan(js: &Context, consumer: &Info) -> ScanResult {
    let (mut result, mut next) = (ScanResult::default(), consumer.ack_floor.stream_sequence + 1);
    let filter = filter(consumer);
    if consumer.num_ack_pending == 0 {
        return result;
    }
    for _ in 0..MAX_SCANNED {
        let Ok(Some(message)) = next_raw_message(js, &consumer.stream_name, filter, next).await
        else {
            break;
        };
        if message.sequence > consumer.delivered.stream_sequence {
            break;
        }
        next = message.sequence + 1;
        match message.read_headers() {
            Err(reason) => {
                let delivery = to_delivery(consumer, message, None);
                result.undecodable.push(UndecodableMessage { delivery, reason });
            }
            Ok(headers) if !result.undecodable.is_empty() => {
                result.behind.push(to_delivery(consumer, message, Some(headers)));
            }
            Ok(_) => {}
        }
    }
    result
}

/// Returns the filter for the messages of a consumer: that of the lane of a function. A lane that
/// functions share has several, and messages of other lanes among its own are checked too.
fn filter(consumer: &Info) -> &str {
    let filter = consumer.config.filter_subject.as_str();
    if filter.is_empty() { ">" } else { filter }
}

/// Returns the message with these headers, as if it had been delivered.
fn to_delivery(consumer: &Info, message: RawMessage, headers: Option<HeaderMap>) -> Delivery {
    let RawMessage { sequence, subject, payload, .. } = message;
    let reply =
        format!("$JS.ACK.{}.{}.1.{sequence}.{sequence}.0.0", consumer.stream_name, consumer.name);
    Delivery::from_message(Message {
        subject: subject.into(),
        reply: Some(reply.into()),
        length: payload.len(),
        payload,
        headers,
        status: None,
        description: None,
    })
}
