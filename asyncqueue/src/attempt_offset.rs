//! Counts deliveries that were not attempts.
//!
//! `JetStream` counts how often it delivered a message, and a worker that dies leaves no other
//! trace. So attempts are counted by deliveries. But some deliveries were not attempts: a worker
//! that shuts down handed the call back, the call reached a worker too late, or it failed because
//! the platform did. Those few are counted here and subtracted. So are deliveries of results that
//! had to wait for their host.
//!
//! When the consumer of a call is replaced by another one, which counts from 1, the attempts of the
//! call are recorded first.

use std::sync::atomic::{AtomicI64, Ordering};

use async_nats::jetstream::{Context, message::PublishMessage};
use jiff::Timestamp;

use crate::{
    buckets::ATTEMPT_OFFSETS,
    call::CallRef,
    call_id::CallId,
    jetstream::{NatsError, last_message},
    names::QueueName,
    publish_failure::PublishFailure,
};

/// The stored record of the attempts of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptOffset {
    /// Number of deliveries that were not attempts. It is negative if attempts were deliveries of
    /// an earlier consumer, which this one does not count.
    Deliveries(i64),
    /// Number of attempts, while deliveries do not count: the call is put off, or an unknown number
    /// was sent to a worker that had lost its connection. The next invocation is the next attempt,
    /// and its worker stores the offset that follows.
    Attempts(u64),
    /// The same for a call that waits for its next attempt, which is not made before this time. A
    /// version before 0.2 does not read this: for it, each delivery of the consumer is an attempt.
    Waiting {
        /// Number of attempts.
        attempts: u64,
        /// When the next attempt is due.
        not_before: Timestamp,
    },
}

/// What holds for a call that has no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unrecorded {
    /// Each delivery was an attempt.
    Delivered,
    /// No delivery was an attempt. It is a delayed call, which workers hand back without a record
    /// until it is due. Its first invocation is recorded before it starts.
    Delayed,
}

/// No sum was written without an answer.
const NO_SUM: i64 = i64::MIN;

/// Further deliveries of a call that were not attempts, to be added to the stored ones. If it is
/// written again because the server did not answer in time, it counts once.
#[derive(Debug)]
pub struct OffsetIncrement<'a> {
    queue: &'a QueueName,
    call: &'a CallRef,
    unrecorded: Unrecorded,
    deliveries: u64,
    /// The sum that was written without an answer; [`NO_SUM`] if no such sum exists.
    unanswered: AtomicI64,
}

impl AttemptOffset {
    /// A number of attempts is stored as the difference to this number. So it is an offset that no
    /// number of deliveries reaches: for version 0.1, each invocation is the first attempt.
    const NO_DELIVERY_COUNTS: i64 = 1_000_000_000_000;

    /// Returns the number of the attempt, from 1, that this delivery is.
    #[must_use]
    pub fn attempt_at(self, delivery: u64) -> u64 {
        match self {
            Self::Deliveries(offset) => {
                let offset = i128::from(offset);
                u64::try_from(i128::from(delivery) - offset).unwrap_or(0).max(1)
            }
            Self::Attempts(attempts) | Self::Waiting { attempts, .. } => attempts.saturating_add(1),
        }
    }

    fn encode(self) -> String {
        let of_attempts = |attempts| Self::NO_DELIVERY_COUNTS.saturating_sub_unsigned(attempts);
        match self {
            Self::Deliveries(deliveries) => deliveries.to_string(),
            Self::Attempts(attempts) => of_attempts(attempts).to_string(),
            Self::Waiting { attempts, not_before } => {
                format!("{} {}", of_attempts(attempts), not_before.as_millisecond())
            }
        }
    }

    fn decode(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?;
        let (number, not_before) = match text.split_once(' ') {
            Some((number, not_before)) => (number, Some(not_before)),
            None => (text, None),
        };
        let number: i64 = number.parse().ok()?;
        if number < Self::NO_DELIVERY_COUNTS / 2 {
            return not_before.is_none().then_some(Self::Deliveries(number));
        }
        let attempts = u64::try_from(Self::NO_DELIVERY_COUNTS.saturating_sub(number)).unwrap_or(0);
        let Some(not_before) = not_before else { return Some(Self::Attempts(attempts)) };
        let not_before = Timestamp::from_millisecond(not_before.parse().ok()?).ok()?;
        Some(Self::Waiting { attempts, not_before })
    }
}

impl Unrecorded {
    /// Returns the record that the call would have.
    #[must_use]
    pub fn offset(self) -> AttemptOffset {
        match self {
            Self::Delivered => AttemptOffset::Deliveries(0),
            Self::Delayed => AttemptOffset::Attempts(0),
        }
    }
}

impl<'a> OffsetIncrement<'a> {
    /// Creates an addition of further deliveries of a call.
    #[must_use]
    pub fn new(
        queue: &'a QueueName,
        call: &'a CallRef,
        unrecorded: Unrecorded,
        deliveries: u64,
    ) -> Self {
        Self { queue, call, unrecorded, deliveries, unanswered: AtomicI64::new(NO_SUM) }
    }

    /// Adds them, even if other programs do so at the same time. Adds nothing if only the number of
    /// attempts is stored.
    pub async fn write(&self, js: &Context) -> Result<(), NatsError> {
        let CallRef { id, sequence } = self.call;
        let conflict = || self.unanswered.store(NO_SUM, Ordering::Relaxed);
        let change = |before| match before {
            AttemptOffset::Deliveries(before) => self.sum(before).map(AttemptOffset::Deliveries),
            AttemptOffset::Attempts(_) | AttemptOffset::Waiting { .. } => None,
        };
        update(js, &key(self.queue, id, *sequence), self.unrecorded, change, conflict).await
    }

    /// Returns the sum to write over `before`; `None` if an earlier try has written it.
    fn sum(&self, before: i64) -> Option<i64> {
        let unanswered = self.unanswered.load(Ordering::Relaxed);
        if unanswered != NO_SUM && before >= unanswered {
            return None;
        }
        let sum = before.saturating_add_unsigned(self.deliveries);
        self.unanswered.store(sum, Ordering::Relaxed);
        Some(sum)
    }
}

/// Returns the stored record of the attempts of a call. Default: what `unrecorded` says.
pub async fn get(
    js: &Context,
    queue: &QueueName,
    call: &CallRef,
    unrecorded: Unrecorded,
) -> Result<AttemptOffset, NatsError> {
    read(js, &key(queue, &call.id, call.sequence), unrecorded).await
}

/// Stores the record of the attempts of a call.
pub async fn set(
    js: &Context,
    queue: &QueueName,
    call: &CallId,
    sequence: u64,
    offset: AttemptOffset,
) -> Result<(), NatsError> {
    write(js, &key(queue, call, sequence), offset).await
}

/// Records how many attempts of a call were made, for a call that waits for the next one, unless as
/// many are recorded: a worker whose call went to another one may know fewer.
pub async fn record_waiting(
    js: &Context,
    queue: &QueueName,
    CallRef { id, sequence }: &CallRef,
    attempts: u64,
    not_before: Timestamp,
) -> Result<(), NatsError> {
    let waiting = AttemptOffset::Waiting { attempts, not_before };
    let change = |before| match before {
        AttemptOffset::Attempts(made) | AttemptOffset::Waiting { attempts: made, .. }
            if made >= attempts =>
        {
            None
        }
        _ => Some(waiting),
    };
    update(js, &key(queue, id, *sequence), Unrecorded::Delivered, change, || {}).await
}

/// The attempts to deliver the result of a call.
#[derive(Clone, Copy, Debug)]
pub struct CallbackAttempts<'a> {
    /// The connection.
    pub js: &'a Context,
    /// The queue of the call.
    pub queue: &'a QueueName,
    /// The call.
    pub call: &'a CallId,
    /// The sequence that the call has, or had, on its stream.
    pub sequence: u64,
}

impl CallbackAttempts<'_> {
    /// Returns their stored record. Default: each delivery was an attempt.
    pub async fn get(&self) -> Result<AttemptOffset, NatsError> {
        read(self.js, &self.key(), Unrecorded::Delivered).await
    }

    /// Stores their record.
    pub async fn set(&self, offset: AttemptOffset) -> Result<(), NatsError> {
        write(self.js, &self.key(), offset).await
    }

    fn key(&self) -> String {
        format!("{}-callback", key(self.queue, self.call, self.sequence))
    }
}

async fn read(js: &Context, key: &str, unrecorded: Unrecorded) -> Result<AttemptOffset, NatsError> {
    let value = last_message(js, &ATTEMPT_OFFSETS.stream(), &ATTEMPT_OFFSETS.subject(key)).await?;
    let recorded = value.and_then(|value| AttemptOffset::decode(&value.payload));
    Ok(recorded.unwrap_or(unrecorded.offset()))
}

/// Replaces a stored record by what `change` returns for it, even if other programs do so at the
/// same time. `conflict` is called if another one was first.
async fn update(
    js: &Context,
    key: &str,
    unrecorded: Unrecorded,
    change: impl Fn(AttemptOffset) -> Option<AttemptOffset>,
    conflict: impl Fn(),
) -> Result<(), NatsError> {
    let subject = ATTEMPT_OFFSETS.subject(key);
    loop {
        let value = last_message(js, &ATTEMPT_OFFSETS.stream(), &subject).await?;
        let revision = value.as_ref().map_or(0, |value| value.sequence);
        let before = value
            .and_then(|value| AttemptOffset::decode(&value.payload))
            .unwrap_or(unrecorded.offset());
        let Some(offset) = change(before) else { return Ok(()) };
        let entry = PublishMessage::build()
            .payload(offset.encode().into())
            .expected_last_subject_sequence(revision);
        let written = async { js.send_publish(subject.clone(), entry).await?.await };
        match written.await.map_err(NatsError::during("write the attempt offset")) {
            Ok(_) => return Ok(()),
            Err(error) if PublishFailure::from_error(&error) == PublishFailure::Conflict => {
                conflict();
            }
            Err(error) => return Err(error),
        }
    }
}

async fn write(js: &Context, key: &str, offset: AttemptOffset) -> Result<(), NatsError> {
    let subject = ATTEMPT_OFFSETS.subject(key);
    let written = async { js.publish(subject, offset.encode().into()).await?.await };
    written.await.map(drop).map_err(NatsError::during("write the attempt offset"))
}

fn key(queue: &QueueName, call: &CallId, sequence: u64) -> String {
    format!("{queue}.{call}.{sequence}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_read_as_they_are_written() {
        let not_before = Timestamp::from_millisecond(1_764_440_000_123).unwrap();
        let waiting = AttemptOffset::Waiting { attempts: 2, not_before };
        for offset in [
            AttemptOffset::Deliveries(3),
            AttemptOffset::Deliveries(-3),
            AttemptOffset::Attempts(2),
            waiting,
        ] {
            assert_eq!(AttemptOffset::decode(offset.encode().as_bytes()), Some(offset));
        }
        assert_eq!(AttemptOffset::Deliveries(3).encode(), "3");
        assert_eq!(AttemptOffset::Attempts(2).encode(), "999999999998");
        assert_eq!(waiting.encode(), "999999999998 1764440000123");
        // Version 0.1 has added deliveries to it.
        assert_eq!(AttemptOffset::decode(b"1000000000001"), Some(AttemptOffset::Attempts(0)));
        for other in ["", "made 2", "x", "-", "3 5", "999999999998 x"] {
            assert_eq!(AttemptOffset::decode(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn an_addition_counts_once_however_often_it_is_written() {
        let (queue, call) =
            ("jobs".parse().unwrap(), CallRef { id: "id-1".parse().unwrap(), sequence: 7 });
        let addition = OffsetIncrement::new(&queue, &call, Unrecorded::Delivered, 2);
        assert_eq!(addition.sum(1), Some(3));
        // The server did not answer: it had written the sum, or not.
        assert_eq!(addition.sum(1), Some(3));
        assert_eq!(addition.sum(3), None);
    }

    #[test]
    fn the_delivery_after_lost_ones_is_the_next_attempt() {
        assert_eq!(AttemptOffset::Attempts(1).attempt_at(5), 2);
        assert_eq!(AttemptOffset::Attempts(4).attempt_at(3), 5);
        assert_eq!(AttemptOffset::Deliveries(2).attempt_at(5), 3);
        assert_eq!(AttemptOffset::Deliveries(5).attempt_at(1), 1);
        assert_eq!(AttemptOffset::Deliveries(i64::MAX).attempt_at(0), 1);
        // Three attempts were deliveries of an earlier consumer.
        let waiting = AttemptOffset::Waiting { attempts: 3, not_before: Timestamp::MIN };
        assert_eq!([waiting.attempt_at(1), AttemptOffset::Deliveries(-3).attempt_at(1)], [4, 4]);
        // However often workers have handed it back.
        assert_eq!(Unrecorded::Delayed.offset().attempt_at(9), 1);
        assert_eq!(Unrecorded::Delivered.offset().attempt_at(9), 9);
    }
}
