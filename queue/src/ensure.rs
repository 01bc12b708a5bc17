//! Brings a queue's streams (calls, callbacks, dead letters) and durable consumers to what they shall be.
//!
//! Reads what is there, lets [`crate::stream`] decide, and carries that out. Every step is idempotent, so two
//! programs that do it at once end with the same queue.

use async_nats::jetstream::{
    Context, ErrorCode,
    consumer::{FromConsumer, pull},
    context::{CreateStreamError, GetStreamError, GetStreamErrorKind, UpdateStreamError},
    stream::{Config, ConsumerErrorKind, Info, Stream},
};

use crate::stream::{META_RELEASED, Plan, QueueSpec, Refusal, plan_consumer, plan_stream};

/// A queue that is as it shall be.
#[derive(Debug)]
pub struct Ensured {
    /// The stream of calls.
    pub stream: Stream<()>,
    /// What the server says of it.
    pub info: Info,
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
    let stream = ensure_stream(js, &spec.stream_config(), adopt, &mut changes).await?;
    let callbacks = ensure_stream(js, &spec.callback_config(), adopt, &mut changes).await?;
    ensure_stream(js, &spec.dead_letter_config(), adopt, &mut changes).await?;
    ensure_consumer(&stream, &spec.consumer_config(), &mut changes).await?;
    ensure_consumer(&callbacks, &spec.callback_consumer_config(), &mut changes).await?;
    let info = stream.get_info().await.map_err(|e| unavailable("for the state of the stream", e))?;
    Ok(Ensured { stream, info, changes })
}

/// Ensures the streams of a queue and leaves its consumers alone, whose lease is the workers' to set: for a
/// producer without an operator. Returns what was created or changed, in words.
pub async fn ensure_streams(js: &Context, spec: &QueueSpec, adopt: bool) -> Result<Vec<String>, EnsureError> {
    let mut changes = Vec::new();
    for config in [spec.stream_config(), spec.callback_config(), spec.dead_letter_config()] {
        ensure_stream(js, &config, adopt, &mut changes).await?;
    }
    Ok(changes)
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

async fn ensure_stream(
    js: &Context,
    wanted: &Config,
    adopt: bool,
    changes: &mut Vec<String>,
) -> Result<Stream<()>, EnsureError> {
    let name = &wanted.name;
    let existing = stream_config(js, name).await?;
    match plan_stream(existing.as_ref(), wanted, adopt) {
        Plan::Keep => {}
        Plan::Create(config) => {
            js.create_stream(config).await.map_err(|e| create_error(wanted, e))?;
            changes.push(format!("created stream {name}"));
        }
        Plan::Update(config) => {
            js.update_stream(config).await.map_err(|e| update_error(wanted, e))?;
            changes.push(format!("updated stream {name}"));
        }
        Plan::Refuse(refusal) => return Err(refusal.into()),
    }
    js.get_stream_no_info(name).await.map_err(|e| unavailable(&format!("for stream {name}"), e))
}

async fn ensure_consumer(
    stream: &Stream<()>,
    wanted: &pull::Config,
    changes: &mut Vec<String>,
) -> Result<(), EnsureError> {
    let name = wanted.durable_name.as_deref().unwrap_or_default();
    let what = format!("for consumer {name}");
    let existing = match stream.consumer_info(name).await {
        Ok(info) => {
            Some(pull::Config::try_from_consumer_config(info.config).map_err(|e| unavailable(&what, e))?)
        }
        Err(error) if is_code(&error, ErrorCode::CONSUMER_NOT_FOUND) => None,
        Err(error) => return Err(unavailable(&what, error)),
    };
    let (config, change) = match plan_consumer(existing.as_ref(), wanted) {
        Plan::Keep => return Ok(()),
        Plan::Create(config) => (config, "created"),
        Plan::Update(config) => (config, "updated"),
        Plan::Refuse(refusal) => return Err(refusal.into()),
    };
    stream.create_consumer(config).await.map_err(|error| match error.kind() {
        ConsumerErrorKind::JetStream(source) => EnsureError::Server { what: what.clone(), source },
        _ => unavailable(&what, error),
    })?;
    changes.push(format!("{change} consumer {name}"));
    Ok(())
}

async fn remove_stream(js: &Context, ours: &Config, policy: RemovalPolicy) -> Result<Removal, EnsureError> {
    let name = &ours.name;
    let what = format!("for the removal of stream {name}");
    let Some(existing) = stream_config(js, name).await? else { return Ok(Removal::NotOurs) };
    if matches!(plan_stream(Some(&existing), ours, false), Plan::Refuse(refusal) if !matches!(refusal, Refusal::Immutable { .. }))
    {
        return Ok(Removal::NotOurs);
    }
    let stream = js.get_stream(name).await.map_err(|e| unavailable(&what, e))?;
    let messages = stream.cached_info().state.messages;
    if policy == RemovalPolicy::Delete || (policy == RemovalPolicy::DeleteIfEmpty && messages == 0) {
        js.delete_stream(name).await.map_err(|e| unavailable(&what, e))?;
        return Ok(Removal::Deleted);
    }
    let mut released = existing;
    released.metadata.insert(META_RELEASED.to_owned(), "true".to_owned());
    js.update_stream(released).await.map_err(|e| update_error(ours, e))?;
    Ok(Removal::Released { messages })
}

/// The configuration of a stream; `None` where there is none.
async fn stream_config(js: &Context, name: &str) -> Result<Option<Config>, EnsureError> {
    match js.get_stream(name).await {
        Ok(stream) => Ok(Some(stream.cached_info().config.clone())),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(unavailable(&format!("for stream {name}"), error)),
    }
}

fn is_missing(error: &GetStreamError) -> bool {
    matches!(error.kind(), GetStreamErrorKind::JetStream(e) if e.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

/// Whether an error, or what caused it, is the server's answer with this code.
pub fn is_code(error: &(dyn std::error::Error + 'static), code: ErrorCode) -> bool {
    server_error(error).is_some_and(|e| e.error_code() == code)
}

/// The server's own answer, if that is what caused an error.
pub fn server_error<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> Option<&'a async_nats::jetstream::Error> {
    let mut next = Some(error);
    while let Some(current) = next {
        if let Some(found) = current.downcast_ref() {
            return Some(found);
        }
        next = current.source();
    }
    None
}

fn create_error(config: &Config, error: CreateStreamError) -> EnsureError {
    use async_nats::jetstream::context::CreateStreamErrorKind as Kind;
    match error.kind() {
        Kind::JetStream(source) => server_refused(config, source),
        _ => unavailable(&format!("to create stream {}", config.name), error),
    }
}

fn update_error(config: &Config, error: UpdateStreamError) -> EnsureError {
    create_error(config, error)
}

fn server_refused(config: &Config, source: async_nats::jetstream::Error) -> EnsureError {
    if source.error_code() == ErrorCode::STREAM_SUBJECT_OVERLAP {
        return EnsureError::SubjectOverlap { subject: config.subjects.first().cloned().unwrap_or_default() };
    }
    EnsureError::Server { what: format!("stream {}", config.name), source }
}

fn unavailable(what: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> EnsureError {
    EnsureError::Unavailable { what: what.to_owned(), source: source.into() }
}
