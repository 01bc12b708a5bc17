//! A channel of NATS Streaming as a source.

use std::time::Duration;

use anyhow::{Context as _, bail};
use async_nats::HeaderMap as NatsHeaders;
use futures::StreamExt;
use jiff::Timestamp;
use prost::Message as _;

use super::{
    super::{
        identity::Origin,
        source::{Arrival, Message, Receipt, Source},
    },
    connection::{Acks, Connection, Deliveries, Subscription},
    messages::Delivery,
};

/// A channel whose durable queue group the drain has joined.
#[derive(Debug)]
pub(super) struct StanSource {
    connection: Connection,
    deliveries: Deliveries,
    origin: Origin,
    empty_after: Duration,
}

/// Acknowledges a message of a channel.
#[derive(Debug)]
pub(super) struct StanReceipt {
    acks: Acks,
    sequence: u64,
}

// === impl StanSource ===

impl StanSource {
    /// Joins the durable queue group.
    pub(super) async fn join(
        connection: Connection,
        subscription: Subscription,
        origin: Origin,
        empty_after: Duration,
    ) -> anyhow::Result<Self> {
        let deliveries = connection.subscribe(&subscription).await?;
        Ok(Self { connection, deliveries, origin, empty_after })
    }
}

impl Source for StanSource {
    type Receipt = StanReceipt;

    async fn next(&mut self) -> anyhow::Result<Arrival<StanReceipt>> {
        let message = tokio::select! {
            message = self.deliveries.messages.next() => message,
            error = self.connection.lost() => return Err(error),
        };
        let Some(message) = message else { bail!("the subscription has ended") };
        let Delivery { sequence, data, timestamp } = Delivery::decode(message.payload)
            .context("NATS Streaming sent what is no message of a channel")?;
        let stored_at = Timestamp::from_nanosecond(timestamp.into()).unwrap_or_default();
        Ok(Arrival {
            identity: self.origin.message(sequence, stored_at),
            message: Message { headers: NatsHeaders::new(), payload: data },
            receipt: StanReceipt { acks: self.deliveries.acks.clone(), sequence },
        })
    }

    async fn is_empty(&mut self, quiet: Duration, _left: u64) -> anyhow::Result<bool> {
        Ok(quiet >= self.empty_after)
    }

    async fn close(self) {
        self.connection.close().await;
    }
}

impl Receipt for StanReceipt {
    async fn ack(&self) -> anyhow::Result<()> {
        self.acks.ack(self.sequence).await
    }
}
