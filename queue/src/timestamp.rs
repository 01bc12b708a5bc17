//! Times of the server as ours.

use async_nats::{datetime::DateTime, jetstream::message::StreamMessage};
use jiff::Timestamp;

/// The client's time as ours. It is before the year 9999, as the server writes it.
#[must_use]
pub fn from_server(at: DateTime) -> Timestamp {
    Timestamp::from_nanosecond(at.unix_timestamp_nanos()).unwrap_or_default()
}

/// When a message was stored, by the server's clock.
#[must_use]
pub fn stored_at(message: &StreamMessage) -> Timestamp {
    from_server(message.time)
}
