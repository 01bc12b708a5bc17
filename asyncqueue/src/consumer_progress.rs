//! Reads the progress of the consumer of a queue's calls.

use std::time::Duration;

use async_nats::jetstream::{Context, ErrorCode, response::Response};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use crate::{jetstream::NatsError, names::QueueName};

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
        }
    }
}

/// Returns the progress of a queue's consumer; `None` if the stream has no consumer.
pub async fn read(
    js: &Context,
    stream: &str,
    queue: &QueueName,
) -> Result<Option<Progress>, NatsError> {
    if let Some(progress) = read_consumer(js, stream, &queue.durable()).await? {
        return Ok(Some(progress));
    }
    // The only consumer of a stream may have another name.
    let action = "list the consumers";
    let names = match js
        .request(format!("CONSUMER.NAMES.{stream}"), &json!({}))
        .await
        .map_err(NatsError::during(action))?
    {
        Response::Ok(ConsumerNames { consumers }) => consumers.unwrap_or_default(),
        Response::Err { error } if is_not_found(&error) => Vec::new(),
        Response::Err { error } => return Err(NatsError::during(action)(error)),
    };
    match names.first() {
        Some(name) => read_consumer(js, stream, name).await,
        None => Ok(None),
    }
}

/// Returns the progress of a consumer of a stream; `None` if no consumer has this name.
pub async fn read_consumer(
    js: &Context,
    stream: &str,
    consumer: &str,
) -> Result<Option<Progress>, NatsError> {
    let action = "read the progress of the consumer";
    match js
        .request(format!("CONSUMER.INFO.{stream}.{consumer}"), &json!({}))
        .await
        .map_err(NatsError::during(action))?
    {
        Response::Ok(info) => Ok(Some(ConsumerInfo::into(info))),
        Response::Err { error } if is_not_found(&error) => Ok(None),
        Response::Err { error } => Err(NatsError::during(action)(error)),
    }
}

fn is_not_found(error: &async_nats::jetstream::Error) -> bool {
    [ErrorCode::CONSUMER_NOT_FOUND, ErrorCode::STREAM_NOT_FOUND].contains(&error.error_code())
}
