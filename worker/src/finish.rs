//! Carries out the end of a call: its tombstone, its result for the client and its dead letter, in
//! this order. After a crash in between, the next worker thus finds what is left to do.

use std::sync::atomic::{AtomicU32, Ordering};

use async_nats::jetstream::{AckKind, Context};
use asyncqueue::{
    EndState, QueueName, Rounded,
    attempt_offset::{self, AttemptOffset, OffsetIncrement},
    call::{CANCELLED_STATUS, CallRef},
    dead_letters::DeathInfo,
    hop_by_hop::strip_connection_headers,
    message::callback::Callback,
    publish_failure::PublishFailure,
    stored_result,
    subject::result_subject,
    tombstone::{self, Mark, WriteOutcome},
};
use jiff::Timestamp;
use tokio::time::sleep;
use tracing::{error, info, warn};

use crate::{
    callback::{self, Messenger, hosts, of_call, store::ResultStore, truncated},
    cancellations::CallInFlight,
    dead_letter::{DeadLetterWriter, Message},
    delivery::Delivered,
    function::{H_INTERNAL, Reply},
    invoke::Call,
    metrics::Metrics,
    outcome::{Outcome, TIMED_OUT, UNREACHABLE},
    pull::Ticket,
    reports::Reported,
    store::{Record, Store},
};

/// Ends calls.
#[derive(Clone, Debug)]
pub(crate) struct Finish {
    pub(crate) js: Context,
    pub(crate) queue: QueueName,
    pub(crate) store: Store,
    pub(crate) results: ResultStore,
    pub(crate) messenger: Messenger,
    pub(crate) dead_letters: DeadLetterWriter,
    pub(crate) metrics: Metrics,
}

/// Says why a call is dead, and whether this worker has just marked it so. If it has, a result that
/// is stored already is of another end, since results of dead calls are stored after the mark.
pub(crate) struct Dying {
    pub(crate) reason: String,
    pub(crate) is_first: bool,
}

/// Outcome of reporting the end of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reporting {
    /// The client gets this end, or wants no callback.
    Settled,
    /// A result of the call was stored before.
    HadAnother,
}

impl Finish {
    /// Marks a call as ended in this way. Returns the mark that the call has then, which may be an
    /// earlier one, or `None` if that can't be determined now. Without a bucket, the call counts as
    /// marked: it can't be cancelled either.
    pub(crate) async fn mark(
        &self,
        call: &Call<'_>,
        mark: Mark,
        reported: &Reported,
        ticket: &mut Ticket,
    ) -> Option<WriteOutcome> {
        let written =
            self.store.until_stored(Record::Tombstone, ticket, Some(reported), async || {
                let written =
                    tombstone::write_once(&self.js, &self.queue, &call.stored, mark).await;
                written.and_then(|written| written.ok_or_else(tombstone::bucket_not_found))
            });
        match written.await {
            Ok(written) => Some(written),
            Err(PublishFailure::NoStream) => Some(WriteOutcome { mark, is_new: true }),
            Err(_) => None,
        }
    }

    /// Ends a call that is done.
    pub(crate) async fn done(
        &self,
        call: &Call<'_>,
        reply: Reply,
        in_flight: &CallInFlight,
        reported: &Reported,
        ticket: &mut Ticket,
    ) -> AckKind {
        let status = reply.ending.status();
        let reporting =
            self.report(call, EndState::Done, status, reply, Some(reported), ticket).await;
        if reporting == Reporting::Settled && in_flight.settle() {
            let marked = tombstone::mark_too_late(&self.js, &self.queue, &call.stored).await;
            if let Err(error) = marked {
                let (function, call_id) = call.name();
                warn!(%call_id, %function, %error, "a cancellation that came too late could not be marked so");
            }
        }
        AckKind::Ack
    }

    /// Ends a call that is cancelled. The result for its client was stored with the cancellation,
    /// unless the message came from an existing gateway. If it is stored twice, the client gets it
    /// once.
    pub(crate) async fn cancelled(&self, call: &Call<'_>, ticket: &mut Ticket) -> AckKind {
        let (function, call_id) = call.name();
        info!(%call_id, %function, "Cancelled {}", function.name());
        self.metrics.end_without_run(EndState::Cancelled);
        self.report(call, EndState::Cancelled, CANCELLED_STATUS, Reply::none(), None, ticket).await;
        AckKind::Ack
    }

    /// Ends a call that was too old when it was delivered.
    pub(crate) async fn expired(&self, call: &Call<'_>, ticket: &mut Ticket) -> AckKind {
        let (function, call_id) = call.name();
        let age = Rounded(call.tries.age);
        warn!(%call_id, %function, "Expired {}: it is {age} old, more than limits.maxAge of its queue", function.name());
        self.metrics.end_without_run(EndState::Expired);
        self.report(call, EndState::Expired, TIMED_OUT, Reply::none(), None, ticket).await;
        AckKind::Ack
    }

    /// Ends a call whose attempts are exhausted and that is marked as dead.
    pub(crate) async fn dead(
        &self,
        delivered: &Delivered,
        call: &Call<'_>,
        reply: Reply,
        dying: Dying,
        reported: Option<&Reported>,
        ticket: &mut Ticket,
    ) -> AckKind {
        let Dying { reason, is_first } = dying;
        let status = reply.ending.status();
        let reported = self.report(call, EndState::Dead, status, reply, reported, ticket).await;
        if is_first && reported == Reporting::HadAnother {
            return self.was_done(call).await;
        }
        let death = DeathInfo { reason, attempts: call.tries.attempt, status: Some(status) };
        self.dead_letters.write(delivered.into(), Some(call.name()), death, ticket).await.ack()
    }

    /// Ends a call whose attempts are exhausted and whose worker died during the last one.
    pub(crate) async fn poison(
        &self,
        delivered: &Delivered,
        call: &Call<'_>,
        reported: &Reported,
        ticket: &mut Ticket,
    ) -> AckKind {
        let attempts = call.tries.attempt - 1;
        let (function, call_id) = call.name();
        error!(%call_id, %function, attempts, "the worker of the last attempt died under it: it becomes a dead letter");
        self.metrics.end_without_run(EndState::Dead);
        let reported = self
            .report(call, EndState::Dead, UNREACHABLE, Reply::none(), Some(reported), ticket)
            .await;
        if reported == Reporting::HadAnother {
            return self.was_done(call).await;
        }
        let reason = format!("its worker died under the last of {attempts} attempts");
        let death = DeathInfo { reason, attempts, status: None };
        self.dead_letters.write(delivered.into(), Some(call.name()), death, ticket).await.ack()
    }

    /// Ends a call that was about to be dead although another worker had stored a result of another
    /// kind. That worker completed the call, and lost its lease before it could settle it.
    async fn was_done(&self, call: &Call<'_>) -> AckKind {
        let (function, call_id) = call.name();
        info!(%call_id, %function, "{} was done before: another worker has stored its result", function.name());
        let ended =
            tombstone::replace(&self.js, &self.queue, &call.stored, Mark::Dead, Mark::Ended).await;
        if let Err(error) = ended {
            warn!(%call_id, %error, "the mark that the call is dead could not be replaced");
        }
        AckKind::Ack
    }

    /// Counts additional deliveries of a call as no attempts.
    pub(crate) async fn add_to_offset(&self, call: &CallRef, deliveries: u64, ticket: &mut Ticket) {
        let addition = OffsetIncrement::new(&self.queue, call, deliveries);
        let written = self
            .store
            .until_stored(Record::AttemptOffset, ticket, None, || addition.write(&self.js));
        if let Err(failure) = written.await {
            let (call_id, reason) = (&call.id, failure.as_str());
            warn!(%call_id, reason, "a delivery counts as an attempt though it was none");
        }
    }

    /// Stores which deliveries of a call were no attempts.
    pub(crate) async fn set_offset(
        &self,
        call: &Call<'_>,
        offset: AttemptOffset,
        ticket: &mut Ticket,
    ) {
        let stored = &call.stored;
        let written = self.store.until_stored(Record::AttemptOffset, ticket, None, async || {
            attempt_offset::set(&self.js, &self.queue, &stored.id, stored.sequence, offset).await
        });
        if let Err(failure) = written.await {
            let (call_id, reason) = (&stored.id, failure.as_str());
            warn!(%call_id, reason, "a delivery counts as an attempt though it was none");
        }
    }

    /// Reports the end of a call to its client, if the client wants a callback. Stores the result
    /// for delivery, so that a slow receiver takes no slot of a call and a failing one does not
    /// make the function run again.
    async fn report(
        &self,
        call: &Call<'_>,
        end: EndState,
        status: u16,
        reply: Reply,
        reported: Option<&Reported>,
        ticket: &mut Ticket,
    ) -> Reporting {
        let invocation = &call.invocation;
        let Some(url) = invocation.callback_url.clone() else { return Reporting::Settled };
        let mut headers = reply.headers;
        strip_connection_headers(&mut headers);
        truncated::mark(&mut headers, reply.truncated);
        of_call::add(&mut headers, invocation);
        let callback = Callback {
            duration: reply.duration,
            attempt: call.tries.attempt,
            max_attempts: call.policy.max_attempts,
            headers,
            body: reply.body,
            ..Callback::new(invocation, url, call.stored.sequence, end, status)
        };
        let tries = AtomicU32::new(0);
        let stored = self.store.until_stored(Record::Result, ticket, reported, || {
            tries.fetch_add(1, Ordering::Relaxed);
            self.results.put(&callback)
        });
        match stored.await {
            Ok(ack) if ack.duplicate => {
                let first =
                    stored_result::end_at(&self.js, &self.queue, &call.stored, ack.sequence).await;
                if is_of_another(end, first.ok().flatten(), tries.into_inner()) {
                    return Reporting::HadAnother;
                }
            }
            Ok(_) => {}
            Err(failure) => {
                let (call_id, function, reason) =
                    (&callback.call_id, &callback.function, failure.as_str());
                warn!(%call_id, %function, reason, "the result can't be stored and is posted directly");
                // However long the receiver takes, another call can use the slot.
                ticket.leave_slot();
                if let Some(callback) = self.settled_before_post(call, callback).await {
                    self.post_directly(&callback, ticket).await;
                }
            }
        }
        Reporting::Settled
    }

    /// Returns what to post directly, since no stored result settles how the call ended. A
    /// cancellation that came first wins, and one that comes from now on finds that the call has
    /// ended. Returns `None` if nothing is left to post.
    async fn settled_before_post(&self, call: &Call<'_>, callback: Callback) -> Option<Callback> {
        if callback.end != EndState::Done {
            return Some(callback);
        }
        // Tried once: without room for this mark, there is no room for the mark of a cancellation
        // either.
        let written = tombstone::write_once(&self.js, &self.queue, &call.stored, Mark::Ended).await;
        let Ok(Some(WriteOutcome { mark: Mark::Cancelled { .. }, .. })) = written else {
            return Some(callback);
        };
        let sequence = call.stored.sequence;
        let cancelled = Callback::new(
            &call.invocation,
            callback.url,
            sequence,
            EndState::Cancelled,
            CANCELLED_STATUS,
        );
        let is_stored = self.results.put(&cancelled).await.is_ok();
        (!is_stored).then_some(cancelled)
    }

    /// Delivers a result that is not in the stream, with as many attempts as one that is.
    async fn post_directly(&self, callback: &Callback, ticket: &mut Ticket) {
        let (mut attempt, mut times_busy) = (1, 0);
        loop {
            match self.messenger.deliver(callback, attempt).await {
                callback::Delivery::Done => return,
                callback::Delivery::Again(wait) => {
                    attempt += 1;
                    sleep(wait).await;
                }
                callback::Delivery::Busy => {
                    sleep(hosts::wait(times_busy, rand::random())).await;
                    times_busy += 1;
                }
                callback::Delivery::GivenUp(reason) => {
                    let Callback { call_id, function, sequence, .. } = callback;
                    let subject = result_subject(&self.queue, function, call_id, *sequence);
                    let headers = callback.encode();
                    let message = Message {
                        headers: Some(&headers),
                        payload: &callback.body,
                        subject: &subject,
                        sequence: *sequence,
                    };
                    let reason = format!("callback: {reason}");
                    let death =
                        DeathInfo { reason, attempts: attempt, status: Some(callback.status) };
                    let written = self
                        .dead_letters
                        .write(message, Some((function, call_id)), death, ticket)
                        .await;
                    if written == crate::dead_letter::DeadLetterOutcome::NotStored {
                        error!(%call_id, %function, bytes = callback.body.len(), "lost: the result can neither be posted nor stored");
                    }
                    return;
                }
            }
        }
    }
}

/// Returns whether an earlier result has another end than `own`. `first`: its end, if it is still
/// known. `tries`: how often this worker has sent its own result, which the server may have stored
/// without confirming that in time.
fn is_of_another(own: EndState, first: Option<EndState>, tries: u32) -> bool {
    match first {
        Some(first) => first != own,
        None => tries == 1,
    }
}

/// Logs the line that people search for in `kubectl logs`.
pub(crate) fn log(call: &Call<'_>, reply: &Reply, outcome: &Outcome) {
    let (function, call_id) = call.name();
    let attempt = call.tries.attempt;
    let (name, status) = (function.name(), reply.ending.status());
    let seconds = reply.duration.as_secs_f64();
    if reply.truncated {
        warn!(%call_id, %function, bytes = reply.body.len(), "the answer of {name} is longer than max_response_bytes and is cut off");
    }
    let error = reply.error.as_deref();
    match outcome {
        Outcome::Done => {
            info!(%call_id, %function, attempt, "Invoked {name} [{status}] in {seconds:.3}s");
        }
        Outcome::Retry { wait, not_counted_for: Some(rest) } => {
            let (wait, cause) = (Rounded(*wait), platforms_words(reply));
            let until = Timestamp::now().saturating_add(*rest).unwrap_or(Timestamp::MAX);
            warn!(
                %call_id, %function, attempt,
                "Invoked {name} [{status}] in {seconds:.3}s, not counted, until {until:.0}, since the platform failed ({cause}), \
                 trying again in {wait}"
            );
        }
        Outcome::Retry { wait, not_counted_for: None } => {
            let wait = Rounded(*wait);
            warn!(%call_id, %function, attempt, error, "Invoked {name} [{status}] in {seconds:.3}s, trying again in {wait}");
        }
        Outcome::Dead(reason) => {
            error!(%call_id, %function, attempt, error, "Invoked {name} [{status}] in {seconds:.3}s, it becomes a dead letter: {reason}");
        }
    }
}

/// Returns what the platform says about its failure: the header that says so, and the first line of
/// the body.
fn platforms_words(reply: &Reply) -> String {
    const MOST: usize = 200;
    let by =
        reply.headers.get(H_INTERNAL).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let text = String::from_utf8_lossy(&reply.body[..reply.body.len().min(MOST)]);
    let line = text.lines().next().unwrap_or_default().trim();
    let line: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let colon = if line.is_empty() { "" } else { ": " };
    format!("X-OpenFaaS-Internal: {by}{colon}{line}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_that_was_sent_before_is_this_workers_own() {
        let (dead, done) = (EndState::Dead, EndState::Done);
        // The server stored it and did not confirm that in time. If it counted as another worker's,
        // the call would get no dead letter.
        assert!(!is_of_another(dead, Some(dead), 2) && !is_of_another(dead, None, 2));
        assert!(!is_of_another(dead, Some(dead), 1));
        assert!(is_of_another(dead, Some(done), 1) && is_of_another(dead, Some(done), 2));
        // It was delivered and removed before this worker sent anything.
        assert!(is_of_another(dead, None, 1));
    }
}
