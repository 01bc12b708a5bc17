//! Counts deliveries that were not attempts.
//!
//! `JetStream` counts how often it delivered a message, and a worker that dies leaves no other
//! trace. So attempts are counted by deliveries. But some deliveries were not attempts: a worker
//! that shuts down handed the call back, the call reached a worker too late, or it failed because
//! the platform did. Those few are counted here and subtracted. So are deliveries of results that
//! had to wait for their host.

use std::sync::atomic::{AtomicU64, Ordering};

use async_nats::jetstream::{Context, message::PublishMessage};

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
    /// Number of deliveries that were not attempts.
    Deliveries(u64),
    /// Number of attempts, while deliveries do not count: the call is put off, or an unknown number
    /// was sent to a worker that had lost its connection. The next invocation is the next attempt,
    /// and its worker stores the offset that follows.
    Attempts(u64),
}

/// Further deliveries of a call that were not attempts, to be added to the stored ones. If it is
/// written again because the server did not answer in time, it counts once.
#[derive(Debug)]
pub struct OffsetIncrement<'a> {
    queue: &'a QueueName,
    call: &'a CallRef,
    deliveries: u64,
    /// The sum that was written without an answer; 0 if no such sum exists.
    unanswered: AtomicU64,
}

impl AttemptOffset {
    /// A number of attempts is stored as the difference to this number. So it is an offset that no
    /// number of deliveries reaches: for version 0.1, each invocation is the first attempt.
    const NO_DELIVERY_COUNTS: u64 = 1_000_000_000_000;

    /// Returns how many deliveries were not attempts, at this delivery.
    #[must_use]
    pub fn at(self, delivery: u64) -> u64 {
        match self {
            Self::Deliveries(deliveries) => deliveries,
            Self::Attempts(attempts) => delivery.saturating_sub(attempts.saturating_add(1)),
        }
    }

    fn encode(self) -> String {
        let number = match self {
            Self::Deliveries(deliveries) => deliveries,
            Self::Attempts(attempts) => Self::NO_DELIVERY_COUNTS.saturating_sub(attempts),
        };
        number.to_string()
    }

    fn decode(value: &[u8]) -> Option<Self> {
        let number: u64 = std::str::from_utf8(value).ok()?.parse().ok()?;
        Some(if number < Self::NO_DELIVERY_COUNTS / 2 {
            Self::Deliveries(number)
        } else {
            Self::Attempts(Self::NO_DELIVERY_COUNTS.saturating_sub(number))
        })
    }
}

impl<'a> OffsetIncrement<'a> {
    /// Creates an addition of further deliveries of a call.
    #[must_use]
    pub fn new(queue: &'a QueueName, call: &'a CallRef, deliveries: u64) -> Self {
        Self { queue, call, deliveries, unanswered: AtomicU64::new(0) }
    }

    /// Adds them, even if other programs do so at the same time. Adds nothing if only the number of
    /// attempts is stored.
    pub async fn write(&self, js: &Context) -> Result<(), NatsError> {
        let subject = ATTEMPT_OFFSETS.subject(&key(self.queue, &self.call.id, self.call.sequence));
        loop {
            let value = last_message(js, &ATTEMPT_OFFSETS.stream(), &subject).await?;
            let revision = value.as_ref().map_or(0, |value| value.sequence);
            let before = value
                .and_then(|value| AttemptOffset::decode(&value.payload))
                .unwrap_or(AttemptOffset::Deliveries(0));
            let AttemptOffset::Deliveries(before) = before else { return Ok(()) };
            let Some(sum) = self.sum(before) else { return Ok(()) };
            let entry = PublishMessage::build()
                .payload(AttemptOffset::Deliveries(sum).encode().into())
                .expected_last_subject_sequence(revision);
            let written = async { js.send_publish(subject.clone(), entry).await?.await };
            match written.await.map_err(NatsError::during("write the attempt offset")) {
                Ok(_) => return Ok(()),
                Err(error) if PublishFailure::from_error(&error) == PublishFailure::Conflict => {
                    self.unanswered.store(0, Ordering::Relaxed);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Returns the sum to write over `before`; `None` if an earlier try has written it.
    fn sum(&self, before: u64) -> Option<u64> {
        let unanswered = self.unanswered.load(Ordering::Relaxed);
        if unanswered != 0 && before >= unanswered {
            return None;
        }
        let sum = before.saturating_add(self.deliveries);
        self.unanswered.store(sum, Ordering::Relaxed);
        Some(sum)
    }
}

/// Returns the stored record of the attempts of a call. Default: each delivery was an attempt.
pub async fn get(
    js: &Context,
    queue: &QueueName,
    call: &CallId,
    sequence: u64,
) -> Result<AttemptOffset, NatsError> {
    read(js, &key(queue, call, sequence)).await
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
        read(self.js, &self.key()).await
    }

    /// Stores their record.
    pub async fn set(&self, offset: AttemptOffset) -> Result<(), NatsError> {
        write(self.js, &self.key(), offset).await
    }

    fn key(&self) -> String {
        format!("{}-callback", key(self.queue, self.call, self.sequence))
    }
}

async fn read(js: &Context, key: &str) -> Result<AttemptOffset, NatsError> {
    let value = last_message(js, &ATTEMPT_OFFSETS.stream(), &ATTEMPT_OFFSETS.subject(key)).await?;
    Ok(value
        .and_then(|value| AttemptOffset::decode(&value.payload))
        .unwrap_or(AttemptOffset::Deliveries(0)))
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
        for offset in [AttemptOffset::Deliveries(3), AttemptOffset::Attempts(2)] {
            assert_eq!(AttemptOffset::decode(offset.encode().as_bytes()), Some(offset));
        }
        assert_eq!(AttemptOffset::Deliveries(3).encode(), "3");
        assert_eq!(AttemptOffset::Attempts(2).encode(), "999999999998");
        // Version 0.1 has added deliveries to it.
        assert_eq!(AttemptOffset::decode(b"1000000000001"), Some(AttemptOffset::Attempts(0)));
        for other in ["", "made 2", "x", "-1"] {
            assert_eq!(AttemptOffset::decode(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn an_addition_counts_once_however_often_it_is_written() {
        let (queue, call) =
            ("jobs".parse().unwrap(), CallRef { id: "id-1".parse().unwrap(), sequence: 7 });
        let addition = OffsetIncrement::new(&queue, &call, 2);
        assert_eq!(addition.sum(1), Some(3));
        // The server did not answer: it had written the sum, or not.
        assert_eq!(addition.sum(1), Some(3));
        assert_eq!(addition.sum(3), None);
    }

    #[test]
    fn the_delivery_after_lost_ones_is_the_next_attempt() {
        assert_eq!(5 - AttemptOffset::Attempts(1).at(5), 2);
        assert_eq!(AttemptOffset::Attempts(4).at(3), 0);
        assert_eq!(AttemptOffset::Deliveries(2).at(5), 2);
    }
}
