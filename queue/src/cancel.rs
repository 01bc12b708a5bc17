//! Cancels calls: queued, running, or waiting for their next attempt.
//!
//! A call is cancelled when it can't start any more, and not before. In this order, so that whoever comes late still
//! finds out:
//!
//! 1. the tombstone, which workers follow, and look up before they run a call that was delivered before; a call that has
//!    one of another kind has ended;
//! 2. the result for the client, unless another one is stored already: then the call has ended;
//! 3. the removal of the call's message, after which no server delivers it;
//! 4. the confirmation: the message was never delivered, or the worker that has it says that it does not start, or two
//!    leases have passed since the tombstone was written.
//!
//! Without the confirmation the cancellation holds and is not certain: a repeat finds the tombstone and asks again.

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

/// The status that a client is told of a call that was cancelled: the client closed the request.
pub const CANCELLED: u16 = 499;

/// A worker's answer: it was running the call, and has closed the connection to the function.
pub const WAS_RUNNING: &str = "running";

/// A worker's answer: it has the call, or had it, and does not start it.
pub const IS_HELD: &str = "held";

/// A worker's answer: it has handed the call back, and its next attempt is not due yet.
pub const IS_WAITING: &str = "waiting";

/// A worker's answer: the call has ended by itself here.
pub const HAS_ENDED: &str = "ended";

/// How long a worker that is not busy takes to answer, at most.
const PROMPT: Duration = Duration::from_millis(250);

/// Calls with one id that one request cancels, at most; a repeat cancels more.
pub const MAX_CALLS: usize = 1_000;

/// Calls with one id that are cancelled at once, on one queue.
const AT_ONCE: usize = 16;

/// Queues that are asked at once.
const PLACES_AT_ONCE: usize = 64;

/// What became of a cancellation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelOutcome {
    /// The call was queued or waited for its next attempt; it does not start any more.
    Queued,
    /// The call was running; its worker has closed the connection to the function.
    Running,
    /// It was cancelled before.
    AlreadyCancelled,
    /// It has ended in another way.
    Ended(EndState),
    /// It has a tombstone, and a worker that does not answer may still start it. A repeat is safe.
    Unconfirmed,
}

/// How many calls were cancelled, of those with one id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Calls that are cancelled, now or before.
    pub cancelled: u64,
    /// Of those, the ones that were running.
    pub running: u64,
    /// Of those, the ones that were cancelled before.
    pub before: u64,
    /// Calls that had ended in another way.
    pub ended: u64,
    /// How the last of these had ended.
    pub end: Option<EndState>,
    /// Calls of which it is not certain yet.
    pub unconfirmed: u64,
}

/// The subject on which a queue's workers are told of cancellations, with a reply subject for their answers.
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

    /// Whether no call was found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cancelled + self.ended + self.unconfirmed == 0
    }
}

/// Whether a stored call is cancelled.
pub async fn is_cancelled(js: &Context, queue: &QueueName, call: &StoredCall) -> Result<bool, NatsError> {
    let tombstone = tombstone::read(js, queue, call).await?;
    Ok(tombstone.is_some_and(|tombstone| matches!(tombstone.mark, Mark::Cancelled { .. })))
}

/// Cancels all calls with an id that are stored now, or were cancelled before without a confirmation. Waits up to
/// `patience` for the confirmations. The tally is empty if none of these places has such a call.
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
    // Each is made before they are polled: as closures of a stream they could not be spawned.
    let cancelling: Vec<_> =
        places.iter().map(|place| Canceller { js, place, deadline }.cancel_stored(wanted)).collect();
    let mut found = stream::iter(cancelling).buffer_unordered(PLACES_AT_ONCE);
    let (mut tally, mut seen) = (Tally::default(), Vec::new());
    while let Some((place, cancelled)) = found.try_next().await? {
        for (call, outcome) in cancelled {
            tally.count(outcome);
            seen.push((&place.queue, call));
        }
    }
    drop(found);
    // Those that are not stored any more: an earlier request removed them, or a worker ended them.
    let queue = match places {
        [only] => Some(&only.queue),
        _ => None,
    };
    for tombstone in tombstone::all(js, queue, &wanted.id, MAX_CALLS).await? {
        let Tombstone { queue, call, mark: Mark::Cancelled { confirmed }, .. } = &tombstone else { continue };
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

/// What a cancellation of calls of one queue needs.
struct Canceller<'a> {
    js: &'a Context,
    place: &'a Place,
    /// Until when confirmations are waited for.
    deadline: Instant,
}

/// What was seen of a call while it was cancelled.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// Just before its message was removed, it was not delivered yet.
    was_undelivered: bool,
    /// Its message was removed for this request.
    is_removed: bool,
    /// The result for its client is that of the cancellation.
    is_told: bool,
}

/// What came of storing the result of a cancelled call.
enum ResultOf {
    /// No client wants one.
    NotWanted,
    /// It is stored, now or before.
    Cancellation,
    /// A result of another kind was stored first.
    Other(EndState),
    /// One was stored before and is gone: it was delivered.
    Delivered,
}

impl<'a> Canceller<'a> {
    /// Cancels the calls with an id that are stored now.
    async fn cancel_stored(
        self,
        wanted: &Wanted,
    ) -> Result<(&'a Place, Vec<(StoredCall, CancelOutcome)>), NatsError> {
        let stored = self.stored(wanted).await?;
        let cancelling: Vec<_> = stored.iter().map(|(call, headers)| self.cancel(call, headers)).collect();
        // In the order of the calls, to which the outcomes belong.
        let outcomes: Vec<_> = stream::iter(cancelling).buffered(AT_ONCE).try_collect().await?;
        Ok((self.place, stored.into_iter().map(|(call, _)| call).zip(outcomes).collect()))
    }

    /// The calls with an id that are stored now, with their headers, oldest first.
    async fn stored(&self, wanted: &Wanted) -> Result<Vec<(StoredCall, NatsHeaders)>, NatsError> {
        let Wanted { id, function } = wanted;
        let stream = &self.place.entry.stream;
        let filter = call_filter(&self.place.entry.subject, function.as_ref(), id);
        // What comes later is another request's.
        let Some(last) = peek::last_message(self.js, stream, &filter).await? else { return Ok(Vec::new()) };
        let (mut calls, mut next) = (Vec::new(), 1);
        while calls.len() < MAX_CALLS
            && let Some(message) = peek::next_message(self.js, stream, &filter, next).await?
            && message.sequence <= last.sequence
        {
            next = message.sequence + 1;
            calls.push((StoredCall { id: id.clone(), sequence: message.sequence }, message.headers));
        }
        Ok(calls)
    }

    /// Cancels a call whose message is on the queue's stream, or was when it was looked for.
    async fn cancel(&self, call: &StoredCall, headers: &NatsHeaders) -> Result<CancelOutcome, NatsError> {
        let cancelled = Mark::Cancelled { confirmed: false };
        let write = || tombstone::write_once(self.js, &self.place.queue, call, cancelled);
        let written = reserve::with_room(self.js, write).await?.ok_or_else(no_bucket)?;
        let was_confirmed = match written.mark {
            Mark::Cancelled { confirmed } => confirmed,
            ended => return Ok(CancelOutcome::Ended(ended.end().unwrap_or(EndState::Done))),
        };
        let is_told = match self.store_result(call, headers).await? {
            ResultOf::Cancellation => true,
            // Of the call's own end, or stored by the worker that heard of the tombstone: the worker knows which.
            ResultOf::NotWanted | ResultOf::Delivered => false,
            ResultOf::Other(end) => return self.came_too_late(call, end).await,
        };
        let was_undelivered = Progress::is_undelivered(self.progress().await?.as_ref(), call.sequence);
        // This message alone: a call that has the id after it is another one.
        let is_removed =
            remove(self.js, &self.place.entry.stream, call.sequence, "take the call off its queue").await?;
        if was_confirmed {
            return Ok(CancelOutcome::AlreadyCancelled);
        }
        let seen = Seen { was_undelivered, is_removed, is_told };
        let (outcome, is_certain) = self.confirm(call, seen).await?;
        if is_told && outcome == CancelOutcome::Unconfirmed {
            // As a worker does before it posts that result; one of an earlier version does not.
            tombstone::record_result(self.js, &self.place.queue, call).await?;
        }
        if is_certain { self.confirmed(call, outcome).await } else { Ok(outcome) }
    }

    /// Waits for the certainty that a call with a tombstone does not start, and says what it was doing.
    async fn confirm(&self, call: &StoredCall, seen: Seen) -> Result<(CancelOutcome, bool), NatsError> {
        let Seen { was_undelivered, is_removed, is_told } = seen;
        let question = call.encode().into();
        let mut inquiry =
            Inquiry::send(&self.js.client(), broadcast_subject(&self.place.queue), question).await?;
        // It is not on the stream any more.
        if Progress::is_undelivered(self.progress().await?.as_ref(), call.sequence) {
            return Ok((CancelOutcome::Queued, true));
        }
        let answer = match inquiry.answer(Instant::now() + PROMPT, Answer::read).await {
            // The consumer went past it at this very moment. Had it been delivered, its worker would have answered, or has
            // not read it yet, and looks for the tombstone first, since so much time has passed.
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
            // Its end is the result that was stored first, which is that of the cancellation.
            Some(Answer::Ended) if is_told => (CancelOutcome::Queued, true),
            Some(Answer::Ended) => (self.came_too_late(call, EndState::Done).await?, false),
            Some(Answer::DoesNotStart) => (CancelOutcome::Queued, true),
            None => (CancelOutcome::Unconfirmed, false),
        })
    }

    /// Waits until a worker answers, another request has become certain of the call, or the time is over.
    async fn wait_for_answer(&self, inquiry: &mut Inquiry, call: &StoredCall) -> Result<Waited, NatsError> {
        loop {
            let tombstone = tombstone::read(self.js, &self.place.queue, call).await?;
            match tombstone.as_ref().map(|tombstone| tombstone.mark) {
                Some(Mark::Cancelled { confirmed: true }) => return Ok(Waited::Certain),
                Some(Mark::Cancelled { confirmed: false }) | None => {}
                Some(ended) => return Ok(Waited::Ended(ended.end().unwrap_or(EndState::Done))),
            }
            let progress = self.progress().await?;
            let is_safe_by_now = tombstone
                .zip(progress)
                .is_some_and(|(tombstone, progress)| tombstone.is_safe(progress.now, progress.lease));
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
            // Without a worker that listens there is no answer, at once.
            sleep_until(until).await;
        }
    }

    async fn progress(&self) -> Result<Option<Progress>, NatsError> {
        consumer_progress::read(self.js, &self.place.entry.stream, &self.place.queue).await
    }

    /// Confirms the cancellation of a call that an earlier request took off its stream.
    async fn confirm_removed(&self, tombstone: &Tombstone) -> Result<CancelOutcome, NatsError> {
        let call = &tombstone.call;
        // Whoever wrote the tombstone may have died before it found that the call had ended.
        if let Some(end) = self.stored_end(call).await?.filter(|end| *end != EndState::Cancelled) {
            return self.came_too_late(call, end).await;
        }
        let subject = broadcast_subject(&self.place.queue);
        let mut inquiry = Inquiry::send(&self.js.client(), subject, call.encode().into()).await?;
        match self.wait_for_answer(&mut inquiry, call).await? {
            Waited::Answered(Answer::Ended) if self.stored_end(call).await? != Some(EndState::Cancelled) => {
                return self.came_too_late(call, EndState::Done).await;
            }
            Waited::Answered(_) | Waited::Certain => {}
            Waited::Ended(end) => return Ok(CancelOutcome::Ended(end)),
            Waited::InVain => return Ok(CancelOutcome::Unconfirmed),
        }
        self.confirmed(call, CancelOutcome::AlreadyCancelled).await
    }

    /// Writes down that the cancellation of a call is certain, unless the worker that had it has written since that it had
    /// ended by itself before.
    async fn confirmed(&self, call: &StoredCall, outcome: CancelOutcome) -> Result<CancelOutcome, NatsError> {
        let confirmed = Mark::Cancelled { confirmed: true };
        let mark = tombstone::update_cancelled(self.js, &self.place.queue, call, confirmed).await?;
        Ok(match mark {
            Some(Mark::Ended) => CancelOutcome::Ended(EndState::Done),
            _ => outcome,
        })
    }

    /// How a call ended by the result for its client that is stored now, if one is.
    async fn stored_end(&self, call: &StoredCall) -> Result<Option<EndState>, NatsError> {
        stored_result::end_of_call(self.js, &self.place.queue, call).await
    }

    /// The call had ended before: its tombstone says so from now on.
    async fn came_too_late(&self, call: &StoredCall, end: EndState) -> Result<CancelOutcome, NatsError> {
        tombstone::update_cancelled(self.js, &self.place.queue, call, Mark::Ended).await?;
        Ok(CancelOutcome::Ended(end))
    }

    /// Stores the result of a cancelled call for its client, unless another result of it is stored already.
    async fn store_result(&self, call: &StoredCall, headers: &NatsHeaders) -> Result<ResultOf, NatsError> {
        let Ok(mut invocation) = native::decode(headers, Bytes::new()) else {
            return Ok(ResultOf::NotWanted);
        };
        let Some(url) = invocation.callback_url.take() else { return Ok(ResultOf::NotWanted) };
        let result = Callback::new(&invocation, url, call.sequence, EndState::Cancelled, CANCELLED);
        let subject = result_subject(&self.place.queue, &invocation.function, &call.id, call.sequence);
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
                    // By its worker, which has heard of the tombstone, or as the end of the call.
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

/// What came of waiting for a worker's answer.
enum Waited {
    Answered(Answer),
    /// Another request is certain, or enough time has passed.
    Certain,
    /// The call has ended in another way.
    Ended(EndState),
    InVain,
}

/// What a worker says of a cancelled call.
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
