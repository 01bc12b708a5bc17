//! Tombstones: the record of an end that a call does not reach by running.
//!
//! The cancellation, the dead-lettering and the expiry of a call race. Each writes the call's
//! tombstone before anything else. The first write wins, and the others follow it. One more mark
//! records that a cancellation came too late, because the call had ended by itself.

use std::time::Duration;

use async_nats::jetstream::{
    Context,
    context::PublishErrorKind,
    message::{PublishMessage, StreamMessage},
};
use jiff::Timestamp;

use crate::{
    buckets::TOMBSTONES,
    call::{CallRef, CallState},
    call_id::CallId,
    end_state::EndState,
    jetstream::{NatsError, last_message, next_message, stored_at},
    names::QueueName,
    publish_failure::PublishFailure,
};

mod legacy;

/// Number of leases after which no worker starts a call that was delivered to it before.
const LEASES_UNTIL_SAFE: u32 = 2;

/// What a tombstone says about its call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// The call is cancelled, and a worker that has it may still start it.
    Cancelling,
    /// The call has ended so, for certain. A dead one is a dead letter, or becomes one. `Done` is a
    /// call that had ended by itself when it was cancelled, which leaves no other record.
    Ended(EndState),
}

/// A tombstone as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// The queue of the call.
    pub queue: QueueName,
    /// The call.
    pub call: CallRef,
    /// The mark of the call.
    pub mark: Mark,
    /// When it was written, by the server's clock.
    pub at: Timestamp,
    /// Its revision: the sequence in the bucket.
    revision: u64,
}

/// The tombstone of a call after an attempt to write one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteOutcome {
    /// The mark in the tombstone: the one that was to be written, or the one that came first.
    pub mark: Mark,
    /// Whether the tombstone was written now.
    pub is_new: bool,
}

// === impl Mark ===

impl Mark {
    /// Returns the end that the mark records.
    #[must_use]
    pub fn end(self) -> EndState {
        match self {
            Self::Cancelling => EndState::Cancelled,
            Self::Ended(end) => end,
        }
    }

    /// Returns whether the call is cancelled, for certain or not.
    #[must_use]
    pub fn is_cancelled(self) -> bool {
        self.end() == EndState::Cancelled
    }

    /// Returns the word that stands for the mark, empty for the first one.
    fn word(self) -> &'static str {
        match self {
            Self::Cancelling => "",
            Self::Ended(EndState::Cancelled) => "confirmed",
            Self::Ended(EndState::Done) => "ended",
            Self::Ended(end) => end.as_str(),
        }
    }

    /// Encodes the tombstone of a call at this sequence.
    fn encode(self, sequence: u64) -> String {
        match self.word() {
            "" => sequence.to_string(),
            word => format!("{word} {sequence}"),
        }
    }

    /// Reads what `encode` wrote: the mark and the sequence.
    fn decode(value: &[u8]) -> Option<(Self, u64)> {
        let text = std::str::from_utf8(value).ok()?;
        let (mark, sequence) = match text.split_once(' ') {
            None => (Self::Cancelling, text),
            Some((word, sequence)) => {
                let mark =
                    EndState::ALL.map(Self::Ended).into_iter().find(|mark| mark.word() == word)?;
                (mark, sequence)
            }
        };
        Some((mark, sequence.parse().ok()?))
    }
}

// === impl Tombstone ===

impl Tombstone {
    /// Returns the state of the call that the tombstone records; `None` if the call has ended by
    /// itself.
    pub(crate) fn state(&self) -> Option<CallState> {
        CallState::without_run(self.mark.end(), self.at)
    }

    /// Returns whether it was written so long before `now` that no worker starts its call any more.
    /// `lease` is that of a delivery. Both times are the server's.
    pub(crate) fn is_safe(&self, now: Timestamp, lease: Duration) -> bool {
        let age = Duration::try_from(now.duration_since(self.at)).unwrap_or_default();
        age >= lease.saturating_mul(LEASES_UNTIL_SAFE)
    }
}

// === keys ===

fn key(queue: &QueueName, call: &CallRef) -> String {
    format!("{queue}.{}.{}", call.id, call.sequence)
}

fn result_key(queue: &QueueName, call: &CallRef) -> String {
    format!("{}.result", key(queue, call))
}

/// Returns the keys of all calls of a queue, as a watcher of the bucket names them.
#[must_use]
pub fn keys_of_queue(queue: &QueueName) -> String {
    format!("{queue}.>")
}

/// Reads the entry of a watched key; `None` if it is not a tombstone of this queue.
#[must_use]
pub fn read_entry(queue: &QueueName, key: &str, value: &[u8]) -> Option<(CallRef, Mark)> {
    let rest = key.strip_prefix(queue.as_str())?.strip_prefix('.')?;
    // In versions without the sequence in the key, a key ended with the call id.
    let id = rest.split_once('.').map_or(rest, |(id, _)| id).parse().ok()?;
    let (mark, sequence) = Mark::decode(value)?;
    Some((CallRef { id, sequence }, mark))
}

// === reading ===

/// Returns the tombstone of a call, if there is one.
pub async fn read(
    js: &Context,
    queue: &QueueName,
    call: &CallRef,
) -> Result<Option<Tombstone>, NatsError> {
    let subject = TOMBSTONES.subject(&key(queue, call));
    match last_message(js, &TOMBSTONES.stream(), &subject)
        .await?
        .and_then(|message| parse(&message))
    {
        Some(tombstone) => Ok(Some(tombstone)),
        None => legacy::read(js, queue, call).await,
    }
}

/// Returns the newest tombstone of the calls with an id, of one queue or of any.
pub(crate) async fn newest(
    js: &Context,
    queue: Option<&QueueName>,
    id: &CallId,
) -> Result<Option<Tombstone>, NatsError> {
    let queue_token = queue.map_or("*", QueueName::as_str);
    let subject = TOMBSTONES.subject(&format!("{queue_token}.{id}.*"));
    match last_message(js, &TOMBSTONES.stream(), &subject)
        .await?
        .and_then(|message| parse(&message))
    {
        Some(tombstone) => Ok(Some(tombstone)),
        None => legacy::newest(js, queue_token, id).await,
    }
}

/// Returns the tombstones of the calls with an id, of one queue or of any, oldest first. At most
/// `limit`.
pub(crate) async fn all(
    js: &Context,
    queue: Option<&QueueName>,
    id: &CallId,
    limit: usize,
) -> Result<Vec<Tombstone>, NatsError> {
    let queue = queue.map_or("*", QueueName::as_str);
    let subject = TOMBSTONES.subject(&format!("{queue}.{id}.*"));
    let (mut found, mut next) = (Vec::new(), 1);
    while found.len() < limit
        && let Some(message) = next_message(js, &TOMBSTONES.stream(), &subject, next).await?
    {
        next = message.sequence + 1;
        found.extend(parse(&message));
    }
    if found.is_empty() {
        found.extend(legacy::newest(js, queue, id).await?);
    }
    Ok(found)
}

/// Reads a message of the bucket's stream.
fn parse(message: &StreamMessage) -> Option<Tombstone> {
    let key = message.subject.strip_prefix(&TOMBSTONES.subject(""))?;
    let queue: QueueName = key.split('.').next()?.parse().ok()?;
    let (call, mark) = read_entry(&queue, key, &message.payload)?;
    Some(Tombstone { queue, call, mark, at: stored_at(message), revision: message.sequence })
}

// === writing ===

/// Writes the tombstone of a call unless it has one, and returns its content. `None` if there is no
/// bucket, or no server leads it now. A repeat is safe.
pub async fn write_once(
    js: &Context,
    queue: &QueueName,
    call: &CallRef,
    mark: Mark,
) -> Result<Option<WriteOutcome>, NatsError> {
    let Some(winner) = legacy::write_once(js, queue, call, mark).await? else { return Ok(None) };
    let subject = TOMBSTONES.subject(&key(queue, call));
    loop {
        match publish(js, subject.clone(), winner.encode(call.sequence), 0).await {
            Ok(()) => return Ok(Some(WriteOutcome { mark: winner, is_new: winner == mark })),
            Err(failure) if failure.is_missing_bucket() => return Ok(None),
            Err(failure) if !failure.is_conflict() => return Err(failure.0),
            Err(_) => {}
        }
        // `None` only if it has just been deleted by hand.
        if let Some(tombstone) = read(js, queue, call).await? {
            return Ok(Some(WriteOutcome { mark: tombstone.mark, is_new: false }));
        }
    }
}

/// Replaces the mark of a call that is marked as cancelled; leaves every other mark unchanged.
/// Returns the mark that the call then has, if it has one.
pub(crate) async fn update_cancelled(
    js: &Context,
    queue: &QueueName,
    call: &CallRef,
    mark: Mark,
) -> Result<Option<Mark>, NatsError> {
    update(js, queue, call, Mark::is_cancelled, mark).await
}

/// Marks an unconfirmed cancellation as one that came after the call had ended by itself.
pub async fn mark_too_late(
    js: &Context,
    queue: &QueueName,
    call: &CallRef,
) -> Result<(), NatsError> {
    replace(js, queue, call, Mark::Cancelling, Mark::Ended(EndState::Done)).await.map(drop)
}

/// Replaces one mark of a call by another; leaves every other mark unchanged. Returns the mark that
/// the call then has, if it has one.
pub async fn replace(
    js: &Context,
    queue: &QueueName,
    call: &CallRef,
    before: Mark,
    mark: Mark,
) -> Result<Option<Mark>, NatsError> {
    update(js, queue, call, |found| found == before, mark).await
}

async fn update(
    js: &Context,
    queue: &QueueName,
    call: &CallRef,
    is_replaced: impl Fn(Mark) -> bool,
    mark: Mark,
) -> Result<Option<Mark>, NatsError> {
    let subject = TOMBSTONES.subject(&key(queue, call));
    loop {
        let message = last_message(js, &TOMBSTONES.stream(), &subject).await?;
        let Some(before) = message.and_then(|message| parse(&message)) else { return Ok(None) };
        if !is_replaced(before.mark) {
            return Ok(Some(before.mark));
        }
        match publish(js, subject.clone(), mark.encode(call.sequence), before.revision).await {
            Ok(()) => return Ok(Some(mark)),
            Err(failure) if !failure.is_conflict() => return Err(failure.0),
            // Another program has replaced it since then.
            Err(_) => {}
        }
    }
}

/// Records that the client of a call that is marked as cancelled gets the result of the
/// cancellation and no other. This is written before the result leaves its stream. A program that
/// stores another result later, or repeats the cancellation, no longer finds the result there.
pub async fn record_result(
    js: &Context,
    queue: &QueueName,
    call: &CallRef,
) -> Result<(), NatsError> {
    // Watchers of the bucket read the cancellation once more.
    let value = Mark::Cancelling.encode(call.sequence);
    match publish(js, TOMBSTONES.subject(&result_key(queue, call)), value, 0).await {
        Err(failure) if !failure.is_conflict() => Err(failure.0),
        _ => Ok(()),
    }
}

/// Returns whether that is recorded.
pub(crate) async fn is_result_recorded(
    js: &Context,
    queue: &QueueName,
    call: &CallRef,
) -> Result<bool, NatsError> {
    let subject = TOMBSTONES.subject(&result_key(queue, call));
    Ok(last_message(js, &TOMBSTONES.stream(), &subject).await?.is_some())
}

/// A tombstone was not written.
struct WriteFailure(NatsError);

impl WriteFailure {
    fn is_conflict(&self) -> bool {
        PublishFailure::from_error(&self.0) == PublishFailure::Conflict
    }

    fn is_missing_bucket(&self) -> bool {
        PublishFailure::from_error(&self.0) == PublishFailure::NoStream
    }
}

/// Writes an entry of the bucket over the one of this revision. 0: there must be no entry.
async fn publish(
    js: &Context,
    subject: String,
    value: String,
    revision: u64,
) -> Result<(), WriteFailure> {
    let entry =
        PublishMessage::build().payload(value.into()).expected_last_subject_sequence(revision);
    let written = async { js.send_publish(subject, entry).await?.await };
    let to_error = NatsError::during("write the tombstone");
    written.await.map(drop).map_err(|error| WriteFailure(to_error(error)))
}

/// Returns the error of a tombstone that can't be written because its bucket is missing.
#[must_use]
pub fn bucket_not_found() -> NatsError {
    NatsError::during("write the tombstone")(async_nats::jetstream::context::PublishError::new(
        PublishErrorKind::StreamNotFound,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_read_as_they_are_written() {
        let marks = EndState::ALL.map(Mark::Ended).into_iter().chain([Mark::Cancelling]);
        let values: Vec<_> = marks
            .map(|mark| {
                let value = mark.encode(7);
                assert_eq!(Mark::decode(value.as_bytes()), Some((mark, 7)));
                value
            })
            .collect();
        // As docs/wire.md says. Programs of version 0.1 know the second and the last.
        assert_eq!(values, ["ended 7", "dead 7", "confirmed 7", "expired 7", "7"]);
        for other in ["", "dead", "dead x", "7 dead", " 7", "done 7", "\u{fc}"] {
            assert_eq!(Mark::decode(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn a_cancellation_is_safe_after_two_leases() {
        let at = |second| Timestamp::from_second(1_000_i64 + second).unwrap();
        let tombstone = Tombstone {
            queue: "jobs".parse().unwrap(),
            call: CallRef { id: "id-1".parse().unwrap(), sequence: 7 },
            mark: Mark::Cancelling,
            at: at(0),
            revision: 1,
        };
        let is_safe = |second| tombstone.is_safe(at(second), Duration::from_secs(30));
        assert_eq!(
            [is_safe(-5), is_safe(0), is_safe(59), is_safe(60)],
            [false, false, false, true]
        );
    }

    #[test]
    fn watched_keys_name_their_call_in_both_forms() {
        let queue = "jobs".parse().unwrap();
        let call = CallRef { id: "id-1".parse().unwrap(), sequence: 7 };
        let read = |key: &str| read_entry(&queue, key, b"7").map(|(call, _)| call);
        assert_eq!(read("jobs.id-1.7").as_ref(), Some(&call));
        assert_eq!(read("jobs.id-1").as_ref(), Some(&call));
        assert_eq!(read(&result_key(&queue, &call)).as_ref(), Some(&call));
        assert_eq!(read("other.id-1.7"), None);
        assert_eq!(
            read_entry(&queue, &key(&queue, &call), b"dead 7"),
            Some((call, Mark::Ended(EndState::Dead)))
        );
    }
}
