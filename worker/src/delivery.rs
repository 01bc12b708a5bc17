//! What the server says of a message it delivers.

use std::sync::LazyLock;

use async_nats::{HeaderMap, jetstream::Message};
use jiff::Timestamp;

/// The headers of a message that has none.
static NO_HEADERS: LazyLock<HeaderMap> = LazyLock::new(HeaderMap::new);

/// The headers of a message.
pub(crate) fn headers(message: &Message) -> &HeaderMap {
    message.headers.as_ref().unwrap_or(&NO_HEADERS)
}

/// One delivery of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Delivery {
    /// How often it was delivered, this time included.
    pub(crate) count: u64,
    /// Where it is on its stream.
    pub(crate) sequence: u64,
    /// When the stream stored it.
    pub(crate) stored_at: Timestamp,
}

impl Delivery {
    /// Reads the delivery of a message. One that did not come from a stream, which can't be on a consumer's inbox,
    /// reads as delivered for the first time.
    pub(crate) fn of(message: &Message) -> Self {
        let info = message.info().ok();
        let stored_at = info
            .as_ref()
            .and_then(|info| Timestamp::from_nanosecond(info.published.unix_timestamp_nanos()).ok())
            .unwrap_or_else(Timestamp::now);
        Self {
            count: info.as_ref().and_then(|info| u64::try_from(info.delivered).ok()).unwrap_or(1),
            sequence: info.map_or(0, |info| info.stream_sequence),
            stored_at,
        }
    }
}
