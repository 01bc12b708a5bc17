//! Converts times of the server to ours.

use async_nats::{datetime::DateTime, jetstream::message::StreamMessage};
use jiff::Timestamp;

/// Converts a time of the NATS client to ours. It is before the year 9999, as the server writes it.
#[must_use]
pub fn from_server(at: DateTime) -> Timestamp {
    Timestamp::from_nanosecond(at.unix_timestamp_nanos()).unwrap_or_default()
}

/// Returns when a message was stored, by the server's clock.
#[must_use]
pub fn stored_at(message: &StreamMessage) -> Timestamp {
    from_server(message.time)
}
