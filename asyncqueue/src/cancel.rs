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

use std::time::Duration;

use async_nats::{
    HeaderMap as NatsHeaders,
    jetstream::{Context, message::PublishMessage},
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    consumer_progress::{self, Progress},
    end_state::EndState,
    locate::{Place, Places, Wanted},
    message::{callback::Callback, native},
    name::QueueName,
    peek::{self, Inquiry, NatsError, failed},
    publish_failure::{IN_PROCESS_PAUSE, PublishFailure},
    remove::remove,
    reserve, stored_result,
    subject::{call_filter, result_subject},
    tombstone::{self, Mark, Tombstone, no_bucket},
};
pub use crate::{stored_call::StoredCall, tombstone::BUCKET};

mod request;

pub use request::{Verdict, request};

/// The status that the client gets for a cancelled call: the client closed the request.
pub const CANCELLED: u16 = 499;

/// A worker's answer: it was running the call, and has closed the connection to the function.
pub const WAS_RUNNING: &str = "running";

/// A worker's answer: it has the call, or had it, and does not start it.
pub const IS_HELD: &str = "held";

/// A worker's answer: it has handed the call back, and the next attempt is not due yet.
pub const IS_WAITING: &str = "waiting";

/// A worker's answer: the call has ended by itself in this worker.
pub const HAS_ENDED: &str = "ended";

/// Maximum time that a worker that is not busy takes to answer.
const PROMPT: Duration = Duration::from_millis(250);

/// Maximum number of calls with one id that one request cancels. A repeat cancels more.
pub const MAX_CALLS: usize = 1_000;

/// Number of calls with one id that are cancelled concurrently on one queue.
const AT_ONCE: usize = 16;

/// Number of queues that are asked concurrently.
const PLACES_AT_ONCE: usize = 64;

/// The outcome of a cancellation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelOutcome {
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

/// Counts the calls with one id by the outcome of their cancellation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
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

/// Returns the subject on which a queue's workers receive cancellations. The reply subject is for
/// their answers.
#[must_use]
pub fn broadcast_subject(queue: &QueueName) -> String {
    format!("asyncqueue.cancel.{queue}")
}

// === impl Tally ===

impl Tally {
    fn count(&mut self, outcome: CancelOutcome) {
        match outcome {
            CancelOutcome::Queued => self.cancelled += 1,
            CancelOutcome::Running => {
                self.cancelled += 1;
                self.running += 1;
            }
            CancelOutcome::AlreadyCancelled => {
                self.cancelled += 1;
                self.before += 1;
            }
            CancelOutcome::Ended(end) => {
                self.ended += 1;
                self.end = Some(end);
            }
            CancelOutcome::Unconfirmed => self.unconfirmed += 1,
        }
    }

    /// Returns whether no call was found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cancelled + self.ended + self.unconfirmed == 0
    }
}

/// Returns whether a stored call is cancelled.
pub async fn is_cancelled(
    js: &Context,
    queue: &QueueName,
    call: &StoredCall,
) -> Result<bool, NatsError> {
    let tombstone = tombstone::read(js, queue, call).await?;
    Ok(tombstone.is_some_and(|tombstone| matches!(tombstone.mark, Mark::Cancelled { .. })))
}

/// Cancels all calls with an id that are stored now, or were cancelled before without a
/// confirmation. Waits up to `patience` for the confirmations. The tally is empty if none of these
/// places has such a call.
pub async fn cancel(
    js: &Context,
    places: &Places,
    wanted: &Wanted,
    patience: Duration,
) -> Result<Tally, NatsError> {
    let deadline = Instant::now() + patience;
    let tally = cancel_among(js, &places.named, wanted, deadline).await?;
    if tally.is_empty() && !places.rest.is_empty() {
        return cancel_among(js, &places.rest, wanted, deadline).await;
    }
    Ok(tally)
}

async fn cancel_among(
    js: &Context,
    places: &[Place],
    wanted: &Wanted,
    deadline: Instant,
) -> Result<Tally, NatsError> {
    // The futures are created before they are polled: closures of a stream could not be spawned.
    let cancelling: Vec<_> = places
        .iter()
        .map(|place| Canceller { js, place, deadline }.cancel_stored(wanted))
        .collect();
    let mut found = stream::iter(cancelling).buffer_unordered(PLACES_AT_ONCE);
    let (mut tally, mut seen) = (Tally::default(), Vec::new());
    while let Some((place, cancelled)) = found.try_next().await? {
        for (call, outcome) in cancelled {
            tally.count(outcome);
            seen.push((&place.queue, call));
        }
    }
    drop(found);
    // Calls that are not stored any more: an earlier request removed them, or a worker ended them.
    let queue = match places {
        [only] => Some(&only.queue),
        _ => None,
    };
    for tombstone in tombstone::all(js, queue, &wanted.id, MAX_CALLS).await? {
        let Tombstone { queue, call, mark: Mark::Cancelled { confirmed }, .. } = &tombstone else {
            continue;
        };
        let Some(place) = places.iter().find(|place| place.queue == *queue) else { continue };
        if seen.iter().any(|(queue, seen)| **queue == place.queue && seen == call) {
            continue;
        }
        let outcome = if *confirmed {
            CancelOutcome::AlreadyCancelled
        } else {
            Canceller { js, place, deadline }.confirm_removed(&tombstone).await?
        };
        tally.count(outcome);
    }
    Ok(tally)
}

/// Cancels calls of one queue.
struct Canceller<'a> {
    js: &'a Context,
    place: &'a Place,
    /// How long to wait for confirmations.
    deadline: Instant,
}

/// What was observed of a call while it was cancelled.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// Just before its message was removed, the call was not delivered yet.
    was_undelivered: bool,
    /// The message was removed for this request.
    is_removed: bool,
    /// The result for the client is that of the cancellation.
    is_told: bool,
}

/// The result of a cancelled call, after an attempt to store it.
enum ResultOf {
    /// No client wants a result.
    NotWanted,
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
        wanted: &Wanted,
    ) -> Result<(&'a Place, Vec<(StoredCall, CancelOutcome)>), NatsError> {
        let stored = self.stored(wanted).await?;
        let cancelling: Vec<_> =
            stored.iter().map(|(call, headers)| self.cancel(call, headers)).collect();
        // Keeps the order of the calls, to which the outcomes belong.
        let outcomes: Vec<_> = stream::iter(cancelling).buffered(AT_ONCE).try_collect().await?;
        Ok((self.place, stored.into_iter().map(|(call, _)| call).zip(outcomes).collect()))
    }

    /// Returns the calls with an id that are stored now, with their headers, oldest first.
    async fn stored(&self, wanted: &Wanted) -> Result<Vec<(StoredCall, NatsHeaders)>, NatsError> {
        let Wanted { id, function } = wanted;
        let stream = &self.place.entry.stream;
        let filter = call_filter(&self.place.entry.subject, function.as_ref(), id);
        // Calls that are stored later belong to another request.
        let Some(last) = peek::last_message(self.js, stream, &filter).await? else {
            return Ok(Vec::new());
        };
        let (mut calls, mut next) = (Vec::new(), 1);
        while calls.len() < MAX_CALLS
            && let Some(message) = peek::next_message(self.js, stream, &filter, next).await?
            && message.sequence <= last.sequence
        {
            next = message.sequence + 1;
            calls
                .push((StoredCall { id: id.clone(), sequence: message.sequence }, message.headers));
        }
        Ok(calls)
    }

    /// Cancels a call whose message is on the queue's stream, or was when it was searched for.
    async fn cancel(
        &self,
        call: &StoredCall,
        headers: &NatsHeaders,
    ) -> Result<CancelOutcome, NatsError> {
        let cancelled = Mark::Cancelled { confirmed: false };
        let write = || tombstone::write_once(self.js, &self.place.queue, call, cancelled);
        let written = reserve::with_room(self.js, write).await?.ok_or_else(no_bucket)?;
        let was_confirmed = match written.mark {
            Mark::Cancelled { confirmed } => confirmed,
            ended => return Ok(CancelOutcome::Ended(ended.end().unwrap_or(EndState::Done))),
        };
        let is_told = match self.store_result(call, headers).await? {
            ResultOf::Cancellation => true,
            // The result of the call's own end, or one that the worker stored because of the
            // tombstone: the worker knows which.
            ResultOf::NotWanted | ResultOf::Delivered => false,
            ResultOf::Other(end) => return self.came_too_late(call, end).await,
        };
        let was_undelivered =
            Progress::is_undelivered(self.progress().await?.as_ref(), call.sequence);
        // Only this message: a call that gets the id later is another call.
        let is_removed =
            remove(self.js, &self.place.entry.stream, call.sequence, "take the call off its queue")
                .await?;
        if was_confirmed {
            return Ok(CancelOutcome::AlreadyCancelled);
        }
        let seen = Seen { was_undelivered, is_removed, is_told };
        let (outcome, is_certain) = self.confirm(call, seen).await?;
        if is_told && outcome == CancelOutcome::Unconfirmed {
            // A worker does the same before it posts that result, but a worker of an earlier
            // version does not.
            tombstone::record_result(self.js, &self.place.queue, call).await?;
        }
        if is_certain { self.confirmed(call, outcome).await } else { Ok(outcome) }
    }

    /// Waits until it is certain that a call with a tombstone does not start, and returns what the
    /// call was doing.
    async fn confirm(
        &self,
        call: &StoredCall,
        seen: Seen,
    ) -> Result<(CancelOutcome, bool), NatsError> {
        let Seen { was_undelivered, is_removed, is_told } = seen;
        let question = call.encode().into();
        let mut inquiry =
            Inquiry::send(&self.js.client(), broadcast_subject(&self.place.queue), question)
                .await?;
        // The message is not on the stream any more.
        if Progress::is_undelivered(self.progress().await?.as_ref(), call.sequence) {
            return Ok((CancelOutcome::Queued, true));
        }
        let answer = match inquiry.answer(Instant::now() + PROMPT, Answer::read).await {
            // The consumer passed the message at this moment. If it was delivered, its worker would
            // have answered, or has not read it yet. A worker that reads it so late looks up the
            // tombstone first.
            None if was_undelivered && is_removed => return Ok((CancelOutcome::Queued, true)),
            None => match self.wait_for_answer(&mut inquiry, call).await? {
                Waited::Answered(answer) => Some(answer),
                Waited::Certain => return Ok((CancelOutcome::Queued, true)),
                Waited::Ended(end) => return Ok((CancelOutcome::Ended(end), false)),
                Waited::InVain => None,
            },
            answer => answer,
        };
        Ok(match answer {
            Some(Answer::Running) => (CancelOutcome::Running, true),
            // The end of the call is the result that was stored first, which is that of the
            // cancellation.
            Some(Answer::Ended) if is_told => (CancelOutcome::Queued, true),
            Some(Answer::Ended) => (self.came_too_late(call, EndState::Done).await?, false),
            Some(Answer::DoesNotStart) => (CancelOutcome::Queued, true),
            None => (CancelOutcome::Unconfirmed, false),
        })
    }

    /// Waits until a worker answers, another request has confirmed the call, or the time is over.
    async fn wait_for_answer(
        &self,
        inquiry: &mut Inquiry,
        call: &StoredCall,
    ) -> Result<Waited, NatsError> {
        loop {
            let tombstone = tombstone::read(self.js, &self.place.queue, call).await?;
            match tombstone.as_ref().map(|tombstone| tombstone.mark) {
                Some(Mark::Cancelled { confirmed: true }) => return Ok(Waited::Certain),
                Some(Mark::Cancelled { confirmed: false }) | None => {}
                Some(ended) => return Ok(Waited::Ended(ended.end().unwrap_or(EndState::Done))),
            }
            let progress = self.progress().await?;
            let is_safe_by_now = tombstone.zip(progress).is_some_and(|(tombstone, progress)| {
                tombstone.is_safe(progress.now, progress.lease)
            });
            if is_safe_by_now {
                return Ok(Waited::Certain);
            }
            let now = Instant::now();
            if now >= self.deadline {
                return Ok(Waited::InVain);
            }
            let until = self.deadline.min(now + PROMPT);
            if let Some(answer) = inquiry.answer(until, Answer::read).await {
                return Ok(Waited::Answered(answer));
            }
            // If no worker listens, the answer to that comes at once.
            sleep_until(until).await;
        }
    }

    async fn progress(&self) -> Result<Option<Progress>, NatsError> {
        consumer_progress::read(self.js, &self.place.entry.stream, &self.place.queue).await
    }

    /// Confirms the cancellation of a call that an earlier request removed from its stream.
    async fn confirm_removed(&self, tombstone: &Tombstone) -> Result<CancelOutcome, NatsError> {
        let call = &tombstone.call;
        // The program that wrote the tombstone may have died before it found that the call had
        // ended.
        if let Some(end) = self.stored_end(call).await?.filter(|end| *end != EndState::Cancelled) {
            return self.came_too_late(call, end).await;
        }
        let subject = broadcast_subject(&self.place.queue);
        let mut inquiry = Inquiry::send(&self.js.client(), subject, call.encode().into()).await?;
        match self.wait_for_answer(&mut inquiry, call).await? {
            Waited::Answered(Answer::Ended)
                if self.stored_end(call).await? != Some(EndState::Cancelled) =>
            {
                return self.came_too_late(call, EndState::Done).await;
            }
            Waited::Answered(_) | Waited::Certain => {}
            Waited::Ended(end) => return Ok(CancelOutcome::Ended(end)),
            Waited::InVain => return Ok(CancelOutcome::Unconfirmed),
        }
        self.confirmed(call, CancelOutcome::AlreadyCancelled).await
    }

    /// Records that the cancellation of a call is certain. Does not if the worker that had the call
    /// has recorded since then that it had ended by itself before.
    async fn confirmed(
        &self,
        call: &StoredCall,
        outcome: CancelOutcome,
    ) -> Result<CancelOutcome, NatsError> {
        let confirmed = Mark::Cancelled { confirmed: true };
        let mark = tombstone::update_cancelled(self.js, &self.place.queue, call, confirmed).await?;
        Ok(match mark {
            Some(Mark::Ended) => CancelOutcome::Ended(EndState::Done),
            _ => outcome,
        })
    }

    /// Returns how a call ended, from the result for its client, if one is stored now.
    async fn stored_end(&self, call: &StoredCall) -> Result<Option<EndState>, NatsError> {
        stored_result::end_of_call(self.js, &self.place.queue, call).await
    }

    /// Records in the tombstone that the call had ended before it was cancelled.
    async fn came_too_late(
        &self,
        call: &StoredCall,
        end: EndState,
    ) -> Result<CancelOutcome, NatsError> {
        tombstone::update_cancelled(self.js, &self.place.queue, call, Mark::Ended).await?;
        Ok(CancelOutcome::Ended(end))
    }

    /// Stores the result of a cancelled call for its client, unless another result of the call is
    /// stored already.
    async fn store_result(
        &self,
        call: &StoredCall,
        headers: &NatsHeaders,
    ) -> Result<ResultOf, NatsError> {
        let Ok(mut invocation) = native::decode(headers, Bytes::new()) else {
            return Ok(ResultOf::NotWanted);
        };
        let Some(url) = invocation.callback_url.take() else { return Ok(ResultOf::NotWanted) };
        let result = Callback::new(&invocation, url, call.sequence, EndState::Cancelled, CANCELLED);
        let subject =
            result_subject(&self.place.queue, &invocation.function, &call.id, call.sequence);
        let store = || async {
            let message = PublishMessage::build().headers(result.encode());
            let stored = async { self.js.send_publish(subject.clone(), message).await?.await };
            stored.await.map_err(failed("store the result for the client"))
        };
        let ack = loop {
            match reserve::with_room(self.js, store).await {
                Err(error)
                    if PublishFailure::of(&error) == PublishFailure::InProcess
                        && Instant::now() < self.deadline =>
                {
                    // Its worker is storing it: because of the tombstone, or as the end of the
                    // call.
                    sleep(IN_PROCESS_PAUSE).await;
                }
                stored => break stored?,
            }
        };
        if !ack.duplicate {
            return Ok(ResultOf::Cancellation);
        }
        Ok(match stored_result::end_at(self.js, &self.place.queue, call, ack.sequence).await? {
            Some(EndState::Cancelled) => ResultOf::Cancellation,
            Some(end) => ResultOf::Other(end),
            None => ResultOf::Delivered,
        })
    }
}

/// The outcome of waiting for a worker's answer.
enum Waited {
    Answered(Answer),
    /// Another request has confirmed the cancellation, or enough time has passed.
    Certain,
    /// The call has ended in another way.
    Ended(EndState),
    InVain,
}

/// A worker's answer about a cancelled call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Running,
    DoesNotStart,
    Ended,
}

impl Answer {
    fn read(message: &async_nats::Message) -> Option<Self> {
        match std::str::from_utf8(&message.payload).ok()? {
            WAS_RUNNING => Some(Self::Running),
            IS_HELD | IS_WAITING => Some(Self::DoesNotStart),
            HAS_ENDED => Some(Self::Ended),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_counts_each_outcome_once() {
        let mut tally = Tally::default();
        assert!(tally.is_empty());
        for outcome in [
            CancelOutcome::Queued,
            CancelOutcome::Running,
            CancelOutcome::AlreadyCancelled,
            CancelOutcome::Ended(EndState::Dead),
            CancelOutcome::Unconfirmed,
        ] {
            tally.count(outcome);
        }
        let expected = Tally {
            cancelled: 3,
            running: 1,
            before: 1,
            ended: 1,
            end: Some(EndState::Dead),
            unconfirmed: 1,
        };
        assert_eq!(tally, expected);
    }
}
