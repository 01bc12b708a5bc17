//! Cancels a call: queued, running, or waiting for its next attempt.
//!
//! A stored call is known by its id and its sequence on the stream: an id that a client uses again is another call.
//! In this order, so that whoever comes late still finds out: a tombstone, which workers follow and look up
//! before they run a call that was delivered before, unless a worker is just giving the call up ([`give_up`]); the result for the caller; the removal of the call's message,
//! after which no server delivers it; and a broadcast to the workers, whose answers say who was running it.

use std::{
    hash::{Hash, Hasher},
    time::Duration,
};

use async_nats::jetstream::{
    Context,
    message::{PublishMessage, StreamMessage},
};
use bytes::Bytes;
use jiff::Timestamp;

use self::end::{End, end};
use crate::{
    bucket::Bucket,
    call_id::CallId,
    directory::QueueEntry,
    end_state::EndState,
    invocation::Invocation,
    message::{callback::Callback, native},
    name::QueueName,
    peek::{NatsError, ask_workers, failed, last_message},
    remove::remove,
    subject::{call_filter, result_subject},
};

mod end;

/// The KV bucket of tombstones: `<queue>.<call-id>` holds the sequence of the call on the queue's stream; after `dead `, where
/// the call was not cancelled but given up.
pub const BUCKET: Bucket = Bucket {
    name: "asyncqueue-cancelled",
    description: "calls that were cancelled",
    // Longer than any call that was cancelled can still be somewhere.
    max_age: Some(Duration::from_secs(24 * 3600)),
};

/// The status that a caller is told of a call that was cancelled: the client closed the request.
pub const CANCELLED: u16 = 499;

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
    /// It had used up its attempts just before, and becomes a dead letter.
    Dead,
    /// The stream holds no such call: it never was, or it has ended.
    NotFound,
}

/// The subject on which a queue's workers hear of cancellations.
#[must_use]
pub fn broadcast_subject(queue: &QueueName) -> String {
    format!("asyncqueue.cancel.{queue}")
}

/// A stored call: its id, and its sequence on the queue's stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredCall {
    /// The call's id.
    pub id: CallId,
    /// Its sequence.
    pub sequence: u64,
}

impl Hash for StoredCall {
    /// Two calls at one sequence are only where a stream was made anew: the sequence alone tells them apart well enough.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.sequence.hash(state);
    }
}

/// A call that was cancelled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// Its queue.
    pub queue: QueueName,
    /// The call.
    pub call: StoredCall,
    /// When it was cancelled.
    pub at: Timestamp,
}

/// Whether a stored call was cancelled.
pub async fn is_cancelled(js: &Context, queue: &QueueName, call: &StoredCall) -> Result<bool, NatsError> {
    Ok(tombstone(js, Some(queue), &call.id).await?.is_some_and(|tombstone| tombstone.call == *call))
}

/// The call with this id that was cancelled last, if any was: of one queue, or of any.
pub async fn tombstone(
    js: &Context,
    queue: Option<&QueueName>,
    call: &CallId,
) -> Result<Option<Tombstone>, NatsError> {
    // The bucket is a stream, and one request finds out what opening it and reading a key take several for.
    let (stream, prefix) = (format!("KV_{}", BUCKET.name), format!("$KV.{}.", BUCKET.name));
    let subject = format!("{prefix}{}.{call}", queue.map_or("*", QueueName::as_str));
    Ok(last_message(js, &stream, &subject).await?.and_then(|message| {
        let queue = message.subject.strip_prefix(&prefix)?.split('.').next()?.parse().ok()?;
        let call = StoredCall { id: call.clone(), sequence: read_sequence(&message.payload)? };
        Some(Tombstone { queue, call, at: stored_at(&message) })
    }))
}

/// When a message was stored, by the server's clock.
pub(crate) fn stored_at(message: &StreamMessage) -> Timestamp {
    Timestamp::from_nanosecond(message.time.unix_timestamp_nanos()).unwrap_or_default()
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
) -> Result<Cancelled, NatsError> {
    match last_message(js, &entry.stream, &call_filter(&entry.subject, None, call)).await? {
        Some(message) => cancel_stored(js, queue, &entry.stream, call, &message).await,
        None if tombstone(js, Some(queue), call).await?.is_some() => Ok(Cancelled::Before),
        None => Ok(Cancelled::NotFound),
    }
}

/// Cancels a call whose message is on the queue's stream, or was when it was looked for.
pub async fn cancel_stored(
    js: &Context,
    queue: &QueueName,
    stream: &str,
    call: &CallId,
    message: &StreamMessage,
) -> Result<Cancelled, NatsError> {
    let call = StoredCall { id: call.clone(), sequence: message.sequence };
    match end(js, queue, &call, End::Cancelled).await? {
        Some(End::Cancelled) => {}
        Some(End::Dead) => return Ok(Cancelled::Dead),
        None => return Err(failed("write the tombstone")(format!("there is no KV bucket {}", BUCKET.name))),
    }
    if let Ok(invocation) = native::decode(&message.headers, Bytes::new()) {
        tell_caller(js, queue, &invocation, call.sequence).await?;
    }
    // This message alone: a call that has the id after it is another one.
    remove(js, stream, call.sequence, "take the call off its queue").await?;
    let question = broadcast(&call).into();
    let was_running = ask_workers(js.client(), broadcast_subject(queue), question, |answer| {
        (answer.payload == WAS_RUNNING).then_some(())
    });
    Ok(if was_running.await?.is_some() { Cancelled::Running } else { Cancelled::Waiting })
}

/// Gives a call up that has used up its attempts, unless it was cancelled: returns whether it may become a dead letter. From
/// then on it can't be cancelled. `None` where there is no bucket of tombstones, or no server leads it now. A repeat is safe.
pub async fn give_up(js: &Context, queue: &QueueName, call: &StoredCall) -> Result<Option<bool>, NatsError> {
    Ok(end(js, queue, call, End::Dead).await?.map(|end| end == End::Dead))
}

/// Stores the result of a cancelled call for its caller, unless another result of it is stored already.
async fn tell_caller(
    js: &Context,
    queue: &QueueName,
    invocation: &Invocation,
    sequence: u64,
) -> Result<(), NatsError> {
    let Some(url) = invocation.callback_url.clone() else { return Ok(()) };
    let callback = Callback::new(invocation, url, sequence, EndState::Cancelled, CANCELLED);
    let subject = result_subject(queue, &invocation.function, &invocation.call_id, sequence);
    let message = PublishMessage::build().headers(callback.encode());
    let stored = async { js.send_publish(subject, message).await?.await };
    stored.await.map(drop).map_err(failed("store the result for the caller"))
}

/// What is broadcast of a call: its id and its sequence.
#[must_use]
pub fn broadcast(call: &StoredCall) -> String {
    format!("{} {}", call.id, call.sequence)
}

/// Reads the broadcast: the call's id and its sequence.
#[must_use]
pub fn read_broadcast(payload: &[u8]) -> Option<StoredCall> {
    let (id, sequence) = std::str::from_utf8(payload).ok()?.split_once(' ')?;
    Some(StoredCall { id: id.parse().ok()?, sequence: sequence.parse().ok()? })
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
        assert_eq!(read_broadcast(broadcast(&call).as_bytes()), Some(call));
        for bad in [&b""[..], b"id-1", b"a.b 7", b"id-1 x", b"\xff 7"] {
            assert_eq!(read_broadcast(bad), None);
        }
    }
}
