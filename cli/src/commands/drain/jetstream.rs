//! `kubectl aq drain jetstream`

use anyhow::Context as _;
use asyncqueue_runtime::settings::NatsSettings;
use clap::Args;

use self::source::StreamSource;
use super::{Common, destination::StreamId, identity::Origin, transfer::Transfer, transfer_loop};
use crate::session::{self, Session};

mod consumer;
mod source;

/// Moves the messages of a JetStream stream that another OpenFaaS gateway publishes to, to
/// AsyncQueue
///
/// For the streams of OpenFaaS Pro (OF_… since its gateway 0.5, else the queue's name). Stop the
/// queue-worker first. The drain then takes the messages from the consumer of the worker, so that
/// it gets what the worker has not acknowledged. Each message is stored here before it is
/// acknowledged there.
///
/// A message that is no valid call becomes a dead letter of the queue (--queue, or else
/// --default-queue). A message that can be neither a call nor a dead letter stays in the stream;
/// the log says why.
///
/// A drain that was interrupted can be run again, at any time, and stores no message twice. What it
/// was storing when it was killed may have run if it is run again only after the duplicate window
/// of the queue: such a call becomes a dead letter, to be checked and replayed.
///
/// The exit code is 0 when the consumer has no message left (with --follow: after SIGINT or
/// SIGTERM), 1 after an error or where a message is left, and 2 where the command line is not
/// valid.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kubectl aq drain jetstream --stream OF_slow-queue --source-url nats://nats.openfaas:4222
  kubectl aq drain jetstream --stream slow-queue --consumer slow-queue-workers --queue slow")]
pub(crate) struct Arguments {
    /// The stream
    #[arg(long, env = "source_stream")]
    stream: String,

    /// The consumer of the old worker. Default: the one that the stream has; if it has none, one
    /// named asyncqueue-drain is created
    #[arg(long, env = "source_consumer")]
    consumer: Option<String>,

    /// The NATS server of the stream: `nats://host:4222`, `nats://user:password@host` or
    /// `nats://token@host`. Default: the one that AsyncQueue uses
    #[arg(long, env = "source_url", hide_env_values = true)]
    source_url: Option<String>,

    #[command(flatten)]
    pub(super) common: Common,
}

pub(super) async fn run(session: &Session, arguments: &Arguments) -> anyhow::Result<()> {
    let Arguments { stream, consumer, source_url, common } = arguments;
    let js = match source_url {
        Some(url) => {
            let settings = NatsSettings::from_url(url);
            let client = session::connect(&settings, "--source-url").await;
            session::jetstream(client.context("the NATS of the stream can't be reached")?)
        }
        None => session.js.clone(),
    };
    let found = js.get_stream(stream).await;
    let stream =
        found.with_context(|| format!("failed to open stream `{stream}`: --stream names it"))?;
    let info = stream.cached_info();
    let (name, created) =
        (info.config.name.as_str(), info.created.unix_timestamp_nanos().to_string());
    let origin = Origin::new("jetstream", &[name, &created], name);
    let source = StreamId::of(info);
    let transfer = Transfer::open(session, common, origin.clone(), Some(source)).await?;
    let consumer = consumer::open(&stream, consumer.as_deref()).await?;
    let source = StreamSource::open(consumer, origin, common.max_inflight).await?;
    transfer_loop::run(source, &transfer, common).await
}
