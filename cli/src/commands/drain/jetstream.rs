//! `kubectl aq drain jetstream`

use anyhow::Context as _;
use asyncqueue_runtime::settings::NatsSettings;
use clap::Args;

use self::source::StreamSource;
use super::{Common, destination::StreamId, identity::SourceId, transfer::Transfer, transfer_loop};
use crate::session::{self, Session};

mod consumer;
mod source;

/// Moves the messages of a JetStream stream that another OpenFaaS gateway publishes to, to
/// AsyncQueue
///
/// For the streams of OpenFaaS Pro (OF_… since its gateway 0.5, otherwise the name of the queue).
/// Stop the queue-worker first. The drain uses the consumer of the queue-worker, and so receives
/// the messages that the queue-worker has not acknowledged. Each message is stored by AsyncQueue
/// before it is acknowledged in the stream.
///
/// A message that is not a valid call becomes a dead letter of the queue (--queue, otherwise
/// --default-queue). A message that can be neither a call nor a dead letter stays in the stream;
/// the log contains the reason.
///
/// An interrupted drain can be run again at any time, and stores no message twice. If it was killed
/// while it stored a message, and runs again only after the duplicate window of the queue, that
/// call may have run: it becomes a dead letter. Check such dead letters and replay them.
///
/// Exit codes: 0 when the consumer has no message left (with --follow: after SIGINT or SIGTERM), 1
/// after an error or if messages are left, 2 for an invalid command line.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kubectl aq drain jetstream --stream OF_slow-queue --source-url nats://nats.openfaas:4222
  kubectl aq drain jetstream --stream slow-queue --consumer slow-queue-workers --queue slow")]
pub(crate) struct JetstreamArgs {
    /// Name of the stream
    #[arg(long, env = "source_stream")]
    stream: String,

    /// Consumer of the queue-worker. Default: the only consumer of the stream; if it has none, a
    /// consumer asyncqueue-drain is created
    #[arg(long, env = "source_consumer")]
    consumer: Option<String>,

    /// The NATS server of the stream: `nats://host:4222`, `nats://user:password@host` or
    /// `nats://token@host`. Default: the server of AsyncQueue
    #[arg(long, env = "source_url", hide_env_values = true)]
    source_url: Option<String>,

    #[command(flatten)]
    pub(super) common: Common,
}

pub(super) async fn run(session: &Session, arguments: &JetstreamArgs) -> anyhow::Result<()> {
    let JetstreamArgs { stream, consumer, source_url, common } = arguments;
    let js = match source_url {
        Some(url) => {
            let settings = NatsSettings::from_url(url);
            let client = session::connect(&settings, "--source-url").await;
            session::jetstream(
                client.context("failed to connect to the NATS server of the stream")?,
            )
        }
        None => session.js.clone(),
    };
    let found = js.get_stream(stream).await;
    let stream =
        found.with_context(|| format!("failed to open stream `{stream}`: check --stream"))?;
    let info = stream.cached_info();
    let (name, created) =
        (info.config.name.as_str(), info.created.unix_timestamp_nanos().to_string());
    let source_id = SourceId::new("jetstream", &[name, &created], name);
    let source = StreamId::from_info(info);
    let transfer = Transfer::open(session, common, source_id.clone(), Some(source)).await?;
    let consumer = consumer::open(&stream, consumer.as_deref()).await?;
    let source = StreamSource::open(consumer, source_id, common.max_inflight).await?;
    transfer_loop::run(source, &transfer, common).await
}
