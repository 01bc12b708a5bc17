//! Deliveries that are no attempts.
//!
//! `JetStream` counts how often it delivered a message, and a worker that dies leaves no other trace, so that is
//! what attempts are counted by. But a call that was handed back by a worker that shuts down, or that failed
//! because the platform did, has not had its attempt. Those few are counted here and taken off.

use std::time::Duration;

use async_nats::jetstream::Context;

use crate::{
    bucket::Bucket,
    call_id::CallId,
    name::QueueName,
    peek::{NatsError, failed, last_message},
};

/// The KV bucket: `<queue>.<call-id>.<sequence>` holds a number, `sequence` being where the call is on the stream.
pub const BUCKET: Bucket = Bucket {
    name: "asyncqueue-uncounted",
    description: "deliveries of calls that are no attempts",
    // Longer than a call may wait for the platform, which is a day.
    max_age: Some(Duration::from_secs(48 * 3600)),
};

/// How many deliveries of a call were no attempts.
pub async fn get(js: &Context, queue: &QueueName, call: &CallId, sequence: u64) -> Result<u64, NatsError> {
    let value = last_message(js, &BUCKET.stream(), &BUCKET.subject(&key(queue, call, sequence))).await?;
    Ok(value.and_then(|value| std::str::from_utf8(&value.payload).ok()?.parse().ok()).unwrap_or(0))
}

/// Stores how many deliveries of a call were no attempts.
pub async fn set(
    js: &Context,
    queue: &QueueName,
    call: &CallId,
    sequence: u64,
    deliveries: u64,
) -> Result<(), NatsError> {
    let (subject, value) = (BUCKET.subject(&key(queue, call, sequence)), deliveries.to_string());
    let written = async { js.publish(subject, value.into()).await?.await };
    written.await.map(drop).map_err(failed("write the attempt offset"))
}

fn key(queue: &QueueName, call: &CallId, sequence: u64) -> String {
    format!("{queue}.{call}.{sequence}")
}
