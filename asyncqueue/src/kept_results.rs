//! The results that are kept for clients: one stream for each queue that keeps any,
//! `<queue>-results`.
//!
//! Results are disposable: the oldest are dropped when the stream is full, and a call ends whether
//! its result could be kept or not. The stream is created with the first result. Each result has
//! the subject of its call, so the first one of a call is kept, and every other one is refused. The
//! server publishes each stored result again below [`done_subject`], for clients that wait for it.

use std::time::Duration;

use async_nats::{
    header::{NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_MESSAGE_TTL},
    jetstream::{
        Context,
        message::PublishMessage,
        stream::{Config, DiscardPolicy, Republish, RetentionPolicy},
    },
};
use bytes::Bytes;
use jiff::Timestamp;
use tokio::{sync::Mutex, time::timeout};

use crate::{
    call::{CallQuery, CallRef},
    call_id::CallId,
    directory::ResultsSettings,
    end_state::EndState,
    jetstream::{NatsError, find_stream, last_message},
    message::kept_result::{KeptForm, KeptResult, is_marker},
    names::{FunctionName, QueueName},
    publish_failure::PublishFailure,
    raw_message::{RawMessage, last_raw_message},
    reserved_names::ROOT_SUBJECT,
    stream::{META_OWNER, is_name_taken},
    subject::{call_filter, kept_result_subject},
};

/// How long a result is kept for a client that waits for it and does not say how long to keep it.
pub const WAIT_RETENTION: Duration = Duration::from_secs(300);

/// How long it is known that a result was kept: until then, a client gets 410 and not 404.
const MARKER_TTL: Duration = Duration::from_secs(3600);

/// Maximum time to wait for the stream. Calls wait for it one after another, with their slots.
const ENSURE_TIMEOUT: Duration = Duration::from_secs(2);

const CREATE: &str = "create the stream of results";

/// The outcome of storing a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepOutcome {
    /// The result is stored.
    Kept,
    /// Another result of the call was stored before, with this end.
    HasEnd(EndState),
}

/// What is found of the result of a call.
#[derive(Debug)]
pub enum FoundResult {
    /// The result.
    Kept {
        /// The result itself.
        result: Box<KeptResult>,
        /// When it was stored.
        at: Timestamp,
    },
    /// It was kept, and is not any more.
    Gone {
        /// The sequence of the call on its queue's stream.
        sequence: u64,
        /// When that was recorded.
        at: Timestamp,
    },
}

/// The stream of results of a queue, as this program last saw it.
#[derive(Debug)]
pub struct ResultsStream {
    js: Context,
    queue: QueueName,
    /// Name of the queue's stream of calls.
    calls_stream: String,
    /// The settings with which the stream was last seen.
    ensured: Mutex<Option<ResultsSettings>>,
}

/// Returns the subject on which the results of a call are published as they are stored.
#[must_use]
pub fn done_subject(queue: &QueueName, function: &FunctionName, call_id: &CallId) -> String {
    let call = call_filter(&done_root(queue), Some(function), call_id);
    format!("{call}.*")
}

fn done_root(queue: &QueueName) -> String {
    format!("{ROOT_SUBJECT}.done.{queue}")
}

/// Returns the configuration of the stream of results, with what it has in common with the stream
/// of calls: storage, replicas and owner.
fn stream_config(queue: &QueueName, settings: &ResultsSettings, calls: &Config) -> Config {
    let name = queue.results_stream();
    Config {
        description: Some(format!("Results of the queue {queue} that are kept for clients")),
        subjects: vec![format!("{name}.>")],
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::Old,
        max_messages: settings.max_messages,
        max_bytes: settings.max_bytes.unwrap_or(-1),
        max_messages_per_subject: 1,
        max_message_size: -1,
        max_consumers: -1,
        storage: calls.storage,
        num_replicas: calls.num_replicas,
        allow_direct: true,
        allow_message_ttl: true,
        allow_rollup: true,
        subject_delete_marker_ttl: Some(MARKER_TTL),
        republish: Some(Republish {
            source: format!("{name}.>"),
            destination: format!("{}.>", done_root(queue)),
            headers_only: false,
        }),
        metadata: calls.metadata.clone(),
        name,
        ..Config::default()
    }
}

/// Returns whether a stream holds kept results, and not something else of that name.
fn is_results_stream(existing: &Config, wanted: &Config) -> bool {
    existing.subjects == wanted.subjects && existing.metadata.contains_key(META_OWNER)
}

/// Returns whether a stream differs in what this module sets.
fn differs(existing: &Config, wanted: &Config) -> bool {
    let limits = |config: &Config| {
        (config.max_messages, config.max_bytes, config.num_replicas, config.republish.clone())
    };
    limits(existing) != limits(wanted)
        || wanted.metadata.iter().any(|(key, value)| existing.metadata.get(key) != Some(value))
}

/// Creates the stream of results of a queue, or changes its limits.
pub async fn ensure_stream(
    js: &Context,
    queue: &QueueName,
    calls_stream: &str,
    settings: &ResultsSettings,
) -> Result<(), NatsError> {
    let refused = |why: String| NatsError::during(CREATE)(why);
    let info = async |name: &str| {
        let found = find_stream(js, name).await.map_err(NatsError::during(CREATE))?;
        Ok::<_, NatsError>(found.map(|stream| stream.cached_info().config.clone()))
    };
    let calls = info(calls_stream).await?;
    let calls = calls.ok_or_else(|| refused(format!("there is no stream {calls_stream}")))?;
    let wanted = stream_config(queue, settings, &calls);
    for _ in 0..2 {
        match info(&wanted.name).await? {
            Some(existing) if !is_results_stream(&existing, &wanted) => {
                let name = &wanted.name;
                let why = format!("stream {name} exists and is not of AsyncQueue: remove it");
                return Err(refused(why));
            }
            Some(existing) if !differs(&existing, &wanted) => return Ok(()),
            Some(existing) => {
                // What the server or a user has added stays.
                let mut metadata = existing.metadata.clone();
                metadata.extend(wanted.metadata.clone());
                let update = Config {
                    max_messages: wanted.max_messages,
                    max_bytes: wanted.max_bytes,
                    num_replicas: wanted.num_replicas,
                    republish: wanted.republish,
                    metadata,
                    ..existing
                };
                return js
                    .update_stream(update)
                    .await
                    .map(|_| ())
                    .map_err(NatsError::during(CREATE));
            }
            None => match js.create_stream(wanted.clone()).await {
                Ok(_) => return Ok(()),
                // Another program has just created it: the next round compares it.
                Err(error) if is_name_taken(&error) => {}
                Err(error) => return Err(NatsError::during(CREATE)(error)),
            },
        }
    }
    Ok(())
}

// === impl ResultsStream ===

impl ResultsStream {
    /// Creates a handle; the stream need not exist.
    #[must_use]
    pub fn new(js: Context, queue: QueueName, calls_stream: String) -> Self {
        Self { js, queue, calls_stream, ensured: Mutex::default() }
    }

    /// Stores a result, as [`store`] does. The stream is created or changed before, if it was not
    /// seen with these settings.
    pub async fn store(
        &self,
        result: &KeptResult,
        retention: Duration,
        settings: &ResultsSettings,
    ) -> Result<KeepOutcome, NatsError> {
        let ensured = timeout(ENSURE_TIMEOUT, self.ensure(settings)).await;
        ensured.unwrap_or_else(|_| Err(NatsError::during(CREATE)("no answer in time")))?;
        let stored = store(&self.js, &self.queue, result, retention).await;
        if let Err(error) = &stored
            && PublishFailure::from_error(error) == PublishFailure::NoStream
        {
            // It was deleted.
            *self.ensured.lock().await = None;
        }
        stored
    }

    async fn ensure(&self, settings: &ResultsSettings) -> Result<(), NatsError> {
        let mut ensured = self.ensured.lock().await;
        if ensured.as_ref() != Some(settings) {
            ensure_stream(&self.js, &self.queue, &self.calls_stream, settings).await?;
            *ensured = Some(settings.clone());
        }
        Ok(())
    }
}

/// Stores a result in the first form that fits, unless another one of the call is stored. Fails if
/// there is no stream, among other reasons: see [`ensure_stream`].
pub async fn store(
    js: &Context,
    queue: &QueueName,
    result: &KeptResult,
    retention: Duration,
) -> Result<KeepOutcome, NatsError> {
    let KeptResult { function, call_id, sequence, .. } = result;
    let subject = kept_result_subject(queue, function, call_id, *sequence);
    let mut refused = None;
    for form in KeptForm::ALL {
        let form = form.apply(result);
        let mut headers = form.encode();
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, "0");
        headers.insert(NATS_MESSAGE_TTL, retention.as_secs().to_string());
        let message = PublishMessage::build().headers(headers).payload(form.body);
        let stored = async { js.send_publish(subject.clone(), message).await?.await };
        let Err(error) = stored.await else { return Ok(KeepOutcome::Kept) };
        match PublishFailure::from_error(&error) {
            PublishFailure::TooLarge(_) => refused = Some(error),
            PublishFailure::Conflict => {
                let earlier = end_of_call(js, queue, &result.call()).await?;
                return Ok(earlier.map_or(KeepOutcome::Kept, KeepOutcome::HasEnd));
            }
            _ => return Err(NatsError::during("keep the result")(error)),
        }
    }
    let error = refused.map_or_else(|| "it does not fit".into(), Into::into);
    Err(NatsError::during::<Box<dyn std::error::Error + Send + Sync>>("keep the result")(error))
}

/// Returns the end in the kept result of a call; `None` if none is kept.
pub async fn end_of_call(
    js: &Context,
    queue: &QueueName,
    call: &CallRef,
) -> Result<Option<EndState>, NatsError> {
    let stream = queue.results_stream();
    let subject = format!("{}.{}", call_filter(&stream, None, &call.id), call.sequence);
    let found = last_message(js, &stream, &subject).await?;
    Ok(found.and_then(|message| {
        KeptResult::decode(&message.headers, message.payload).ok().map(|result| result.end)
    }))
}

/// Returns the newest result of the calls with an id on a queue, without its body, and when it was
/// stored; `None` if none is kept, or if the newest message is no result.
pub(crate) async fn newest(
    js: &Context,
    queue: &QueueName,
    query: &CallQuery,
) -> Result<Option<(KeptResult, Timestamp)>, NatsError> {
    let Some(newest) = newest_message(js, queue, query).await? else { return Ok(None) };
    let headers = newest.read_headers().ok();
    let result = headers.and_then(|headers| KeptResult::decode(&headers, Bytes::new()).ok());
    Ok(result.map(|result| (result, newest.stored_at)))
}

async fn newest_message(
    js: &Context,
    queue: &QueueName,
    query: &CallQuery,
) -> Result<Option<RawMessage>, NatsError> {
    let stream = queue.results_stream();
    let filter = format!("{}.*", call_filter(&stream, query.function.as_ref(), &query.id));
    last_raw_message(js, &stream, &filter).await
}

/// Returns the newest result of the calls with an id on a queue; `None` if no result was found.
pub async fn find(
    js: &Context,
    queue: &QueueName,
    query: &CallQuery,
) -> Result<Option<FoundResult>, NatsError> {
    const ACTION: &str = "read a kept result";
    let Some(newest) = newest_message(js, queue, query).await? else { return Ok(None) };
    let headers = newest.read_headers().map_err(NatsError::during(ACTION))?;
    if is_marker(&headers) {
        let sequence = newest.subject.rsplit('.').next().and_then(|text| text.parse().ok());
        return Ok(sequence.map(|sequence| FoundResult::Gone { sequence, at: newest.stored_at }));
    }
    let result = KeptResult::decode(&headers, newest.payload).map_err(NatsError::during(ACTION))?;
    Ok(Some(FoundResult::Kept { result: Box::new(result), at: newest.stored_at }))
}
