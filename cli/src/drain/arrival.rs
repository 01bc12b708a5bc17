//! A source of messages, and a message that it delivers.

use std::time::Duration;

use async_nats::HeaderMap as NatsHeaders;
use bytes::Bytes;

use super::identity::Identity;

/// A queue of OpenFaaS.
pub(super) trait Source {
    /// What acknowledges a message of it.
    type Receipt: Receipt;

    /// The next message. Waits while there is none; the future may be dropped. An error ends the
    /// drain.
    async fn next(&mut self) -> anyhow::Result<Arrival<Self::Receipt>>;

    /// Whether nothing is left there but `left` messages that were not taken. No message came for
    /// `quiet`.
    async fn is_empty(&mut self, quiet: Duration, left: u64) -> anyhow::Result<bool>;

    /// Leaves the source, so that others get what was not acknowledged.
    async fn close(self);
}

/// Acknowledges a message at its source.
pub(super) trait Receipt {
    /// The source does not deliver the message again after this.
    async fn ack(&self) -> anyhow::Result<()>;
}

/// A message that was delivered.
#[derive(Debug)]
pub(super) struct Arrival<R> {
    pub(super) identity: Identity,
    pub(super) message: Message,
    pub(super) receipt: R,
}

/// What a message holds.
#[derive(Clone, Debug)]
pub(super) struct Message {
    /// Empty where the source has none.
    pub(super) headers: NatsHeaders,
    pub(super) payload: Bytes,
}
