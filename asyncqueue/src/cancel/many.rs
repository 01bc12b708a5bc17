//! Cancels or removes all calls of a function or of a queue.

use std::{
    ops::{AddAssign, RangeInclusive},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use async_nats::jetstream::Context;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::time::Instant;

use super::{CallOutcome, CancelCounts, Canceller, MAX_CONCURRENT_CALLS, StoredCall};
use crate::{
    call::{CallRef, QueueLocation},
    jetstream::{
        MessageTotals, NatsError, count_messages, find_stream, first_message, message_totals,
    },
    names::FunctionName,
    raw_message::{RawMessage, next_raw_message},
    subject::{function_filter, parse_call_id},
};

/// Into how many parts the sequences of a stream are divided. Calls of one function may be close
/// together: with many more parts than are read concurrently, no part has most of them.
const MAX_PARTS: u64 = 256;

/// The calls that a queue stored at one moment, or those of one function.
#[doc(hidden)]
#[derive(Clone, Debug)]
pub struct StoredCalls {
    location: QueueLocation,
    filter: String,
    count: u64,
    without_id: u64,
    /// The sequences of the first call and of the last message. `None` if there are no calls.
    sequences: Option<(u64, u64)>,
    /// Whether they are the calls of all functions.
    is_all: bool,
    /// The last sequence of the stream.
    last: u64,
}

/// The outcome of the cancellation of many calls.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ManyCancelCounts {
    /// Calls by the outcome of their cancellation.
    pub calls: CancelCounts,
    /// Calls that are left, because their messages can't be read.
    pub unreadable: u64,
}

// === impl StoredCalls ===

impl StoredCalls {
    /// Finds the calls that a queue stores now, or those of one function.
    pub async fn find(
        js: &Context,
        location: QueueLocation,
        function: Option<&FunctionName>,
    ) -> Result<Self, NatsError> {
        let (stream, subject) = (&location.entry.stream, &location.entry.subject);
        let filter = function_filter(subject, function);
        let without_id = count_messages(js, stream, subject).await?;
        // Without a filter, the server does not have to list the subjects.
        let listed = function.map(|_| filter.as_str());
        let MessageTotals { messages, last_sequence } = message_totals(js, stream, listed).await?;
        let all = if listed.is_some() { messages } else { messages.saturating_sub(without_id) };
        let first = first_message(js, stream, &filter).await?;
        let count = if first.is_some() { all.max(1) } else { 0 };
        let sequences = first.map(|first| (first.sequence, last_sequence));
        let (is_all, last) = (function.is_none(), last_sequence);
        Ok(Self { location, filter, count, without_id, sequences, is_all, last })
    }

    /// Returns where the calls are.
    #[must_use]
    pub fn location(&self) -> &QueueLocation {
        &self.location
    }

    /// Returns how many calls there are at most.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Returns how many messages the queue stores that an `OpenFaaS` gateway wrote. Only their
    /// payloads name function and id, so that they are not among these calls.
    #[must_use]
    pub fn without_id(&self) -> u64 {
        self.without_id
    }

    /// Removes the calls, and returns how many. If they are those of all functions, the messages
    /// without an id too. Their clients get no result. A call that runs goes on, and is not
    /// repeated. Calls that were stored later are left.
    pub async fn purge(&self, js: &Context) -> Result<u64, NatsError> {
        const ACTION: &str = "remove the calls";
        // A purge below sequence 1 is a purge of everything for nats-server.
        if self.last == 0 {
            return Ok(0);
        }
        let found = find_stream(js, &self.location.entry.stream).await;
        let Some(stream) = found.map_err(NatsError::during(ACTION))? else { return Ok(0) };
        let purge = stream.purge().sequence(self.last.saturating_add(1));
        let purge = if self.is_all { purge } else { purge.filter(&self.filter) };
        Ok(purge.await.map_err(NatsError::during(ACTION))?.purged)
    }

    /// Cancels the calls, 16 at a time, each as if it were cancelled alone. Holds 16 messages in
    /// memory. Waits up to `timeout` for the workers that have a call, and after one that did not
    /// answer in time no longer than for a prompt answer: many calls may wait for workers that are
    /// gone. Calls that were stored later are left.
    ///
    /// # Errors
    ///
    /// The first failure ends it. A repeat cancels the rest.
    pub async fn cancel(
        &self,
        js: &Context,
        timeout: Duration,
    ) -> Result<ManyCancelCounts, NatsError> {
        let Some((first, last)) = self.sequences else { return Ok(ManyCancelCounts::default()) };
        let sweep = Sweep { js, calls: self, timeout, is_silent: AtomicBool::new(false) };
        // The futures are created before they are polled: closures of a stream could not be
        // spawned.
        let parts: Vec<_> = divide(first, last).map(|part| sweep.cancel_part(part)).collect();
        let mut cancelled = stream::iter(parts).buffer_unordered(MAX_CONCURRENT_CALLS);
        let mut counts = ManyCancelCounts::default();
        while let Some(of_part) = cancelled.try_next().await? {
            counts += of_part;
        }
        Ok(counts)
    }
}

/// The cancellation of [`StoredCalls`].
struct Sweep<'a> {
    js: &'a Context,
    calls: &'a StoredCalls,
    timeout: Duration,
    /// Whether a worker did not answer in time.
    is_silent: AtomicBool,
}

impl Sweep<'_> {
    /// Cancels the calls with these sequences.
    async fn cancel_part(
        &self,
        sequences: RangeInclusive<u64>,
    ) -> Result<ManyCancelCounts, NatsError> {
        let StoredCalls { location, filter, .. } = self.calls;
        let mut counts = ManyCancelCounts::default();
        let (mut next, last) = sequences.into_inner();
        while next <= last
            && let Some(message) =
                next_raw_message(self.js, &location.entry.stream, filter, next).await?
            && message.sequence <= last
        {
            next = message.sequence + 1;
            match read_call(message, &location.entry.subject) {
                Some(stored) => counts.calls.count(self.cancel_call(&stored).await?),
                None => counts.unreadable += 1,
            }
        }
        Ok(counts)
    }

    async fn cancel_call(&self, stored: &StoredCall) -> Result<CallOutcome, NatsError> {
        let is_silent = self.is_silent.load(Ordering::Relaxed);
        let timeout = if is_silent { Duration::ZERO } else { self.timeout };
        let deadline = Instant::now() + timeout;
        let canceller = Canceller { js: self.js, location: &self.calls.location, deadline };
        let outcome = canceller.cancel(stored).await?;
        if outcome == CallOutcome::Unconfirmed {
            self.is_silent.store(true, Ordering::Relaxed);
        }
        Ok(outcome)
    }
}

// === impl ManyCancelCounts ===

impl AddAssign for ManyCancelCounts {
    fn add_assign(&mut self, other: Self) {
        self.calls += other.calls;
        self.unreadable += other.unreadable;
    }
}

/// Reads a call from its message; `None` if its subject or its headers can't be read.
fn read_call(message: RawMessage, queue_subject: &str) -> Option<StoredCall> {
    let headers = message.read_headers().ok()?;
    let RawMessage { sequence, subject, .. } = message;
    let id = parse_call_id(&subject, queue_subject)?;
    Some(StoredCall { call: CallRef { id, sequence }, subject, headers })
}

/// Divides sequences into parts of the same size, in order.
fn divide(first: u64, last: u64) -> impl Iterator<Item = RangeInclusive<u64>> {
    let size = last.saturating_sub(first) / MAX_PARTS + 1;
    let step = usize::try_from(size).unwrap_or(usize::MAX);
    (first..=last).step_by(step).map(move |from| from..=from.saturating_add(size - 1).min(last))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parts_are_all_sequences_once(first in 1_u64..1_000, span in 0_u64..2_000) {
            let last = first + span;
            let parts: Vec<_> = divide(first, last).collect();
            prop_assert!(parts.len() as u64 <= MAX_PARTS, "{}", parts.len());
            prop_assert!(parts.iter().cloned().flatten().eq(first..=last));
        }
    }

    #[test]
    fn no_sequence_is_too_large() {
        for (first, last) in [(1, u64::MAX), (u64::MAX, u64::MAX), (u64::MAX - 300, u64::MAX)] {
            let parts: Vec<_> = divide(first, last).collect();
            assert!(parts.len() as u64 <= MAX_PARTS, "{first}");
            assert_eq!(parts.last().map(|part| *part.end()), Some(last), "{first}");
        }
        assert_eq!(divide(7, 6).count(), 0);
    }

    #[test]
    fn only_a_readable_call_is_cancelled() {
        let message = |subject: &str, headers: &[u8]| RawMessage {
            sequence: 7,
            stored_at: jiff::Timestamp::UNIX_EPOCH,
            subject: subject.to_owned(),
            headers: headers.to_vec(),
            payload: bytes::Bytes::new(),
        };
        let read = |subject: &str, headers: &[u8]| read_call(message(subject, headers), "jobs");
        let call = read("jobs.dev.figlet.id-1", b"NATS/1.0\r\nA: b\r\n\r\n").unwrap();
        assert_eq!((call.call.id.as_str(), call.call.sequence), ("id-1", 7));
        assert!(call.headers.get("A").is_some());
        assert!(read("jobs.dev.figlet.id-1", b"NATS/1.0\r\nno colon\r\n\r\n").is_none());
        assert!(read("jobs", b"").is_none());
    }
}
