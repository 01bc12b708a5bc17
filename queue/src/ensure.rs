//! Brings a queue's streams (calls, callbacks, dead letters), durable consumers and the buckets beside them to what
//! they shall be.
//!
//! Reads what is there, lets [`crate::stream`] decide, and carries that out. Every step is idempotent, so two
//! programs that do it at once end with the same queue.

use async_nats::jetstream::{
    Context, ErrorCode,
    consumer::{self, FromConsumer, pull},
    context::{ConsumerInfoErrorKind, CreateStreamError, GetStreamError, GetStreamErrorKind},
    stream::{Config, ConsumerError, ConsumerErrorKind, Info, Stream},
};

use crate::{
    bucket::BucketError,
    error::cause,
    stream::{META_RELEASED, Plan, QueueSpec, Refusal, is_owner, plan_consumer, plan_stream},
    tombstone, uncounted,
};

/// A queue that is as it shall be.
#[derive(Debug)]
pub struct Ensured {
    /// The stream of calls.
    pub stream: Stream<()>,
    /// What the server says of it.
    pub info: Info,
    /// What the server says of the consumer of calls.
    pub consumer: consumer::Info,
    /// How many dead letters there are, kept now or before.
    pub dead_letters: u64,
    /// What was created or changed, in words; empty where all was as it should be.
    pub changes: Vec<String>,
}

/// Why a queue could not be brought to what it shall be.
#[derive(Debug, thiserror::Error)]
pub enum EnsureError {
    /// It is not ours, or can't be changed: trying again does not help.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The stream's subjects are another stream's already.
    #[error(
        "subject `{subject}` overlaps with those of another stream: give this queue another spec.stream.subject"
    )]
    SubjectOverlap {
        /// The queue's subject.
        subject: String,
    },
    /// The server refused: the words are its own.
    #[error("NATS refused {what}: {source}")]
    Server {
        /// What was asked of it.
        what: String,
        /// Its answer.
        source: async_nats::jetstream::Error,
    },
    /// The streams are as they shall be, and a consumer could not be brought to it.
    #[error(transparent)]
    Consumer(Box<Self>),
    /// No answer: NATS is away, or `JetStream` has no leader now. Trying again helps.
    #[error("NATS did not answer {what}")]
    Unavailable {
        /// What was asked of it.
        what: String,
        /// How it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// What was done with a stream whose owner goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// There was none, or it was another's.
    NotOurs,
    /// It is gone.
    Deleted,
    /// It was kept, and the next claimant may take it over.
    Released {
        /// How many messages it holds.
        messages: u64,
    },
}

/// When a stream whose owner goes is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemovalPolicy {
    /// Never.
    Retain,
    /// Always, with the messages that it holds.
    Delete,
    /// If it holds no message.
    DeleteIfEmpty,
}

/// Ensures the streams and consumers of a queue.
pub async fn ensure(js: &Context, spec: &QueueSpec, adopt: bool) -> Result<Ensured, EnsureError> {
    let mut changes = Vec::new();
    let streams = Box::pin(streams(js, spec, adopt, &mut changes)).await?;
    let consumers = async {
        let (stream, callbacks) = (handle(js, &streams.calls).await?, handle(js, &streams.callbacks).await?);
        let consumer = ensure_consumer(&stream, &spec.consumer_config(), &mut changes).await?;
        ensure_consumer(&callbacks, &spec.callback_consumer_config(), &mut changes).await?;
        Ok((stream, consumer))
    };
    let (stream, consumer) = consumers.await.map_err(|error| EnsureError::Consumer(Box::new(error)))?;
    let dead_letters = streams.dead_letters.map_or(0, |info| info.state.messages);
    Ok(Ensured { stream, info: streams.calls, consumer, dead_letters, changes })
}

/// Ensures the streams of a queue and leaves its consumers alone, whose lease is the workers' to set: for a
/// producer without an operator. Returns what was created or changed, in words.
pub async fn ensure_streams(js: &Context, spec: &QueueSpec, adopt: bool) -> Result<Vec<String>, EnsureError> {
    let mut changes = Vec::new();
    Box::pin(streams(js, spec, adopt, &mut changes)).await?;
    Ok(changes)
}

/// Ensures the buckets that the workers of all queues share. `replicas` is for new ones.
pub async fn ensure_buckets(js: &Context, replicas: usize) -> Result<(), BucketError> {
    for bucket in [tombstone::BUCKET, uncounted::BUCKET] {
        bucket.ensure(js, replicas).await?;
    }
    Ok(())
}

/// Lets go of a queue: its streams, as the policy says, if they carry `spec`'s owner. Removes the durable consumer
/// only with its stream.
pub async fn remove(js: &Context, spec: &QueueSpec, policy: RemovalPolicy) -> Result<Removal, EnsureError> {
    let removal = remove_stream(js, &spec.stream_config(), policy).await?;
    // An empty stream beside it helps nobody; results and dead letters do, often when the queue is gone already.
    let beside = if policy == RemovalPolicy::Delete { policy } else { RemovalPolicy::DeleteIfEmpty };
    remove_stream(js, &spec.callback_config(), beside).await?;
    remove_stream(js, &spec.dead_letter_config(), beside).await?;
    Ok(removal)
}

/// What the server says of a queue's streams, all being as they shall be.
struct Streams {
    calls: Info,
    callbacks: Info,
    /// `None` where none are kept, now or before.
    dead_letters: Option<Info>,
}

/// A stream as it is, and what to do about it.
struct Planned {
    wanted: Config,
    existing: Option<Info>,
    plan: Plan<Config>,
}

async fn streams(
    js: &Context,
    spec: &QueueSpec,
    adopt: bool,
    changes: &mut Vec<String>,
) -> Result<Streams, EnsureError> {
    // All are looked at before the first is touched: a queue that may not have one of them disturbs none.
    let calls = plan(js, spec.stream_config(), adopt).await?;
    let callbacks = plan(js, spec.callback_config(), adopt).await?;
    let dead_letters = plan(js, spec.dead_letter_config(), adopt).await?;
    let keeps_dead_letters = spec.dead_letters.enabled || dead_letters.existing.is_some();
    Ok(Streams {
        calls: carry_out(js, calls, changes).await?,
        callbacks: carry_out(js, callbacks, changes).await?,
        dead_letters: if keeps_dead_letters {
            Some(carry_out(js, dead_letters, changes).await?)
        } else {
            None
        },
    })
}

async fn plan(js: &Context, wanted: Config, adopt: bool) -> Result<Planned, EnsureError> {
    let existing = stream_info(js, &wanted.name).await?;
    match plan_stream(existing.as_ref().map(|info| &info.config), &wanted, adopt) {
        Plan::Refuse(refusal) => Err(refusal.into()),
        plan => Ok(Planned { wanted, existing, plan }),
    }
}

async fn carry_out(js: &Context, planned: Planned, changes: &mut Vec<String>) -> Result<Info, EnsureError> {
    let Planned { wanted, existing, plan } = planned;
    let name = &wanted.name;
    match (plan, existing) {
        (Plan::Keep, Some(info)) => Ok(info),
        (Plan::Refuse(refusal), _) => Err(refusal.into()),
        (Plan::Update(config), _) => {
            let info = js.update_stream(config).await.map_err(|e| refused(&wanted, e))?;
            changes.push(format!("updated stream {name}"));
            Ok(info)
        }
        (Plan::Create(_) | Plan::Keep, _) => {
            let stream = js.create_stream(wanted.clone()).await.map_err(|e| refused(&wanted, e))?;
            changes.push(format!("created stream {name}"));
            Ok(stream.cached_info().clone())
        }
    }
}

async fn handle(js: &Context, info: &Info) -> Result<Stream<()>, EnsureError> {
    let name = &info.config.name;
    js.get_stream_no_info(name).await.map_err(|e| unavailable(&format!("for stream {name}"), e))
}

async fn ensure_consumer(
    stream: &Stream<()>,
    wanted: &pull::Config,
    changes: &mut Vec<String>,
) -> Result<consumer::Info, EnsureError> {
    let name = wanted.durable_name.as_deref().unwrap_or_default();
    let what = format!("for consumer {name}");
    let existing = match stream.consumer_info(name).await {
        Ok(info) => Some(info),
        Err(error) if error.kind() == ConsumerInfoErrorKind::NotFound => None,
        Err(error) => return Err(unavailable(&what, error)),
    };
    let config = existing.as_ref().map(|info| pull::Config::try_from_consumer_config(info.config.clone()));
    let config = config.transpose().map_err(|e| unavailable(&what, e))?;
    let (config, change) = match (plan_consumer(config.as_ref(), wanted), existing) {
        (Plan::Keep, Some(info)) => return pause(stream, info, wanted, changes).await,
        (Plan::Refuse(refusal), _) => return Err(refusal.into()),
        (Plan::Update(config), _) => (config, "updated"),
        (Plan::Create(_) | Plan::Keep, _) => (wanted.clone(), "created"),
    };
    let consumer = stream.create_consumer(config).await.map_err(|error| refused_consumer(&what, error))?;
    changes.push(format!("{change} consumer {name}"));
    pause(stream, consumer.cached_info().clone(), wanted, changes).await
}

/// Pauses or resumes a consumer, if it is not as it shall be.
async fn pause(
    stream: &Stream<()>,
    mut info: consumer::Info,
    wanted: &pull::Config,
    changes: &mut Vec<String>,
) -> Result<consumer::Info, EnsureError> {
    if info.config.pause_until == wanted.pause_until {
        return Ok(info);
    }
    let name = &info.name;
    let (change, answer) = match wanted.pause_until {
        Some(until) => ("paused", stream.pause_consumer(name, until).await),
        None => ("resumed", stream.resume_consumer(name).await),
    };
    let what = format!("to have consumer {name} {change}, which nats-server can since 2.11");
    info.paused = answer.map_err(|error| refused_consumer(&what, error))?.paused;
    changes.push(format!("{change} consumer {name}"));
    Ok(info)
}

async fn remove_stream(js: &Context, ours: &Config, policy: RemovalPolicy) -> Result<Removal, EnsureError> {
    let name = &ours.name;
    let Some(info) = stream_info(js, name).await? else { return Ok(Removal::NotOurs) };
    if !is_owner(&info.config, ours) {
        return Ok(Removal::NotOurs);
    }
    let messages = match policy {
        RemovalPolicy::DeleteIfEmpty if info.state.messages == 0 => close(js, ours, &info.config).await?,
        _ => info.state.messages,
    };
    if policy == RemovalPolicy::Delete || (policy == RemovalPolicy::DeleteIfEmpty && messages == 0) {
        js.delete_stream(name).await.map_err(|e| unavailable(&format!("to delete stream {name}"), e))?;
        return Ok(Removal::Deleted);
    }
    let mut released = info.config;
    released.metadata.insert(META_RELEASED.to_owned(), "true".to_owned());
    js.update_stream(released).await.map_err(|e| refused(ours, e))?;
    Ok(Removal::Released { messages })
}

/// Takes a stream off its subjects and returns how many messages it holds then. Without this, a call that is
/// stored between the last look at the stream and its deletion would be lost, after its 202.
async fn close(js: &Context, ours: &Config, existing: &Config) -> Result<u64, EnsureError> {
    let subjects = vec![format!("asyncqueue.closed.{}", ours.name)];
    let closed = Config { subjects, ..existing.clone() };
    js.update_stream(closed).await.map_err(|e| refused(ours, e))?;
    Ok(stream_info(js, &ours.name).await?.map_or(0, |info| info.state.messages))
}

/// What the server says of a stream; `None` where there is none.
async fn stream_info(js: &Context, name: &str) -> Result<Option<Info>, EnsureError> {
    match js.get_stream(name).await {
        Ok(stream) => Ok(Some(stream.cached_info().clone())),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(unavailable(&format!("for stream {name}"), error)),
    }
}

fn is_missing(error: &GetStreamError) -> bool {
    matches!(error.kind(), GetStreamErrorKind::JetStream(e) if e.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

/// The server's own answer, if that is what caused an error.
pub fn server_error<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> Option<&'a async_nats::jetstream::Error> {
    cause(error)
}

/// Why a consumer could not be created, updated or paused.
fn refused_consumer(what: &str, error: ConsumerError) -> EnsureError {
    match error.kind() {
        ConsumerErrorKind::JetStream(source) => EnsureError::Server { what: what.to_owned(), source },
        _ => unavailable(what, error),
    }
}

/// Why a stream could not be created or updated.
fn refused(config: &Config, error: CreateStreamError) -> EnsureError {
    use async_nats::jetstream::context::CreateStreamErrorKind as Kind;
    match error.kind() {
        Kind::JetStream(source) if source.error_code() == ErrorCode::STREAM_SUBJECT_OVERLAP => {
            EnsureError::SubjectOverlap { subject: config.subjects.first().cloned().unwrap_or_default() }
        }
        Kind::JetStream(source) => EnsureError::Server { what: format!("stream {}", config.name), source },
        _ => unavailable(&format!("for stream {}", config.name), error),
    }
}

fn unavailable(what: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> EnsureError {
    EnsureError::Unavailable { what: what.to_owned(), source: source.into() }
}
