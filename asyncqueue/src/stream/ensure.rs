//! Brings a queue's streams (calls, callbacks, dead letters), its durable consumers and the shared
//! buckets to their desired state.
//!
//! Reads the current state, lets [`crate::stream`] decide, and carries that out. Every step is
//! idempotent, so two programs that do this at the same time end with the same queue.

use async_nats::jetstream::{
    Context, ErrorCode, consumer,
    context::CreateStreamError,
    stream::{Config, Info, Stream},
};
use jiff::Timestamp;

use super::{
    plan::{Adopt, Plan, PlanError, is_owner, plan_stream},
    sequence::{ClockError, has_unique_sequences, with_first_sequence},
    spec::{META_RELEASED, META_RELEASED_TO, QueueSpec},
};
use crate::{
    buckets,
    jetstream::find_stream,
    kv::{BucketError, api_error},
};

pub(crate) mod consumers;

/// Maximum number of attempts to create a stream that others create or delete at the same time.
const MAX_CREATE_ATTEMPTS: usize = 5;

/// A queue that is in its desired state.
#[derive(Debug)]
pub struct QueueState {
    /// The stream of calls.
    pub stream: Stream<()>,
    /// The server's information about the stream of calls.
    pub info: Info,
    /// The server's information about the consumer of calls.
    pub consumer: consumer::Info,
    /// Number of dead letters, whether dead letters are kept now or were kept before.
    pub dead_letters: u64,
    /// The streams whose sequences begin at 1, because an earlier version created them: see
    /// [`has_unique_sequences`].
    pub repeating: Vec<String>,
    /// What was created or changed, in words. Empty if nothing differed.
    pub changes: Vec<String>,
}

/// A queue could not be brought to its desired state.
#[derive(Debug, thiserror::Error)]
pub enum EnsureError {
    /// The stream is not wanted, or can't be changed. A repeat does not help.
    #[error(transparent)]
    Refused(#[from] PlanError),
    /// Another stream has the subjects already.
    #[error(
        "subject `{subject}` overlaps with those of another stream: give this queue another \
         spec.stream.subject"
    )]
    SubjectOverlap {
        /// The queue's subject.
        subject: String,
    },
    /// The server refused the request; `source` is its answer.
    #[error("NATS refused {what}: {source}")]
    Server {
        /// The request.
        what: String,
        /// The server's answer.
        source: async_nats::jetstream::Error,
    },
    /// The clock of this machine does not allow a stream to be created.
    #[error(transparent)]
    Clock(#[from] ClockError),
    /// The streams are in their desired state, but a consumer could not be brought to its desired
    /// state.
    #[error(transparent)]
    Consumer(Box<Self>),
    /// No answer: NATS is unavailable, or `JetStream` has no leader now. A repeat helps.
    #[error("NATS did not answer {what}")]
    Unavailable {
        /// The request.
        what: String,
        /// How the request failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl From<BucketError> for EnsureError {
    fn from(error: BucketError) -> Self {
        match api_error(&error) {
            Some(source) => Self::Server { what: error.to_string(), source },
            None => unavailable("for a KV bucket", error),
        }
    }
}

/// What was done with a stream whose owner is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// The stream did not exist, or belonged to another owner.
    NotOwned,
    /// The stream was deleted.
    Deleted,
    /// The stream was kept. The next queue with the namespace and name of its owner may take it
    /// over.
    Released {
        /// Number of messages in the stream.
        messages: u64,
    },
}

/// When a stream whose owner is deleted is deleted too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemovalPolicy {
    /// Never.
    Retain,
    /// Always, with the messages in it.
    Delete,
    /// If it holds no message.
    DeleteIfEmpty,
}

/// Ensures the streams and consumers of a queue.
pub async fn ensure_queue(
    js: &Context,
    spec: &QueueSpec,
    adopt: impl Into<Adopt>,
) -> Result<QueueState, EnsureError> {
    // Boxed, here and below: the future is large, and most callers run it once.
    Box::pin(ensure_for_workers(js, spec, adopt.into())).await
}

/// Ensures the streams of a queue, for a producer without an operator. Creates a consumer if its
/// stream has none. An existing consumer is not changed: the workers set its lease. Returns what
/// was created or changed, in words.
pub async fn ensure_streams(
    js: &Context,
    spec: &QueueSpec,
    adopt: impl Into<Adopt>,
) -> Result<Vec<String>, EnsureError> {
    Box::pin(ensure_for_producer(js, spec, adopt.into())).await
}

async fn ensure_for_workers(
    js: &Context,
    spec: &QueueSpec,
    adopt: Adopt,
) -> Result<QueueState, EnsureError> {
    let mut changes = Vec::new();
    let planned = plan_all(js, spec, adopt).await?;
    // A consumer is created right after its stream: for a stream without one, KEDA takes the last
    // sequence as its depth. A consumer that can't be ensured does not prevent the other streams.
    let calls = apply_plan(js, planned.calls, &mut changes).await?;
    let stream = stream_handle(js, &calls).await?;
    let consumer = consumers::ensure(&stream, &spec.consumer_config(), &mut changes).await;
    let callbacks = apply_plan(js, planned.callbacks, &mut changes).await?;
    let of_callbacks = stream_handle(js, &callbacks).await?;
    let callback_consumer =
        consumers::ensure(&of_callbacks, &spec.callback_consumer_config(), &mut changes).await;
    let dead_letters = apply_dead_letter_plan(js, spec, planned.dead_letters, &mut changes).await?;

    let of_consumer = |error| EnsureError::Consumer(Box::new(error));
    let consumer = consumer.map_err(of_consumer)?;
    callback_consumer.map_err(of_consumer)?;
    let all = [Some(&calls), Some(&callbacks), dead_letters.as_ref()];
    let repeating = all.into_iter().flatten().filter(|info| !has_unique_sequences(&info.state));
    Ok(QueueState {
        stream,
        consumer,
        dead_letters: dead_letters.as_ref().map_or(0, |info| info.state.messages),
        repeating: repeating.map(|info| info.config.name.clone()).collect(),
        info: calls,
        changes,
    })
}

async fn ensure_for_producer(
    js: &Context,
    spec: &QueueSpec,
    adopt: Adopt,
) -> Result<Vec<String>, EnsureError> {
    let mut changes = Vec::new();
    let planned = plan_all(js, spec, adopt).await?;
    for (planned, consumer) in [
        (planned.calls, spec.consumer_config()),
        (planned.callbacks, spec.callback_consumer_config()),
    ] {
        let info = apply_plan(js, planned, &mut changes).await?;
        if info.state.consumer_count == 0 {
            consumers::create_first(&stream_handle(js, &info).await?, &consumer, &mut changes)
                .await?;
        }
    }
    apply_dead_letter_plan(js, spec, planned.dead_letters, &mut changes).await?;
    Ok(changes)
}

/// Ensures the buckets that the workers of all queues share, with at least `replicas` replicas.
pub async fn ensure_buckets(js: &Context, replicas: usize) -> Result<(), BucketError> {
    for bucket in buckets::OF_WORKERS {
        bucket.ensure(js, replicas).await?;
    }
    Ok(())
}

/// Deletes or releases the streams of a queue, as the policy says, if their owner is the one in
/// `spec`. Removes a durable consumer only with its stream.
pub async fn remove_queue(
    js: &Context,
    spec: &QueueSpec,
    policy: RemovalPolicy,
) -> Result<Removal, EnsureError> {
    let successors = &spec.release_to;
    let removal = remove_stream(js, &spec.stream_config(), policy, successors).await?;
    // An empty stream of results or dead letters is useless. One with messages is needed, often
    // after the queue was deleted.
    let auxiliary_policy =
        if policy == RemovalPolicy::Delete { policy } else { RemovalPolicy::DeleteIfEmpty };
    remove_stream(js, &spec.callback_config(), auxiliary_policy, successors).await?;
    remove_stream(js, &spec.dead_letter_config(), auxiliary_policy, successors).await?;
    let results_policy = policy_of_results(policy, removal);
    remove_stream(js, &spec.results_config(), results_policy, successors).await?;
    Ok(removal)
}

/// Returns what follows for the results that are kept for clients. They are disposable: they stay
/// only with the calls.
fn policy_of_results(policy: RemovalPolicy, removal: Removal) -> RemovalPolicy {
    match (policy, removal) {
        (RemovalPolicy::Retain, _) | (_, Removal::Released { .. }) => RemovalPolicy::Retain,
        (RemovalPolicy::Delete | RemovalPolicy::DeleteIfEmpty, _) => RemovalPolicy::Delete,
    }
}

/// The plan for the streams of a queue.
struct AllPlanned {
    calls: Planned,
    callbacks: Planned,
    dead_letters: Planned,
}

/// A stream as it is, and the plan for it.
struct Planned {
    wanted: Config,
    existing: Option<Info>,
    plan: Plan<Config>,
    adopt: Adopt,
}

/// Plans all streams before the first is changed: a queue that may not have one of them changes
/// none.
async fn plan_all(js: &Context, spec: &QueueSpec, adopt: Adopt) -> Result<AllPlanned, EnsureError> {
    Ok(AllPlanned {
        calls: plan(js, spec.stream_config(), adopt).await?,
        callbacks: plan(js, spec.callback_config(), adopt).await?,
        dead_letters: plan(js, spec.dead_letter_config(), adopt).await?,
    })
}

async fn plan(js: &Context, wanted: Config, adopt: Adopt) -> Result<Planned, EnsureError> {
    let existing = stream_info(js, &wanted.name).await?;
    match plan_stream(existing.as_ref().map(|info| &info.config), &wanted, adopt) {
        Plan::Refuse(error) => Err(error.into()),
        plan => Ok(Planned { wanted, existing, plan, adopt }),
    }
}

/// Ensures the stream of dead letters, if they are kept now or were kept before.
async fn apply_dead_letter_plan(
    js: &Context,
    spec: &QueueSpec,
    planned: Planned,
    changes: &mut Vec<String>,
) -> Result<Option<Info>, EnsureError> {
    if !spec.dead_letters.enabled && planned.existing.is_none() {
        return Ok(None);
    }
    apply_plan(js, planned, changes).await.map(Some)
}

async fn apply_plan(
    js: &Context,
    mut planned: Planned,
    changes: &mut Vec<String>,
) -> Result<Info, EnsureError> {
    for _ in 0..MAX_CREATE_ATTEMPTS {
        let Planned { wanted, existing, adopt, .. } = planned;
        let name = &wanted.name;
        match (planned.plan, existing) {
            (Plan::Keep, Some(info)) => return Ok(info),
            (Plan::Refuse(error), _) => return Err(error.into()),
            (Plan::Update(config), _) => {
                let info = js.update_stream(config).await.map_err(|e| update_error(&wanted, e))?;
                changes.push(format!("updated stream {name}"));
                return Ok(info);
            }
            (Plan::Create(_) | Plan::Keep, _) => {
                if let Some(info) = create(js, &wanted).await? {
                    changes.push(format!("created stream {name}"));
                    return Ok(info);
                }
            }
        }
        planned = plan(js, wanted, adopt).await?;
    }
    let what = format!("to create stream {}", planned.wanted.name);
    Err(unavailable(&what, "other programs create and delete it at the same time"))
}

/// Creates a stream. `None` if another program has just created it, with another first sequence.
async fn create(js: &Context, wanted: &Config) -> Result<Option<Info>, EnsureError> {
    let config = with_first_sequence(wanted, Timestamp::now())?;
    match js.create_stream(config).await {
        Ok(stream) => Ok(Some(stream.cached_info().clone())),
        Err(error) if is_name_taken(&error) => Ok(None),
        Err(error) => Err(update_error(wanted, error)),
    }
}

async fn stream_handle(js: &Context, info: &Info) -> Result<Stream<()>, EnsureError> {
    let name = &info.config.name;
    js.get_stream_no_info(name).await.map_err(|e| unavailable(&format!("for stream {name}"), e))
}

async fn remove_stream(
    js: &Context,
    wanted: &Config,
    policy: RemovalPolicy,
    successors: &[String],
) -> Result<Removal, EnsureError> {
    let name = &wanted.name;
    let Some(info) = stream_info(js, name).await? else { return Ok(Removal::NotOwned) };
    if !is_owner(&info.config, wanted) {
        return Ok(Removal::NotOwned);
    }
    let messages = match policy {
        RemovalPolicy::DeleteIfEmpty if info.state.messages == 0 => {
            detach_subjects(js, wanted, &info.config).await?
        }
        _ => info.state.messages,
    };
    if policy == RemovalPolicy::Delete || (policy == RemovalPolicy::DeleteIfEmpty && messages == 0)
    {
        js.delete_stream(name)
            .await
            .map_err(|e| unavailable(&format!("to delete stream {name}"), e))?;
        return Ok(Removal::Deleted);
    }
    let mut released = info.config;
    released.metadata.insert(META_RELEASED.to_owned(), "true".to_owned());
    if !successors.is_empty() {
        released.metadata.insert(META_RELEASED_TO.to_owned(), successors.join(","));
    }
    js.update_stream(released).await.map_err(|e| update_error(wanted, e))?;
    Ok(Removal::Released { messages })
}

/// Removes the stream from its subjects and returns how many messages it then holds. Without this,
/// a call that is stored between the last check of the stream and its deletion would be lost, after
/// its 202.
async fn detach_subjects(
    js: &Context,
    wanted: &Config,
    existing: &Config,
) -> Result<u64, EnsureError> {
    let subjects = vec![format!("asyncqueue.closed.{}", wanted.name)];
    let closed = Config { subjects, ..existing.clone() };
    js.update_stream(closed).await.map_err(|e| update_error(wanted, e))?;
    Ok(stream_info(js, &wanted.name).await?.map_or(0, |info| info.state.messages))
}

/// Returns the server's information about a stream; `None` if it does not exist.
async fn stream_info(js: &Context, name: &str) -> Result<Option<Info>, EnsureError> {
    let stream = find_stream(js, name).await;
    let stream = stream.map_err(|error| unavailable(&format!("for stream {name}"), error))?;
    Ok(stream.map(|stream| stream.cached_info().clone()))
}

/// Returns whether a stream of that name exists, with another configuration.
pub(crate) fn is_name_taken(error: &CreateStreamError) -> bool {
    use async_nats::jetstream::context::CreateStreamErrorKind as Kind;
    matches!(error.kind(), Kind::JetStream(e) if e.error_code() == ErrorCode::STREAM_NAME_EXIST)
}

/// Converts the error of a stream that could not be created or updated.
fn update_error(config: &Config, error: CreateStreamError) -> EnsureError {
    use async_nats::jetstream::context::CreateStreamErrorKind as Kind;
    match error.kind() {
        Kind::JetStream(source) if source.error_code() == ErrorCode::STREAM_SUBJECT_OVERLAP => {
            EnsureError::SubjectOverlap {
                subject: config.subjects.first().cloned().unwrap_or_default(),
            }
        }
        Kind::JetStream(source) => {
            EnsureError::Server { what: format!("stream {}", config.name), source }
        }
        _ => unavailable(&format!("for stream {}", config.name), error),
    }
}

fn unavailable(
    what: &str,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> EnsureError {
    EnsureError::Unavailable { what: what.to_owned(), source: source.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_deleted_unless_the_calls_stay() {
        use RemovalPolicy::{Delete, DeleteIfEmpty, Retain};
        let released = Removal::Released { messages: 1 };
        for (policy, removal, expected) in [
            (Retain, released, Retain),
            (Retain, Removal::NotOwned, Retain),
            (Delete, Removal::Deleted, Delete),
            (DeleteIfEmpty, Removal::Deleted, Delete),
            (DeleteIfEmpty, released, Retain),
            (DeleteIfEmpty, Removal::NotOwned, Delete),
        ] {
            assert_eq!(policy_of_results(policy, removal), expected, "{policy:?} {removal:?}");
        }
    }
}
