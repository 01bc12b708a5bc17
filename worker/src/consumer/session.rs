//! One inbox for pull requests, and everything that depends on it: the consumer, its lease, the
//! acks, and the time limits that follow from the lease.

use std::time::Duration;

use async_nats::{
    Client, Subject,
    jetstream::consumer::{PullConsumer, pull::BatchConfig},
};
use tokio_util::sync::CancellationToken;

use super::ack::AckBatcher;

/// How long a pull request stays open at the server. This is long, so that an idle worker sends one
/// request in this time.
const PULL_EXPIRES: Duration = Duration::from_secs(120);

/// Interval of the server's heartbeats while a request is open and no message arrives. It is
/// shorter where the lease is short.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(3);

/// Minimum interval of heartbeats. nats-server permits 100 ms; this is a bit more, for a busy
/// server.
const MIN_HEARTBEAT_INTERVAL: Duration = Duration::from_millis(250);

/// How late a message of the server may be.
const HEARTBEAT_SLACK: Duration = Duration::from_secs(1);

/// Maximum interval between checks whether the connection is another one. What was lost with the
/// old one is delivered again after the lease.
const CONNECTION_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// What belongs to one inbox.
pub(super) struct PullSession<'a> {
    pub(super) client: Client,
    pub(super) consumer: PullConsumer,
    pub(super) inbox: Subject,
    pub(super) lease: Duration,
    pub(super) acks: AckBatcher,
    /// Cancelled when all messages must be handed back at once.
    pub(super) nak_now: &'a CancellationToken,
}

/// What belongs to the inbox of the lanes.
pub(super) struct LaneSession<'a> {
    pub(super) client: Client,
    /// Each lane has a subject below it, so that an answer without a message names its lane.
    pub(super) inbox: Subject,
    /// Hands back messages.
    pub(super) acks: AckBatcher,
    /// Cancelled when all messages must be handed back at once.
    pub(super) nak_now: &'a CancellationToken,
}

// === impl PullSession ===

impl PullSession<'_> {
    /// Returns the interval of heartbeats. Two of them and some delay are within the lease.
    fn heartbeat_interval(&self) -> Duration {
        (self.lease / 4).clamp(MIN_HEARTBEAT_INTERVAL, HEARTBEAT_INTERVAL)
    }

    /// Returns the interval between checks whether the connection is another one.
    pub(super) fn connection_check_interval(&self) -> Duration {
        (self.lease / 8).clamp(MIN_HEARTBEAT_INTERVAL / 2, CONNECTION_CHECK_INTERVAL)
    }

    /// Returns the time without any message after which the request counts as lost and is sent
    /// again. It may be lost if the server restarts, its leader changes, or the consumer is
    /// recreated. The time is shorter than the lease: a process that was stopped for less still has
    /// what was delivered to it.
    pub(super) fn idle_timeout(&self) -> Duration {
        self.heartbeat_interval() * 2 + HEARTBEAT_SLACK.min(self.lease / 4)
    }

    /// Returns the maximum size of a message as it is delivered, in bytes.
    pub(super) fn max_message_bytes(&self) -> usize {
        max_message_bytes(&self.client)
    }

    /// Requests this many messages, of at most this many bytes together.
    pub(super) async fn request(
        &self,
        batch: usize,
        max_bytes: usize,
    ) -> Result<(), async_nats::Error> {
        let config = BatchConfig {
            batch,
            max_bytes,
            expires: Some(PULL_EXPIRES),
            idle_heartbeat: self.heartbeat_interval(),
            ..BatchConfig::default()
        };
        Ok(self.consumer.request_batch(config, self.inbox.clone()).await?)
    }
}

/// Returns the maximum size of a message as it is delivered, with its subjects, in bytes.
pub(super) fn max_message_bytes(client: &Client) -> usize {
    const SUBJECTS: usize = 4 * 1024;
    client.max_payload() + SUBJECTS
}
