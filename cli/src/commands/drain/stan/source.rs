//! A channel of NATS Streaming as a source.

use std::time::Duration;

use anyhow::{Context as _, bail};
use async_nats::HeaderMap as NatsHeaders;
use futures::StreamExt;
use jiff::Timestamp;
use prost::Message as _;

use super::{
    super::{
        identity::SourceId,
        source::{AckHandle, Delivery, Message, Source},
    },
    connection::{AckPublisher, Connection, Deliveries, Subscription},
    messages::MsgProto,
};

/// A channel whose durable queue group the drain has joined.
#[derive(Debug)]
pub(super) struct StanSource {
    connection: Connection,
    deliveries: Deliveries,
    source_id: SourceId,
    empty_after: Duration,
}

/// Acknowledges a message of a channel.
#[derive(Debug)]
pub(super) struct StanAckHandle {
    acks: AckPublisher,
    sequence: u64,
}

// === impl StanSource ===

impl StanSource {
    /// Joins the durable queue group.
    pub(super) async fn join(
        connection: Connection,
        subscription: Subscription,
        source_id: SourceId,
        empty_after: Duration,
    ) -> anyhow::Result<Self> {
        let deliveries = connection.subscribe(&subscription).await?;
        Ok(Self { connection, deliveries, source_id, empty_after })
    }
}

impl Source for StanSource {
    type AckHandle = StanAckHandle;

    async fn next(&mut self) -> anyhow::Result<Delivery<StanAckHandle>> {
        let message = tokio::select! {
            message = self.deliveries.messages.next() => message,
            error = self.connection.lost() => return Err(error),
        };
        let Some(message) = message else { bail!("the subscription has ended") };
        let MsgProto { sequence, data, timestamp } = MsgProto::decode(message.payload)
            .context("failed to decode a message of NATS Streaming")?;
        let stored_at = Timestamp::from_nanosecond(timestamp.into()).unwrap_or_default();
        Ok(Delivery {
            identity: self.source_id.message(sequence, stored_at),
            message: Message { headers: NatsHeaders::new(), payload: data },
            ack_handle: StanAckHandle { acks: self.deliveries.acks.clone(), sequence },
        })
    }

    async fn is_empty(&mut self, idle_time: Duration, _left: u64) -> anyhow::Result<bool> {
        Ok(idle_time >= self.empty_after)
    }

    async fn close(self) {
        self.connection.close().await;
    }
}

impl AckHandle for StanAckHandle {
    async fn ack(&self) -> anyhow::Result<()> {
        self.acks.ack(self.sequence).await
    }
}
