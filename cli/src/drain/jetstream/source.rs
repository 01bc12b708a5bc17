//! A JetStream stream as a source.

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use async_nats::jetstream::{
    self,
    consumer::{
        PullConsumer,
        pull::{MessagesErrorKind, Stream},
    },
};
use asyncqueue::jetstream::timestamp_from_server;
use futures::StreamExt;
use tracing::warn;

use super::super::{
    arrival::{Arrival, Message, Receipt, Source},
    identity::Origin,
};

/// How long no message must arrive before the server is asked how many are left.
const QUIET: Duration = Duration::from_secs(1);

/// Interval of the server's heartbeats while no message arrives.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// A consumer whose messages are moved.
pub(super) struct StreamSource {
    consumer: PullConsumer,
    messages: Stream,
    origin: Origin,
}

/// Acknowledges a message of a stream.
#[derive(Debug)]
pub(super) struct StreamReceipt(jetstream::Message);

// === impl StreamSource ===

impl StreamSource {
    /// Starts to pull messages.
    pub(super) async fn open(
        consumer: PullConsumer,
        origin: Origin,
        max_inflight: u16,
    ) -> anyhow::Result<Self> {
        let pull =
            consumer.stream().max_messages_per_batch(max_inflight.into()).heartbeat(HEARTBEAT);
        let messages = pull.messages().await.context("failed to pull messages")?;
        Ok(Self { consumer, messages, origin })
    }
}

impl Source for StreamSource {
    type Receipt = StreamReceipt;

    async fn next(&mut self) -> anyhow::Result<Arrival<StreamReceipt>> {
        let message = loop {
            match self.messages.next().await {
                Some(Ok(message)) => break message,
                // The client itself pulls again.
                Some(Err(error)) if error.kind() == MessagesErrorKind::MissingHeartbeat => {
                    warn!("{error}");
                }
                Some(Err(error)) => return Err(error).context("failed to pull messages"),
                None => bail!("the stream of messages has ended"),
            }
        };
        let info = message
            .info()
            .map_err(|error| anyhow!(error))
            .context("a message names no sequence")?;
        let identity =
            self.origin.message(info.stream_sequence, timestamp_from_server(info.published));
        let content = Message {
            headers: message.headers.clone().unwrap_or_default(),
            payload: message.payload.clone(),
        };
        Ok(Arrival { identity, message: content, receipt: StreamReceipt(message) })
    }

    async fn is_empty(&mut self, quiet: Duration, left: u64) -> anyhow::Result<bool> {
        if quiet < QUIET {
            return Ok(false);
        }
        let Ok(info) = self.consumer.get_info().await else {
            // NATS is unavailable, or the consumer was deleted: in that case the next pull fails.
            return Ok(false);
        };
        let unacknowledged = u64::try_from(info.num_ack_pending).unwrap_or(u64::MAX);
        // What is in flight in an old worker is delivered to the drain when its ack wait is over.
        Ok(info.num_pending == 0 && unacknowledged <= left)
    }

    async fn close(self) {}
}

impl Receipt for StreamReceipt {
    async fn ack(&self) -> anyhow::Result<()> {
        let acked = self.0.double_ack().await;
        acked
            .map_err(|error| anyhow!(error))
            .context("the server did not confirm the acknowledgement")
    }
}
