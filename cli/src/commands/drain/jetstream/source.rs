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
    identity::SourceId,
    source::{AckHandle, Delivery, Message, Source},
};

/// How long no message must arrive before the server is asked how many are left.
const MIN_IDLE_TIME: Duration = Duration::from_secs(1);

/// Interval of the server's heartbeats while no message arrives.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// A consumer whose messages are moved.
pub(super) struct StreamSource {
    consumer: PullConsumer,
    messages: Stream,
    source_id: SourceId,
}

/// Acknowledges a message of a stream.
#[derive(Debug)]
pub(super) struct StreamAckHandle(jetstream::Message);

// === impl StreamSource ===

impl StreamSource {
    /// Starts to pull messages.
    pub(super) async fn open(
        consumer: PullConsumer,
        source_id: SourceId,
        max_inflight: u16,
    ) -> anyhow::Result<Self> {
        let pull =
            consumer.stream().max_messages_per_batch(max_inflight.into()).heartbeat(HEARTBEAT);
        let messages = pull.messages().await.context("failed to pull messages")?;
        Ok(Self { consumer, messages, source_id })
    }
}

impl Source for StreamSource {
    type AckHandle = StreamAckHandle;

    async fn next(&mut self) -> anyhow::Result<Delivery<StreamAckHandle>> {
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
            self.source_id.message(info.stream_sequence, timestamp_from_server(info.published));
        let content = Message {
            headers: message.headers.clone().unwrap_or_default(),
            payload: message.payload.clone(),
        };
        Ok(Delivery { identity, message: content, ack_handle: StreamAckHandle(message) })
    }

    async fn is_empty(&mut self, idle_time: Duration, left: u64) -> anyhow::Result<bool> {
        if idle_time < MIN_IDLE_TIME {
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

impl AckHandle for StreamAckHandle {
    async fn ack(&self) -> anyhow::Result<()> {
        let acked = self.0.double_ack().await;
        acked
            .map_err(|error| anyhow!(error))
            .context("the server did not confirm the acknowledgement")
    }
}
