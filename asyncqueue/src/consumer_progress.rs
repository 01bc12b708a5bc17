//! Reads the progress of the consumer that takes a call: that of its queue, or the lane of its
//! function.

use std::time::Duration;

use async_nats::jetstream::{Context, ErrorCode, response::Response};
use jiff::Timestamp;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;

use crate::{
    jetstream::NatsError,
    lanes::{has_lanes, is_group, is_lane, lane_name, matches_filter},
    names::QueueName,
    subject::parse_function,
};

/// The progress of a consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The last sequence of the stream that was delivered.
    pub delivered: u64,
    /// Number of calls that were not delivered.
    pub pending: u64,
    /// Lease of a delivery.
    pub lease: Duration,
    /// The server's time.
    pub now: Timestamp,
    /// Whether this is the consumer of a queue whose functions have lanes.
    pub has_lanes: bool,
}

/// The server's answer. The client library leaves out its time.
#[derive(Debug, Deserialize)]
struct ConsumerInfo {
    config: Config,
    delivered: Position,
    #[serde(default)]
    num_pending: u64,
    ts: Option<Timestamp>,
}

#[derive(Debug, Deserialize)]
struct Config {
    /// Lease in nanoseconds.
    #[serde(default)]
    ack_wait: u64,
    #[serde(default)]
    filter_subjects: Vec<String>,
    #[serde(default)]
    filter_subject: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Position {
    stream_seq: u64,
}

#[derive(Debug, Deserialize)]
struct ConsumerNames {
    #[serde(default)]
    consumers: Option<Vec<String>>,
}

impl Progress {
    /// Returns whether the call at a sequence was not delivered yet. Without a consumer, nothing is
    /// delivered.
    #[must_use]
    pub fn is_undelivered(progress: Option<&Self>, sequence: u64) -> bool {
        progress.is_none_or(|progress| progress.delivered < sequence)
    }
}

impl From<ConsumerInfo> for Progress {
    fn from(info: ConsumerInfo) -> Self {
        Self {
            delivered: info.delivered.stream_seq,
            pending: info.num_pending,
            lease: Duration::from_nanos(info.config.ack_wait),
            now: info.ts.unwrap_or_else(Timestamp::now),
            has_lanes: has_lanes(&info.config.filter_subjects),
        }
    }
}

// === impl ConsumerInfo ===

impl ConsumerInfo {
    fn takes(&self, subject: &str) -> bool {
        let Config { filter_subject, filter_subjects, .. } = &self.config;
        let mut filters = filter_subjects.iter().chain(filter_subject);
        filters.any(|filter| matches_filter(filter, subject))
    }
}

/// Returns the progress of the consumer that takes the call on a subject; `None` if no consumer
/// does.
pub async fn read_for_call(
    js: &Context,
    stream: &str,
    queue: &QueueName,
    subject: &str,
) -> Result<Option<Progress>, NatsError> {
    let Some(of_queue) = find_of_queue(js, stream, queue).await? else { return Ok(None) };
    if !has_lanes(&of_queue.config.filter_subjects) || of_queue.takes(subject) {
        return Ok(Some(of_queue.into()));
    }
    if let Some(function) = parse_function(subject)
        && let Some(lane) = request_info(js, stream, &lane_name(queue, &function)).await?
    {
        return Ok(Some(lane.into()));
    }
    for name in names(js, stream).await?.iter().filter(|name| is_group(queue, name)) {
        if let Some(lane) = request_info(js, stream, name).await?.filter(|lane| lane.takes(subject))
        {
            return Ok(Some(lane.into()));
        }
    }
    Ok(None)
}

/// Returns the progress of a queue's consumer; `None` if the stream has no consumer. With lanes, it
/// says nothing about the calls of functions, but its lease and its time are those of all lanes.
pub async fn read(
    js: &Context,
    stream: &str,
    queue: &QueueName,
) -> Result<Option<Progress>, NatsError> {
    Ok(find_of_queue(js, stream, queue).await?.map(ConsumerInfo::into))
}

async fn find_of_queue(
    js: &Context,
    stream: &str,
    queue: &QueueName,
) -> Result<Option<ConsumerInfo>, NatsError> {
    if let Some(info) = request_info(js, stream, &queue.durable()).await? {
        return Ok(Some(info));
    }
    // The consumer of the queue may have another name.
    for name in names(js, stream).await?.iter().filter(|name| !is_lane(queue, name)) {
        if let Some(info) = request_info(js, stream, name).await? {
            return Ok(Some(info));
        }
    }
    Ok(None)
}

/// Returns the names of the consumers of a stream, at most those of the server's first answer.
async fn names(js: &Context, stream: &str) -> Result<Vec<String>, NatsError> {
    let request = format!("CONSUMER.NAMES.{stream}");
    let names: Option<ConsumerNames> = find(js, request, "list the consumers").await?;
    Ok(names.and_then(|names| names.consumers).unwrap_or_default())
}

/// Returns the progress of a consumer of a stream; `None` if no consumer has this name.
pub async fn read_consumer(
    js: &Context,
    stream: &str,
    consumer: &str,
) -> Result<Option<Progress>, NatsError> {
    Ok(request_info(js, stream, consumer).await?.map(ConsumerInfo::into))
}

async fn request_info(
    js: &Context,
    stream: &str,
    consumer: &str,
) -> Result<Option<ConsumerInfo>, NatsError> {
    let request = format!("CONSUMER.INFO.{stream}.{consumer}");
    find(js, request, "read the progress of the consumer").await
}

/// Returns the server's answer to a request; `None` if the consumer or its stream does not exist.
/// `action` names the purpose in an error.
async fn find<T: DeserializeOwned>(
    js: &Context,
    request: String,
    action: &'static str,
) -> Result<Option<T>, NatsError> {
    match js.request(request, &json!({})).await.map_err(NatsError::during(action))? {
        Response::Ok(answer) => Ok(Some(answer)),
        Response::Err { error } if is_not_found(&error) => Ok(None),
        Response::Err { error } => Err(NatsError::during(action)(error)),
    }
}

fn is_not_found(error: &async_nats::jetstream::Error) -> bool {
    [ErrorCode::CONSUMER_NOT_FOUND, ErrorCode::STREAM_NOT_FOUND].contains(&error.error_code())
}
