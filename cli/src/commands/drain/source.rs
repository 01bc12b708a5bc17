//! A source of messages, and a message that it delivers.

use std::time::Duration;

use async_nats::HeaderMap as NatsHeaders;
use bytes::Bytes;

use super::identity::MessageIdentity;

/// A queue of OpenFaaS.
pub(super) trait Source {
    /// The type that acknowledges its messages.
    type AckHandle: AckHandle;

    /// Returns the next message. Waits until a message arrives; the future may be dropped. An error
    /// ends the drain.
    async fn next(&mut self) -> anyhow::Result<Delivery<Self::AckHandle>>;

    /// Returns whether the source has no messages besides `left` ones that can't be moved. No
    /// message has arrived for `idle_time`.
    async fn is_empty(&mut self, idle_time: Duration, left: u64) -> anyhow::Result<bool>;

    /// Closes the source, so that other clients get what was not acknowledged.
    async fn close(self);
}

/// Acknowledges a message at its source.
pub(super) trait AckHandle {
    /// Acknowledges the message. The source does not deliver it again after this.
    async fn ack(&self) -> anyhow::Result<()>;
}

/// A message that was delivered.
#[derive(Debug)]
pub(super) struct Delivery<R> {
    pub(super) identity: MessageIdentity,
    pub(super) message: Message,
    pub(super) ack_handle: R,
}

/// The content of a message.
#[derive(Clone, Debug)]
pub(super) struct Message {
    /// Empty if the source has no headers.
    pub(super) headers: NatsHeaders,
    pub(super) payload: Bytes,
}
