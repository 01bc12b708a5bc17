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
use super::{Common, identity::SourceId, transfer::Transfer, transfer_loop};
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
/// Stop the queue-worker first. The drain joins the durable queue group of the queue-worker, and so
/// receives the messages that the queue-worker has not acknowledged. Each message is stored by
/// AsyncQueue before it is acknowledged in the channel.
///
/// A message that is not a valid call becomes a dead letter of the queue (--queue, otherwise
/// --default-queue). A message that can be neither a call nor a dead letter stays in the channel;
/// the log contains the reason.
///
/// An interrupted drain can be run again at any time, and stores no message twice. If it was killed
/// while it stored a message, and runs again only after the duplicate window of the queue, that
/// call may have run: it becomes a dead letter. Check such dead letters and replay them.
///
/// NATS Streaming does not report how many messages are left. The channel counts as empty after
/// --empty-after without a message.
///
/// Exit codes: 0 when the channel is empty (with --follow: after SIGINT or SIGTERM), 1 after an
/// error or if messages are left, 2 for an invalid command line.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kubectl aq drain stan --stan-url nats://nats.openfaas:4222
  kubectl aq drain stan --stan-url nats://127.0.0.1:4222 --channel faas-request \
      --queue slow-queue --follow")]
pub(crate) struct StanArgs {
    /// The NATS server that NATS Streaming uses: `nats://host:4222`, `nats://user:password@host` or
    /// `nats://token@host`
    #[arg(long, env = "stan_url", hide_env_values = true)]
    stan_url: String,

    /// Cluster id of NATS Streaming
    #[arg(long, env = "stan_cluster_id", default_value = "faas-cluster", value_parser = token)]
    cluster_id: String,

    /// Name of the channel: `faas_nats_channel` of the OpenFaaS gateway
    #[arg(long, env = "stan_channel", default_value = "faas-request", value_parser = channel)]
    channel: String,

    /// Queue group of the queue-worker
    #[arg(long, env = "stan_queue_group", default_value = "faas", value_parser = token)]
    queue_group: String,

    /// Durable name of the queue-worker. Default: the channel, with `_` for each `.`
    #[arg(long, env = "stan_durable", value_parser = token)]
    durable: Option<String>,

    /// If the durable queue group does not exist: drain all messages of the channel, including
    /// those that another group has acknowledged. Default: only messages that are published from
    /// now on
    #[arg(long)]
    all: bool,

    /// Client id of this drain. NATS Streaming accepts one connection with this id, so that two
    /// drains do not run at the same time by accident
    #[arg(long, env = "stan_client_id", default_value = "asyncqueue-drain", value_parser = token)]
    client_id: String,

    /// Time without a message after which the channel counts as empty. It must exceed `ack_wait` of
    /// the queue-worker, whose unacknowledged messages are redelivered only then
    #[arg(
        long,
        env = "empty_after",
        default_value = "70s",
        value_parser = GoDuration::parse_positive
    )]
    empty_after: GoDuration,

    #[command(flatten)]
    pub(super) common: Common,
}

pub(super) async fn run(session: &Session, arguments: &StanArgs) -> anyhow::Result<()> {
    let StanArgs { cluster_id, channel, common, .. } = arguments;
    // Before the subscription: what the channel delivers can be stored at once.
    let source_id = SourceId::new("stan", &[cluster_id, channel], channel);
    let transfer = Transfer::open(session, common, source_id.clone(), None).await?;
    let settings = NatsSettings::from_url(&arguments.stan_url);
    let client = session::connect(&settings, "--stan-url")
        .await
        .context("failed to connect to NATS Streaming")?;
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
        StanSource::join(connection, subscription, source_id, arguments.empty_after.0).await?;
    transfer_loop::run(source, &transfer, common).await
}
