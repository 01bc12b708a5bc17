//! Reads and writes what is stored of batches.

use std::time::Duration;

use async_nats::{
    HeaderMap as NatsHeaders,
    jetstream::{
        Context, ErrorCode,
        message::PublishMessage,
        response::Response,
        stream::{Config, DiscardPolicy, RetentionPolicy, StorageType},
    },
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{BatchId, BatchRecord, BatchReport, EndRecord, MAX_CONCURRENT, MemberCall};
use crate::{
    buckets::{BATCH_COUNTERS, BATCHES, TOMBSTONES},
    call_id::CallId,
    jetstream::{NatsError, find_stream, last_message, list_subjects, stored_at},
    kv::Bucket,
    publish_failure::PublishFailure,
    stream::is_name_taken,
};

/// How long the report of a batch that has ended is kept.
const KEEP_ENDED: Duration = Duration::from_secs(24 * 3600);

/// How long a repeated end is recognised by its message id. A later one is counted again, and the
/// stored ends then show that the batch has not ended.
const COUNTER_WINDOW: Duration = Duration::from_secs(3600);

const H_TTL: &str = "Nats-TTL";
const H_INCREMENT: &str = "Nats-Incr";

/// Whether an entry was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    Now,
    /// The key had an entry, which is kept.
    Before,
}

// === buckets ===

/// Creates the buckets if they do not exist, with as many replicas as the bucket of tombstones.
pub(crate) async fn ensure(js: &Context) -> Result<(), NatsError> {
    for config in [batches_config(), counters_config()] {
        let to_error = NatsError::during("open the buckets of batches");
        if find_stream(js, &config.name).await.map_err(to_error)?.is_none() {
            create(js, config).await?;
        }
    }
    Ok(())
}

async fn create(js: &Context, config: Config) -> Result<(), NatsError> {
    let to_error = NatsError::during("read the replicas of the buckets");
    let tombstones = find_stream(js, &TOMBSTONES.stream()).await.map_err(to_error)?;
    let replicas = tombstones.map_or(1, |stream| stream.cached_info().config.num_replicas);
    let replicated = Config { num_replicas: replicas, ..config.clone() };
    let created = match js.create_stream(replicated).await {
        // A cluster that has lost servers accepts no stream with as many replicas.
        Err(error) if replicas > 1 && !is_name_taken(&error) => {
            js.create_stream(Config { num_replicas: 1, ..config }).await
        }
        created => created,
    };
    match created {
        Err(error) if !is_name_taken(&error) => {
            Err(NatsError::during("create the buckets of batches")(error))
        }
        _ => Ok(()),
    }
}

fn batches_config() -> Config {
    // When it is full, no batch is accepted, and no entry is dropped.
    Config { discard: DiscardPolicy::New, allow_message_ttl: true, ..bucket_config(&BATCHES) }
}

fn counters_config() -> Config {
    Config {
        allow_message_counter: true,
        duplicate_window: COUNTER_WINDOW,
        // JetStream allows no other policy for counters.
        discard: DiscardPolicy::Old,
        ..bucket_config(&BATCH_COUNTERS)
    }
}

/// Returns the configuration of a KV bucket.
fn bucket_config(bucket: &Bucket) -> Config {
    Config {
        name: bucket.stream(),
        description: Some(format!("AsyncQueue: {}", bucket.description)),
        subjects: vec![bucket.subject(">")],
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        max_messages: -1,
        max_bytes: -1,
        max_messages_per_subject: 1,
        max_message_size: -1,
        max_consumers: -1,
        max_age: bucket.max_age.unwrap_or_default(),
        allow_direct: true,
        allow_rollup: true,
        deny_delete: true,
        ..Config::default()
    }
}

// === keys ===

fn record_key(id: &BatchId) -> String {
    format!("{id}.open.record")
}

fn stored_key(id: &BatchId) -> String {
    format!("{id}.open.stored")
}

fn end_key(id: &BatchId, call_id: &str) -> String {
    format!("{id}.open.ends.{call_id}")
}

fn ended_key(id: &BatchId) -> String {
    format!("{id}.ended")
}

// === reading ===

async fn read<T: DeserializeOwned>(
    js: &Context,
    key: &str,
) -> Result<Option<(T, u64, Timestamp)>, NatsError> {
    let message = last_message(js, &BATCHES.stream(), &BATCHES.subject(key)).await?;
    let Some(message) = message else { return Ok(None) };
    let to_error = NatsError::during("read an entry of a batch");
    let value = serde_json::from_slice(&message.payload).map_err(to_error)?;
    Ok(Some((value, message.sequence, stored_at(&message))))
}

/// Returns a batch that has not ended, with its sequence in the bucket and the time at which it was
/// stored.
pub(crate) async fn read_record(
    js: &Context,
    id: &BatchId,
) -> Result<Option<(BatchRecord, u64, Timestamp)>, NatsError> {
    read(js, &record_key(id)).await
}

/// Returns whether the calls of a batch are known to be stored.
pub(crate) async fn is_stored(js: &Context, id: &BatchId) -> Result<bool, NatsError> {
    let subject = BATCHES.subject(&stored_key(id));
    Ok(last_message(js, &BATCHES.stream(), &subject).await?.is_some())
}

/// Returns the report of a batch that has ended, and the digest of what its client submitted.
pub(crate) async fn read_ended(
    js: &Context,
    id: &BatchId,
) -> Result<Option<(BatchReport, String)>, NatsError> {
    let found = read::<(BatchReport, String)>(js, &ended_key(id)).await?;
    Ok(found.map(|(ended, ..)| ended))
}

/// Returns how a call of a batch has ended.
pub(crate) async fn read_end(
    js: &Context,
    id: &BatchId,
    call_id: &str,
) -> Result<Option<EndRecord>, NatsError> {
    Ok(read(js, &end_key(id, call_id)).await?.map(|(end, ..)| end))
}

/// Returns how each of these calls has ended, in their order.
pub(crate) async fn read_ends(
    js: &Context,
    id: &BatchId,
    calls: &[MemberCall],
) -> Result<Vec<Option<EndRecord>>, NatsError> {
    // The futures are created before they are polled: closures of a stream could not be spawned.
    let reading: Vec<_> = calls.iter().map(|call| read_end(js, id, &call.call_id)).collect();
    stream::iter(reading).buffered(MAX_CONCURRENT).try_collect().await
}

/// Returns the ids of the batches that have not ended, at most as many as one answer of the server
/// lists.
pub(crate) async fn open_batches(js: &Context) -> Result<Vec<BatchId>, NatsError> {
    ids_with_key(js, "*.open.record").await
}

/// Returns the ids of the batches that have ended and are still known, at most as many as one
/// answer of the server lists.
pub(crate) async fn ended_batches(js: &Context) -> Result<Vec<BatchId>, NatsError> {
    ids_with_key(js, "*.ended").await
}

/// Returns the ids of the batches that have an entry with such a key. Needs no consumer.
async fn ids_with_key(js: &Context, key: &str) -> Result<Vec<BatchId>, NatsError> {
    let subjects = list_subjects(js, &BATCHES.stream(), &BATCHES.subject(key)).await?;
    let prefix = BATCHES.subject("");
    let ids = subjects
        .keys()
        .filter_map(|subject| subject.strip_prefix(&prefix)?.split('.').next()?.parse().ok());
    Ok(ids.collect())
}

// === writing ===

/// Writes the record of a batch that is being submitted, and returns its sequence.
pub(crate) async fn create_record(
    js: &Context,
    id: &BatchId,
    record: &BatchRecord,
) -> Result<Written, NatsError> {
    write_once(js, &record_key(id), encode(record)?, None).await
}

/// Records that the calls of a batch are stored.
pub(crate) async fn mark_stored(js: &Context, id: &BatchId) -> Result<(), NatsError> {
    write_once(js, &stored_key(id), Bytes::new(), None).await.map(drop)
}

/// Writes the end of a call, unless it has one.
pub(crate) async fn write_end(
    js: &Context,
    id: &BatchId,
    call_id: &str,
    end: &EndRecord,
) -> Result<Written, NatsError> {
    write_once(js, &end_key(id, call_id), encode(end)?, None).await
}

/// Writes the report of a batch that has ended, with the digest of what its client submitted.
pub(crate) async fn write_ended(
    js: &Context,
    id: &BatchId,
    report: &BatchReport,
    digest: &str,
) -> Result<(), NatsError> {
    let write = async |report: &BatchReport| -> Result<Written, NatsError> {
        write_once(js, &ended_key(id), encode(&(report, digest))?, Some(KEEP_ENDED)).await
    };
    match write(report).await {
        Err(error) if is_too_large(&error) => {
            write(&report.clone().without_calls()).await.map(drop)
        }
        written => written.map(drop),
    }
}

/// Removes what is not needed after the end of a batch, or if its calls were not stored.
pub(crate) async fn remove_open(js: &Context, id: &BatchId) -> Result<(), NatsError> {
    purge(js, &BATCHES, &format!("{id}.open.>")).await?;
    purge(js, &BATCH_COUNTERS, id.as_str()).await
}

/// Counts the end of a call, and returns how many ends were counted. `None` if this one was counted
/// before.
pub(crate) async fn count_end(
    js: &Context,
    id: &BatchId,
    call_id: &CallId,
    sequence: u64,
) -> Result<Option<usize>, NatsError> {
    let mut headers = NatsHeaders::new();
    headers.insert(H_INCREMENT, "+1");
    let message =
        PublishMessage::build().headers(headers).message_id(format!("{id}.{call_id}.{sequence}"));
    let subject = BATCH_COUNTERS.subject(id.as_str());
    let counted = async { js.send_publish(subject, message).await?.await };
    let ack = counted.await.map_err(NatsError::during("count the end of a call of a batch"))?;
    if ack.duplicate {
        return Ok(None);
    }
    Ok(ack.value.and_then(|value| value.parse().ok()))
}

/// Returns whether NATS refused something because of its size.
pub(crate) fn is_too_large(error: &NatsError) -> bool {
    matches!(PublishFailure::from_error(error), PublishFailure::TooLarge(_))
}

fn encode(value: &impl Serialize) -> Result<Bytes, NatsError> {
    let to_error = NatsError::during("write an entry of a batch");
    serde_json::to_vec(value).map(Bytes::from).map_err(to_error)
}

/// Writes an entry unless the key has one.
async fn write_once(
    js: &Context,
    key: &str,
    value: Bytes,
    keep: Option<Duration>,
) -> Result<Written, NatsError> {
    let mut headers = NatsHeaders::new();
    if let Some(keep) = keep {
        headers.insert(H_TTL, format!("{}s", keep.as_secs()));
    }
    let message =
        PublishMessage::build().headers(headers).payload(value).expected_last_subject_sequence(0);
    let written = async { js.send_publish(BATCHES.subject(key), message).await?.await };
    match written.await {
        Ok(_) => Ok(Written::Now),
        Err(error) if PublishFailure::from_error(&error) == PublishFailure::Conflict => {
            Ok(Written::Before)
        }
        Err(error) => Err(NatsError::during("write an entry of a batch")(error)),
    }
}

async fn purge(js: &Context, bucket: &Bucket, key: &str) -> Result<(), NatsError> {
    let request = json!({ "filter": bucket.subject(key) });
    let action = "remove the entries of a batch";
    let answer = js.request(format!("STREAM.PURGE.{}", bucket.stream()), &request).await;
    match answer.map_err(NatsError::during(action))? {
        Response::<Value>::Ok(_) => Ok(()),
        Response::Err { error } if error.error_code() == ErrorCode::STREAM_NOT_FOUND => Ok(()),
        Response::Err { error } => Err(NatsError::during(action)(error)),
    }
}
