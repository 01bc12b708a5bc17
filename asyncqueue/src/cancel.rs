//! Cancels calls: queued, running, or waiting for their next attempt.
//!
//! A call counts as cancelled when it can't start any more, and not before. The steps have this
//! order, so that a program that comes late still finds out:
//!
//! 1. Write the tombstone. Workers watch tombstones, and look up the one of a call that was
//!    delivered before. A call that has a tombstone of another kind has ended.
//! 2. Store the result for the client, unless another result is stored already: then the call has
//!    ended.
//! 3. Remove the call's message. After that, no server delivers it.
//! 4. Confirm. Either the message was never delivered, or its worker answers that the call does not
//!    start, or two leases have passed since the tombstone was written.
//!
//! Without the confirmation the tombstone stays, but the cancellation is not certain: a repeat
//! finds the tombstone and asks again.

use std::{ops::AddAssign, time::Duration};

use async_nats::{
    HeaderMap as NatsHeaders,
    jetstream::{Context, message::PublishMessage},
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use crate::{
    batch::{CallEnd, record_end},
    batch_member::BatchMember,
    call::{CANCELLED_STATUS, CallQuery, CallRef, CandidateQueues, QueueLocation},
    consumer_progress::{self, Progress},
    directory::ResultsSettings,
    end_state::EndState,
    jetstream::{NatsError, delete_message, last_message, next_message},
    kept_results::ResultsStream,
    message::{callback::Callback, kept_result::KeptResult, native},
    names::QueueName,
    publish_failure::{CONFLICT_RETRY_DELAY, PublishFailure},
    reserve, stored_result,
    subject::{call_filter, result_subject},
    tombstone::{self, Mark, Tombstone, bucket_not_found},
    worker_requests::{
        REPLY_ENDED, REPLY_HELD, REPLY_RUNNING, REPLY_WAITING, WorkerRequest, cancel_subject,
    },
};

mod batch;
mod many;
mod request;

#[doc(hidden)]
pub use batch::{BatchCancelCounts, cancel_batch, cancel_rest};
#[doc(hidden)]
pub use many::{ManyCancelCounts, StoredCalls};
pub use request::{CancelOutcome, cancel_calls};

/// Maximum time that a worker that is not busy takes to reply.
const PROMPT_REPLY_TIMEOUT: Duration = Duration::from_millis(250);

/// Minimum time for which a result is stored again and again while its worker stores it, too.
const CONFLICT_TIMEOUT: Duration = Duration::from_millis(500);

/// How much the clock of the server may differ from what a worker knows of it.
const CLOCK_ERROR: Duration = Duration::from_secs(1);

/// Maximum number of calls with one id that one request cancels. A repeat cancels more.
pub(crate) const MAX_CALLS: usize = 1_000;

/// Number of calls that are cancelled concurrently on one queue.
const MAX_CONCURRENT_CALLS: usize = 16;

/// Number of queues that are asked concurrently.
const MAX_CONCURRENT_QUEUES: usize = 64;

/// The outcome of the cancellation of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CallOutcome {
    /// The call was queued or waited for its next attempt. It does not start any more.
    Queued,
    /// The call was running. Its worker has closed the connection to the function.
    Running,
    /// The call was cancelled before.
    AlreadyCancelled,
    /// The call has ended in another way.
    Ended(EndState),
    /// The call has a tombstone, but a worker that does not answer may still start it. A repeat is
    /// safe.
    Unconfirmed,
}

/// Counts calls by the outcome of their cancellation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CancelCounts {
    /// Calls that are cancelled, now or before.
    pub cancelled: u64,
    /// Those of `cancelled` that were running.
    pub running: u64,
    /// Those of `cancelled` that were cancelled before.
    pub before: u64,
    /// Calls that had ended in another way.
    pub ended: u64,
    /// How the last of `ended` had ended.
    pub end: Option<EndState>,
    /// Calls whose cancellation is not certain yet.
    pub unconfirmed: u64,
}

// === impl CancelCounts ===

impl CancelCounts {
    fn count(&mut self, outcome: CallOutcome) {
        match outcome {
            CallOutcome::Queued => self.cancelled += 1,
            CallOutcome::Running => {
                self.cancelled += 1;
                self.running += 1;
            }
            CallOutcome::AlreadyCancelled => {
                self.cancelled += 1;
                self.before += 1;
            }
            CallOutcome::Ended(end) => {
                self.ended += 1;
                self.end = Some(end);
            }
            CallOutcome::Unconfirmed => self.unconfirmed += 1,
        }
    }

    /// Returns whether no call was found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cancelled + self.ended + self.unconfirmed == 0
    }
}

impl AddAssign for CancelCounts {
    fn add_assign(&mut self, other: Self) {
        self.cancelled += other.cancelled;
        self.running += other.running;
        self.before += other.before;
        self.ended += other.ended;
        self.end = other.end.or(self.end);
        self.unconfirmed += other.unconfirmed;
    }
}

/// Returns whether a stored call is cancelled.
#[doc(hidden)]
pub async fn is_cancelled(
    js: &Context,
    queue: &QueueName,
    call: &CallRef,
) -> Result<bool, NatsError> {
    let tombstone = tombstone::read(js, queue, call).await?;
    Ok(tombstone.is_some_and(|tombstone| tombstone.mark.is_cancelled()))
}

/// Cancels all calls with an id that are stored now, or were cancelled before without a
/// confirmation. Waits up to `timeout` for the confirmations. The counts are 0 if none of these
/// queues has such a call.
#[doc(hidden)]
pub async fn cancel_pending(
    js: &Context,
    candidates: &CandidateQueues,
    query: &CallQuery,
    timeout: Duration,
) -> Result<CancelCounts, NatsError> {
    let deadline = Instant::now() + timeout;
    let tally = cancel_among(js, &candidates.named, query, deadline).await?;
    if tally.is_empty() && !candidates.rest.is_empty() {
        return cancel_among(js, &candidates.rest, query, deadline).await;
    }
    Ok(tally)
}

async fn cancel_among(
    js: &Context,
    locations: &[QueueLocation],
    query: &CallQuery,
    deadline: Instant,
) -> Result<CancelCounts, NatsError> {
    // The futures are created before they are polled: closures of a stream could not be spawned.
    let cancelling: Vec<_> = locations
        .iter()
        .map(|location| Canceller { js, location, deadline }.cancel_stored(query))
        .collect();
    let mut found = stream::iter(cancelling).buffer_unordered(MAX_CONCURRENT_QUEUES);
    let (mut tally, mut seen) = (CancelCounts::default(), Vec::new());
    while let Some((location, cancelled)) = found.try_next().await? {
        for (call, outcome) in cancelled {
            tally.count(outcome);
            seen.push((&location.queue, call));
        }
    }
    drop(found);
    // Calls that are not stored any more: an earlier request removed them, or a worker ended them.
    let queue = match locations {
        [only] => Some(&only.queue),
        _ => None,
    };
    for tombstone in tombstone::all(js, queue, &query.id, MAX_CALLS).await? {
        let Tombstone { queue, call, mark, .. } = &tombstone;
        if !mark.is_cancelled() {
            continue;
        }
        let Some(location) = locations.iter().find(|location| location.queue == *queue) else {
            continue;
        };
        if seen.iter().any(|(queue, seen)| **queue == location.queue && seen == call) {
            continue;
        }
        let outcome = if *mark == Mark::Ended(EndState::Cancelled) {
            CallOutcome::AlreadyCancelled
        } else {
            Canceller { js, location, deadline }.confirm_removed(&tombstone).await?
        };
        tally.count(outcome);
    }
    Ok(tally)
}

/// Cancels calls of one queue.
struct Canceller<'a> {
    js: &'a Context,
    location: &'a QueueLocation,
    /// How long to wait for confirmations.
    deadline: Instant,
}

/// A call whose message was on the queue's stream.
struct StoredCall {
    call: CallRef,
    subject: String,
    headers: NatsHeaders,
}

impl StoredCall {
    /// Returns the batch that the call belongs to.
    fn batch(&self) -> Option<BatchMember> {
        native::decode(&self.headers, Bytes::new()).ok()?.batch
    }
}

/// What was observed of a call while it was cancelled.
#[derive(Clone, Copy, Debug)]
struct Observation {
    /// Just before its message was removed, the call was not delivered yet.
    was_undelivered: bool,
    /// The message was removed for this request.
    is_removed: bool,
    /// The result for the client is that of the cancellation.
    is_result_stored: bool,
}

/// The result of a cancelled call, after an attempt to store it.
enum StoredResult {
    /// No client wants a result.
    NotRequested,
    /// The result of the cancellation is stored, now or before.
    Cancellation,
    /// A result of another kind was stored first.
    Other(EndState),
    /// A result was stored before and is no longer there: it was delivered.
    Delivered,
}

impl<'a> Canceller<'a> {
    /// Cancels the calls with an id that are stored now.
    async fn cancel_stored(
        self,
        query: &CallQuery,
    ) -> Result<(&'a QueueLocation, Vec<(CallRef, CallOutcome)>), NatsError> {
        let stored = self.stored(query).await?;
        let cancelling: Vec<_> = stored.iter().map(|stored| self.cancel(stored)).collect();
        // Keeps the order of the calls, to which the outcomes belong.
        let outcomes: Vec<_> =
            stream::iter(cancelling).buffered(MAX_CONCURRENT_CALLS).try_collect().await?;
        Ok((self.location, stored.into_iter().map(|stored| stored.call).zip(outcomes).collect()))
    }

    /// Returns the calls with an id that are stored now, oldest first.
    async fn stored(&self, query: &CallQuery) -> Result<Vec<StoredCall>, NatsError> {
        let CallQuery { id, function } = query;
        let stream = &self.location.entry.stream;
        let filter = call_filter(&self.location.entry.subject, function.as_ref(), id);
        // Calls that are stored later belong to another request.
        let Some(last) = last_message(self.js, stream, &filter).await? else {
            return Ok(Vec::new());
        };
        let (mut calls, mut next) = (Vec::new(), 1);
        while calls.len() < MAX_CALLS
            && let Some(message) = next_message(self.js, stream, &filter, next).await?
            && message.sequence <= last.sequence
        {
            next = message.sequence + 1;
            calls.push(StoredCall {
                call: CallRef { id: id.clone(), sequence: message.sequence },
                subject: message.subject.into_string(),
                headers: message.headers,
            });
        }
        Ok(calls)
    }

    /// Cancels a call whose message is on the queue's stream, or was when it was searched for.
    async fn cancel(&self, stored: &StoredCall) -> Result<CallOutcome, NatsError> {
        let outcome = self.cancel_alone(stored).await?;
        let is_cancelled = matches!(
            outcome,
            CallOutcome::Queued | CallOutcome::Running | CallOutcome::AlreadyCancelled
        );
        // Its worker records any other end.
        if is_cancelled && let Some(member) = stored.batch() {
            let (js, call, end) = (self.js, &stored.call, CallEnd::Cancelled);
            let record = || record_end(js, &member, call, end, CANCELLED_STATUS);
            // The call is cancelled. The sweep of batches finds that by its tombstone.
            if let Err(error) = reserve::with_space(js, record).await {
                let (batch, call_id) = (&member.id, &call.id);
                warn!(%batch, %call_id, "failed to record the end of a call in its batch: {error}");
            }
        }
        Ok(outcome)
    }

    async fn cancel_alone(
        &self,
        StoredCall { call, subject, headers }: &StoredCall,
    ) -> Result<CallOutcome, NatsError> {
        let write = || tombstone::write_once(self.js, &self.location.queue, call, Mark::Cancelling);
        let written = reserve::with_space(self.js, write).await?.ok_or_else(bucket_not_found)?;
        let was_confirmed = match written.mark {
            Mark::Cancelling => false,
            Mark::Ended(EndState::Cancelled) => true,
            Mark::Ended(end) => return Ok(CallOutcome::Ended(end)),
        };
        let is_result_stored = match self.store_result(call, headers).await? {
            StoredResult::Cancellation => true,
            // The result of the call's own end, or one that the worker stored because of the
            // tombstone: the worker knows which.
            StoredResult::NotRequested | StoredResult::Delivered => false,
            StoredResult::Other(end) => return self.record_ended(call, end).await,
        };
        let was_undelivered = self.is_undelivered(call, subject).await?;
        // Only this message: a call that gets the id later is another call.
        let is_removed = delete_message(
            self.js,
            &self.location.entry.stream,
            call.sequence,
            "remove the call from its queue",
        )
        .await?;
        if was_confirmed {
            return Ok(CallOutcome::AlreadyCancelled);
        }
        if self.is_before_start(call, headers).await? {
            return self.record_confirmed(call, CallOutcome::Queued).await;
        }
        let seen = Observation { was_undelivered, is_removed, is_result_stored };
        let (outcome, is_certain) = self.confirm(call, subject, seen).await?;
        if is_result_stored && outcome == CallOutcome::Unconfirmed {
            // A worker does the same before it posts that result, but a worker of an earlier
            // version does not.
            tombstone::record_result(self.js, &self.location.queue, call).await?;
        }
        if !is_certain {
            return Ok(outcome);
        }
        let outcome = self.record_confirmed(call, outcome).await?;
        if matches!(outcome, CallOutcome::Queued | CallOutcome::Running) {
            self.keep_result(call, headers).await;
        }
        Ok(outcome)
    }

    /// Keeps the result of a cancelled call, if its client or the queue asks for that. The call is
    /// cancelled whether that succeeds or not.
    async fn keep_result(&self, call: &CallRef, headers: &NatsHeaders) {
        let QueueLocation { queue, entry } = self.location;
        let Ok(invocation) = native::decode(headers, Bytes::new()) else { return };
        let settings = ResultsSettings::of(Some(entry));
        let Some(retention) = settings.retention_of(invocation.keep_result) else { return };
        let (end, status) = (EndState::Cancelled, CANCELLED_STATUS);
        let result = KeptResult::new(&invocation, call.sequence, end, status);
        let stream = ResultsStream::new(self.js.clone(), queue.clone(), entry.stream.clone());
        if let Err(error) = stream.store(&result, retention, settings).await {
            let call_id = &call.id;
            info!(%call_id, %queue, %error, "failed to keep the result of a cancelled call");
        }
    }

    /// Returns whether a call was cancelled well before it was due. It is delayed, and a worker
    /// looks up the tombstone of a delayed call when the call is due.
    async fn is_before_start(
        &self,
        call: &CallRef,
        headers: &NatsHeaders,
    ) -> Result<bool, NatsError> {
        let Ok(Some(not_before)) = native::not_before(headers) else { return Ok(false) };
        let tombstone = tombstone::read(self.js, &self.location.queue, call).await?;
        Ok(tombstone.is_some_and(|tombstone| is_well_before(tombstone.at, not_before)))
    }

    /// Waits until it is certain that a call with a tombstone does not start, and returns what the
    /// call was doing.
    async fn confirm(
        &self,
        call: &CallRef,
        subject: &str,
        seen: Observation,
    ) -> Result<(CallOutcome, bool), NatsError> {
        let Observation { was_undelivered, is_removed, is_result_stored } = seen;
        let payload = call.encode().into();
        let mut request =
            WorkerRequest::send(&self.js.client(), cancel_subject(&self.location.queue), payload)
                .await?;
        // The message is not on the stream any more.
        if self.is_undelivered(call, subject).await? {
            return Ok((CallOutcome::Queued, true));
        }
        let answer =
            match request.reply(Instant::now() + PROMPT_REPLY_TIMEOUT, CancelReply::read).await {
                // The consumer passed the message at this moment. If it was delivered, its worker
                // would have answered, or has not read it yet. A worker that reads it so late looks
                // up the tombstone first.
                None if was_undelivered && is_removed => return Ok((CallOutcome::Queued, true)),
                None => match self.wait_for_reply(&mut request, call).await? {
                    WaitOutcome::Replied(answer) => Some(answer),
                    WaitOutcome::Confirmed => return Ok((CallOutcome::Queued, true)),
                    WaitOutcome::Ended(end) => return Ok((CallOutcome::Ended(end), false)),
                    WaitOutcome::TimedOut => None,
                },
                answer => answer,
            };
        Ok(match answer {
            Some(CancelReply::Running) => (CallOutcome::Running, true),
            // The end of the call is the result that was stored first, which is that of the
            // cancellation.
            Some(CancelReply::Ended) if is_result_stored => (CallOutcome::Queued, true),
            Some(CancelReply::Ended) => (self.record_ended(call, EndState::Done).await?, false),
            Some(CancelReply::DoesNotStart) => (CallOutcome::Queued, true),
            None => (CallOutcome::Unconfirmed, false),
        })
    }

    /// Waits until a worker answers, another request has confirmed the call, or the time is over.
    async fn wait_for_reply(
        &self,
        request: &mut WorkerRequest,
        call: &CallRef,
    ) -> Result<WaitOutcome, NatsError> {
        loop {
            let tombstone = tombstone::read(self.js, &self.location.queue, call).await?;
            match tombstone.as_ref().map(|tombstone| tombstone.mark) {
                Some(Mark::Cancelling) | None => {}
                Some(Mark::Ended(EndState::Cancelled)) => return Ok(WaitOutcome::Confirmed),
                Some(Mark::Ended(end)) => return Ok(WaitOutcome::Ended(end)),
            }
            let progress =
                consumer_progress::read(self.js, &self.location.entry.stream, &self.location.queue)
                    .await?;
            let is_safe_by_now = tombstone.zip(progress).is_some_and(|(tombstone, progress)| {
                tombstone.is_safe(progress.now, progress.lease)
            });
            if is_safe_by_now {
                return Ok(WaitOutcome::Confirmed);
            }
            let now = Instant::now();
            if now >= self.deadline {
                return Ok(WaitOutcome::TimedOut);
            }
            let until = self.deadline.min(now + PROMPT_REPLY_TIMEOUT);
            if let Some(answer) = request.reply(until, CancelReply::read).await {
                return Ok(WaitOutcome::Replied(answer));
            }
            // If no worker listens, the answer to that comes at once.
            sleep_until(until).await;
        }
    }

    /// Returns whether the call on a subject was not delivered yet.
    async fn is_undelivered(&self, call: &CallRef, subject: &str) -> Result<bool, NatsError> {
        let QueueLocation { queue, entry } = self.location;
        let progress =
            consumer_progress::read_for_call(self.js, &entry.stream, queue, subject).await?;
        Ok(Progress::is_undelivered(progress.as_ref(), call.sequence))
    }

    /// Confirms the cancellation of a call that an earlier request removed from its stream.
    async fn confirm_removed(&self, tombstone: &Tombstone) -> Result<CallOutcome, NatsError> {
        let call = &tombstone.call;
        // The program that wrote the tombstone may have died before it found that the call had
        // ended.
        if let Some(end) = self.stored_end(call).await?.filter(|end| *end != EndState::Cancelled) {
            return self.record_ended(call, end).await;
        }
        let subject = cancel_subject(&self.location.queue);
        let mut request =
            WorkerRequest::send(&self.js.client(), subject, call.encode().into()).await?;
        match self.wait_for_reply(&mut request, call).await? {
            WaitOutcome::Replied(CancelReply::Ended)
                if self.stored_end(call).await? != Some(EndState::Cancelled) =>
            {
                return self.record_ended(call, EndState::Done).await;
            }
            WaitOutcome::Replied(_) | WaitOutcome::Confirmed => {}
            WaitOutcome::Ended(end) => return Ok(CallOutcome::Ended(end)),
            WaitOutcome::TimedOut => return Ok(CallOutcome::Unconfirmed),
        }
        self.record_confirmed(call, CallOutcome::AlreadyCancelled).await
    }

    /// Records that the cancellation of a call is certain. Does not if the worker that had the call
    /// has recorded since then that it had ended by itself before.
    async fn record_confirmed(
        &self,
        call: &CallRef,
        outcome: CallOutcome,
    ) -> Result<CallOutcome, NatsError> {
        let confirmed = Mark::Ended(EndState::Cancelled);
        let mark =
            tombstone::update_cancelled(self.js, &self.location.queue, call, confirmed).await?;
        Ok(match mark {
            Some(Mark::Ended(EndState::Done)) => CallOutcome::Ended(EndState::Done),
            _ => outcome,
        })
    }

    /// Returns how a call ended, from the result for its client, if one is stored now.
    async fn stored_end(&self, call: &CallRef) -> Result<Option<EndState>, NatsError> {
        stored_result::end_of_call(self.js, &self.location.queue, call).await
    }

    /// Records in the tombstone that the call had ended before it was cancelled.
    async fn record_ended(&self, call: &CallRef, end: EndState) -> Result<CallOutcome, NatsError> {
        tombstone::update_cancelled(
            self.js,
            &self.location.queue,
            call,
            Mark::Ended(EndState::Done),
        )
        .await?;
        Ok(CallOutcome::Ended(end))
    }

    /// Stores the result of a cancelled call for its client, unless another result of the call is
    /// stored already.
    async fn store_result(
        &self,
        call: &CallRef,
        headers: &NatsHeaders,
    ) -> Result<StoredResult, NatsError> {
        let Ok(mut invocation) = native::decode(headers, Bytes::new()) else {
            return Ok(StoredResult::NotRequested);
        };
        let Some(url) = invocation.callback_url.take() else {
            return Ok(StoredResult::NotRequested);
        };
        let result =
            Callback::new(&invocation, url, call.sequence, EndState::Cancelled, CANCELLED_STATUS);
        let subject =
            result_subject(&self.location.queue, &invocation.function, &call.id, call.sequence);
        let store = || async {
            let message = PublishMessage::build().headers(result.encode());
            let stored = async { self.js.send_publish(subject.clone(), message).await?.await };
            stored.await.map_err(NatsError::during("store the result for the client"))
        };
        let deadline = self.deadline.max(Instant::now() + CONFLICT_TIMEOUT);
        let ack = loop {
            match reserve::with_space(self.js, store).await {
                Err(error)
                    if PublishFailure::from_error(&error) == PublishFailure::InProcess
                        && Instant::now() < deadline =>
                {
                    // Its worker is storing it: because of the tombstone, or as the end of the
                    // call.
                    sleep(CONFLICT_RETRY_DELAY).await;
                }
                stored => break stored?,
            }
        };
        if !ack.duplicate {
            return Ok(StoredResult::Cancellation);
        }
        Ok(match stored_result::end_at(self.js, &self.location.queue, call, ack.sequence).await? {
            Some(EndState::Cancelled) => StoredResult::Cancellation,
            Some(end) => StoredResult::Other(end),
            None => StoredResult::Delivered,
        })
    }
}

/// Returns whether a tombstone was written so long before its call was due that each worker that
/// would start the call finds it. All times are the server's.
fn is_well_before(written_at: Timestamp, not_before: Timestamp) -> bool {
    not_before.duration_since(written_at).unsigned_abs() > CLOCK_ERROR && written_at < not_before
}

/// The outcome of waiting for a worker's answer.
enum WaitOutcome {
    Replied(CancelReply),
    /// Another request has confirmed the cancellation, or enough time has passed.
    Confirmed,
    /// The call has ended in another way.
    Ended(EndState),
    TimedOut,
}

/// A worker's answer about a cancelled call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CancelReply {
    Running,
    DoesNotStart,
    Ended,
}

impl CancelReply {
    fn read(message: &async_nats::Message) -> Option<Self> {
        match std::str::from_utf8(&message.payload).ok()? {
            REPLY_RUNNING => Some(Self::Running),
            REPLY_HELD | REPLY_WAITING => Some(Self::DoesNotStart),
            REPLY_ENDED => Some(Self::Ended),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tombstone_is_found_if_it_precedes_the_due_time() {
        let at = |second| Timestamp::from_second(second).unwrap();
        assert!(is_well_before(at(0), at(2)));
        for (written, due) in [(0, 1), (0, 0), (5, 0)] {
            assert!(!is_well_before(at(written), at(due)), "{written} {due}");
        }
    }

    #[test]
    fn a_tally_counts_each_outcome_once() {
        let mut tally = CancelCounts::default();
        assert!(tally.is_empty());
        for outcome in [
            CallOutcome::Queued,
            CallOutcome::Running,
            CallOutcome::AlreadyCancelled,
            CallOutcome::Ended(EndState::Dead),
            CallOutcome::Unconfirmed,
        ] {
            tally.count(outcome);
        }
        let expected = CancelCounts {
            cancelled: 3,
            running: 1,
            before: 1,
            ended: 1,
            end: Some(EndState::Dead),
            unconfirmed: 1,
        };
        assert_eq!(tally, expected);

        let done = CancelCounts { ended: 1, end: Some(EndState::Done), ..CancelCounts::default() };
        let (mut sum, mut other) = (tally, tally);
        sum += done;
        assert_eq!(sum, CancelCounts { ended: 2, end: Some(EndState::Done), ..expected });
        other += CancelCounts::default();
        assert_eq!(other, expected);
    }
}
