//! Cancels a call: queued, running, or waiting for its next attempt.
//!
//! A stored call is known by its id and its sequence on the stream: an id that a client uses again is another call.
//! In this order, so that whoever comes late still finds out: a tombstone, which workers follow and look up
//! before they run a call that was delivered before; the result for the caller; the purge of the call's subject,
//! after which no server delivers it; and a broadcast to the workers, whose answers say who was running it.

use std::time::Duration;

use async_nats::jetstream::{
    Context,
    message::{PublishMessage, StreamMessage},
    stream::{LastRawMessageErrorKind, Stream},
};
use bytes::Bytes;
use futures::StreamExt;
use http::HeaderMap;
use tokio::time::{Instant, timeout_at};

use crate::{
    bucket::{Bucket, BucketError},
    call_id::CallId,
    directory::QueueEntry,
    invocation::Invocation,
    message::{callback::Callback, native},
    name::QueueName,
    subject::call_subject,
};

/// The KV bucket of tombstones: `<queue>.<call-id>` holds the sequence of the call on the queue's stream.
pub const BUCKET: Bucket = Bucket {
    name: "asyncqueue-cancelled",
    description: "calls that were cancelled",
    // Longer than any call that was cancelled can still be somewhere.
    max_age: Some(Duration::from_secs(24 * 3600)),
};

/// The status that a caller is told of a call that was cancelled: the client closed the request.
pub const CANCELLED: u16 = 499;

/// How long workers have to answer the broadcast. They answer within a millisecond or not at all.
const ANSWERS: Duration = Duration::from_millis(250);

/// What a worker answers to the broadcast if it was running the call.
pub const WAS_RUNNING: &str = "running";

/// What became of a cancellation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// The call was queued or waiting for its next attempt; it will not start.
    Waiting,
    /// The call was running; its worker has closed the connection to the function.
    Running,
    /// It was cancelled before.
    Before,
    /// The stream holds no such call: it never was, or it has ended.
    NotFound,
}

/// Why a call could not be cancelled. A repeat is safe.
#[derive(Debug, thiserror::Error)]
pub enum CancelError {
    /// The tombstone could not be written.
    #[error(transparent)]
    Tombstone(#[from] BucketError),
    /// NATS is away or refused.
    #[error("NATS could not {action}")]
    Nats {
        /// What was asked of it.
        action: &'static str,
        /// How it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The subject on which a queue's workers hear of cancellations.
#[must_use]
pub fn broadcast_subject(queue: &QueueName) -> String {
    format!("asyncqueue.cancel.{queue}")
}

/// A stored call: its id, and its sequence on the queue's stream.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StoredCall {
    /// The call's id.
    pub id: CallId,
    /// Its sequence.
    pub sequence: u64,
}

/// Whether a stored call was cancelled.
pub async fn is_cancelled(js: &Context, queue: &QueueName, call: &StoredCall) -> Result<bool, BucketError> {
    Ok(tombstone(js, queue, &call.id).await?.is_some_and(|sequence| sequence == call.sequence))
}

/// The sequence of the call with this id that was cancelled last, if any was.
async fn tombstone(js: &Context, queue: &QueueName, call: &CallId) -> Result<Option<u64>, BucketError> {
    let store = BUCKET.open(js).await?;
    let value = store.get(tombstone_key(queue, call)).await.map_err(BUCKET.failed("read"))?;
    Ok(value.and_then(|value| read_sequence(&value)))
}

fn tombstone_key(queue: &QueueName, call: &CallId) -> String {
    format!("{queue}.{call}")
}

/// Reads a tombstone, for who follows the bucket; `None` if it is of another queue.
#[must_use]
pub fn read_tombstone(queue: &QueueName, key: &str, value: &[u8]) -> Option<StoredCall> {
    let id = key.strip_prefix(queue.as_str())?.strip_prefix('.')?.parse().ok()?;
    Some(StoredCall { id, sequence: read_sequence(value)? })
}

fn read_sequence(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// Cancels a call of a queue.
pub async fn cancel(
    js: &Context,
    queue: &QueueName,
    entry: &QueueEntry,
    call: &CallId,
) -> Result<Cancelled, CancelError> {
    let stream = js.get_stream_no_info(&entry.stream).await.map_err(nats("open the stream"))?;
    let Some(message) = find(&stream, &entry.subject, call).await? else {
        let before = tombstone(js, queue, call).await.unwrap_or_default().is_some();
        return Ok(if before { Cancelled::Before } else { Cancelled::NotFound });
    };
    let call = StoredCall { id: call.clone(), sequence: message.sequence };
    let tombstones = BUCKET.open(js).await?;
    let sequence = call.sequence.to_string().into();
    tombstones.put(tombstone_key(queue, &call.id), sequence).await.map_err(BUCKET.failed("write"))?;
    if let Ok(invocation) = native::decode(&message.headers, Bytes::new()) {
        tell_caller(js, queue, &invocation, call.sequence).await?;
    }
    stream.purge().filter(message.subject.as_str()).await.map_err(nats("purge the call"))?;
    let was_running = ask_workers(js, queue, &call).await?;
    Ok(if was_running { Cancelled::Running } else { Cancelled::Waiting })
}

/// The message of a call, if the stream still holds it.
pub async fn find(
    stream: &Stream<()>,
    subject: &str,
    call: &CallId,
) -> Result<Option<StreamMessage>, CancelError> {
    let any_function = format!("{subject}.*.*.{call}");
    match stream.get_last_raw_message_by_subject(&any_function).await {
        Ok(message) => Ok(Some(message)),
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(nats("look for the call")(error)),
    }
}

/// Stores the result of a cancelled call for its caller, unless another result of it is stored already.
async fn tell_caller(
    js: &Context,
    queue: &QueueName,
    invocation: &Invocation,
    sequence: u64,
) -> Result<(), CancelError> {
    let Some(url) = invocation.callback_url.clone() else { return Ok(()) };
    let callback = Callback {
        call_id: invocation.call_id.clone(),
        function: invocation.function.clone(),
        url,
        status: CANCELLED,
        duration: Duration::ZERO,
        attempt: 0,
        max_attempts: 0,
        headers: HeaderMap::new(),
        body: Bytes::new(),
    };
    let subject = call_subject(&queue.callback_stream(), &invocation.function, &invocation.call_id);
    let message = PublishMessage::build().headers(callback.encode(sequence));
    let stored = async { js.send_publish(subject, message).await?.await };
    stored.await.map(drop).map_err(nats("store the result for the caller"))
}

/// Tells the workers, and returns whether one of them was running the call.
async fn ask_workers(js: &Context, queue: &QueueName, call: &StoredCall) -> Result<bool, CancelError> {
    let client = js.client();
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await.map_err(nats("hear the workers"))?;
    let question = format!("{} {}", call.id, call.sequence).into();
    client
        .publish_with_reply(broadcast_subject(queue), inbox, question)
        .await
        .map_err(nats("tell the workers"))?;
    let deadline = Instant::now() + ANSWERS;
    while let Ok(Some(answer)) = timeout_at(deadline, answers.next()).await {
        // Nobody listens: no worker runs.
        if answer.status.is_some() {
            return Ok(false);
        }
        if answer.payload == WAS_RUNNING {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Reads the broadcast: the call's id and its sequence.
#[must_use]
pub fn read_broadcast(payload: &[u8]) -> Option<StoredCall> {
    let (id, sequence) = std::str::from_utf8(payload).ok()?.split_once(' ')?;
    Some(StoredCall { id: id.parse().ok()?, sequence: sequence.parse().ok()? })
}

fn nats<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    action: &'static str,
) -> impl Fn(E) -> CancelError {
    move |error| CancelError::Nats { action, source: error.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tombstones_and_broadcasts_name_a_stored_call() {
        let queue: QueueName = "jobs".parse().unwrap();
        let call = StoredCall { id: "id-1".parse().unwrap(), sequence: 7 };
        let key = tombstone_key(&queue, &call.id);
        assert_eq!(read_tombstone(&queue, &key, b"7"), Some(call.clone()));
        assert_eq!(read_tombstone(&"other".parse().unwrap(), &key, b"7"), None);
        assert_eq!(read_tombstone(&queue, &key, b"x"), None);
        assert_eq!(read_broadcast(b"id-1 7"), Some(call));
        for bad in [&b""[..], b"id-1", b"a.b 7", b"id-1 x", b"\xff 7"] {
            assert_eq!(read_broadcast(bad), None);
        }
    }
}
