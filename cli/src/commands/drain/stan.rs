//! `kubectl aq drain stan`

use std::time::Duration;

use anyhow::Context as _;
use asyncqueue::GoDuration;
use asyncqueue_runtime::settings::NatsSettings;
use clap::Args;

use self::{
    connection::{Connection, Subscription},
    names::{channel, token},
    source::StanSource,
};
use super::{Common, identity::Origin, transfer::Transfer, transfer_loop};
use crate::session::{self, Session};

mod connection;
mod messages;
mod names;
mod source;

/// How long NATS Streaming waits for our ack before it delivers a message again.
const ACK_WAIT: Duration = Duration::from_secs(30);

/// Moves the messages of a NATS Streaming channel, the queue of OpenFaaS Community Edition, to
/// AsyncQueue
///
/// Stop the queue-worker first. The drain then joins its durable queue group, so that it gets what
/// the worker has not acknowledged, and nothing else. Each message is stored here before it is
/// acknowledged there.
///
/// A message that is no valid call becomes a dead letter of the queue (--queue, or else
/// --default-queue). A message that can be neither a call nor a dead letter stays in the channel;
/// the log says why.
///
/// A drain that was interrupted can be run again, at any time, and stores no message twice. What it
/// was storing when it was killed may have run if it is run again only after the duplicate window
/// of the queue: such a call becomes a dead letter, to be checked and replayed.
///
/// NATS Streaming does not say how many messages are left. The channel counts as empty after
/// --empty-after without a message.
///
/// The exit code is 0 when the channel is empty (with --follow: after SIGINT or SIGTERM), 1 after
/// an error or where a message is left, and 2 where the command line is not valid.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kubectl aq drain stan --stan-url nats://nats.openfaas:4222
  kubectl aq drain stan --stan-url nats://127.0.0.1:4222 --channel faas-request --queue slow-queue --follow")]
pub(crate) struct Arguments {
    /// The NATS server that NATS Streaming uses: `nats://host:4222`, `nats://user:password@host` or
    /// `nats://token@host`
    #[arg(long, env = "stan_url", hide_env_values = true)]
    stan_url: String,

    /// Cluster id of NATS Streaming
    #[arg(long, env = "stan_cluster_id", default_value = "faas-cluster", value_parser = token)]
    cluster_id: String,

    /// The channel: `faas_nats_channel` of the gateway
    #[arg(long, env = "stan_channel", default_value = "faas-request", value_parser = channel)]
    channel: String,

    /// Queue group of the old worker
    #[arg(long, env = "stan_queue_group", default_value = "faas", value_parser = token)]
    queue_group: String,

    /// Durable name of the old worker [default: the channel, with `_` for each `.`]
    #[arg(long, env = "stan_durable", value_parser = token)]
    durable: Option<String>,

    /// Where there is no such durable queue group: take all messages that the channel has, also
    /// those that another group has acknowledged. Default: only messages that are published from
    /// now on
    #[arg(long)]
    all: bool,

    /// Name of this client. NATS Streaming lets in one at a time, so that two drains do not work at
    /// once by accident
    #[arg(long, env = "stan_client_id", default_value = "asyncqueue-drain", value_parser = token)]
    client_id: String,

    /// How long no message has to come until the channel counts as empty. More than `ack_wait` of
    /// the old worker: what it had in hand comes only then
    #[arg(long, env = "empty_after", default_value = "70s", value_parser = GoDuration::parse_positive)]
    empty_after: GoDuration,

    #[command(flatten)]
    pub(super) common: Common,
}

pub(super) async fn run(session: &Session, arguments: &Arguments) -> anyhow::Result<()> {
    let Arguments { cluster_id, channel, common, .. } = arguments;
    // Before the subscription: what the channel delivers can be stored at once.
    let origin = Origin::new("stan", &[cluster_id, channel], channel);
    let transfer = Transfer::open(session, common, origin.clone(), None).await?;
    let settings = NatsSettings::from_url(&arguments.stan_url);
    let client = session::connect(&settings, "--stan-url")
        .await
        .context("NATS Streaming can't be reached")?;
    let connection = Connection::open(client, cluster_id, &arguments.client_id).await?;
    let durable = arguments.durable.clone().unwrap_or_else(|| names::durable_of(channel));
    let subscription = Subscription {
        channel: channel.clone(),
        queue_group: arguments.queue_group.clone(),
        durable,
        take_all: arguments.all,
        max_inflight: common.max_inflight,
        ack_wait: ACK_WAIT,
    };
    let source =
        StanSource::join(connection, subscription, origin, arguments.empty_after.0).await?;
    transfer_loop::run(source, &transfer, common).await
}
