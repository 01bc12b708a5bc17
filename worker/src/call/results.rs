//! Reports the end of a call to its client: stores the result for delivery, or posts it directly if
//! it can't be stored. Keeps the result, if the client or the queue asks for that.

use std::sync::atomic::{AtomicU32, Ordering};

use async_nats::jetstream::Context;
use asyncqueue::{
    EndState, QueueName,
    call::CANCELLED_STATUS,
    dead_letters::DeathInfo,
    hop_by_hop::strip_connection_headers,
    message::{callback::Callback, kept_result::KeptResult},
    stored_result,
    subject::result_subject,
    tombstone::{self, Mark},
};
use tokio::time::sleep;
use tracing::{error, warn};

use super::{
    Call,
    batch_ends::BatchEnds,
    ended_calls::EndedCalls,
    result_keeper::ResultKeeper,
    status::{StatusGuard, blocked_reporter},
};
use crate::{
    callback::{
        call_headers,
        dispatcher::{CallbackDispatcher, DeliveryOutcome},
        store::ResultStore,
        truncated,
    },
    consumer::InFlightPermit,
    dead_letter::{DeadLetterOutcome, DeadLetterWriter, Message},
    function::client::Reply,
    record::Record,
    record_store::RecordStore,
    retry::backoff::PUT_OFF,
};

/// Publishes the results of a queue's calls.
pub(crate) struct ResultPublisher {
    pub(crate) js: Context,
    pub(crate) queue: QueueName,
    pub(crate) store: RecordStore,
    pub(crate) results: ResultStore,
    pub(crate) dispatcher: CallbackDispatcher,
    pub(crate) dead_letters: DeadLetterWriter,
    pub(crate) batches: BatchEnds,
    pub(crate) keeper: ResultKeeper,
    pub(crate) ended: EndedCalls,
}

/// Outcome of publishing a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ResultOutcome {
    /// The client gets this end, or wants no result.
    Settled,
    /// A result of the call with another end was stored before.
    HasOtherEnd,
}

impl ResultPublisher {
    /// Reports the end of a call to its client. Records it in the call's batch, and remembers that
    /// the call is done, unless the call has another end.
    pub(crate) async fn publish(
        &self,
        call: &Call,
        end: EndState,
        code: u16,
        reply: Reply,
        status: Option<&StatusGuard>,
        permit: &mut InFlightPermit,
    ) -> ResultOutcome {
        let duration = reply.duration;
        let outcome = self.publish_result(call, end, code, reply, status, permit).await;
        if outcome == ResultOutcome::Settled {
            self.batches.record(call, end, code, status, permit).await;
            // Other ends have records.
            if end == EndState::Done {
                self.ended.remember(call, code, duration);
            }
        }
        outcome
    }

    /// Reports the end of a call to its client, if the client wants a callback, and keeps its
    /// result, if that is asked for. The callback decides which of several ends counts, so it comes
    /// first: if a result is kept, the callback is stored.
    async fn publish_result(
        &self,
        call: &Call,
        end: EndState,
        code: u16,
        reply: Reply,
        status: Option<&StatusGuard>,
        permit: &mut InFlightPermit,
    ) -> ResultOutcome {
        let retention = self.keeper.retention(call);
        if call.invocation.callback_url.is_none() && retention.is_none() {
            return ResultOutcome::Settled;
        }
        let reply = for_client(call, reply);
        let kept = retention.map(|retention| (kept_result_of(call, end, code, &reply), retention));
        if let Some(callback) = callback_of(call, end, code, reply)
            && self.publish_callback(call, callback, status, permit).await
                == ResultOutcome::HasOtherEnd
        {
            return ResultOutcome::HasOtherEnd;
        }
        let Some((result, retention)) = kept else { return ResultOutcome::Settled };
        match self.keeper.keep(&result, retention, status, permit).await {
            Some(earlier) if earlier != end => ResultOutcome::HasOtherEnd,
            _ => ResultOutcome::Settled,
        }
    }

    /// Stores the result for delivery, so that a slow receiver takes no slot of a call and a
    /// failing one does not make the function run again.
    async fn publish_callback(
        &self,
        call: &Call,
        callback: Callback,
        status: Option<&StatusGuard>,
        permit: &mut InFlightPermit,
    ) -> ResultOutcome {
        let end = callback.end;
        let writes = AtomicU32::new(0);
        let stored =
            self.store.store_with_retries(Record::Result, permit, blocked_reporter(status), || {
                writes.fetch_add(1, Ordering::Relaxed);
                self.results.put(&callback)
            });
        match stored.await {
            Ok(ack) if ack.duplicate => {
                let first =
                    stored_result::end_at(&self.js, &self.queue, &call.stored, ack.sequence).await;
                if is_other_end(end, first.ok().flatten(), writes.into_inner()) {
                    return ResultOutcome::HasOtherEnd;
                }
            }
            Ok(_) => {}
            Err(failure) => {
                let (call_id, function, reason) =
                    (&callback.call_id, &callback.function, failure.as_str());
                warn!(
                    %call_id, %function, reason,
                    "failed to store the result: posting it directly"
                );
                // However long the receiver takes, another call can use the slot.
                permit.release_slot_early();
                if let Some(callback) = self.settle_before_post(call, callback).await {
                    self.post_directly(&callback, permit).await;
                }
            }
        }
        ResultOutcome::Settled
    }

    /// Returns what to post directly, since no stored result settles how the call ended. A
    /// cancellation that came first wins, and one that comes from now on finds that the call has
    /// ended. Returns `None` if nothing is left to post.
    async fn settle_before_post(&self, call: &Call, callback: Callback) -> Option<Callback> {
        if callback.end != EndState::Done {
            return Some(callback);
        }
        // Tried once: without room for this mark, there is no room for the mark of a cancellation
        // either.
        let written =
            tombstone::write_once(&self.js, &self.queue, &call.stored, Mark::Ended(EndState::Done))
                .await;
        if !written.is_ok_and(|written| written.is_some_and(|written| written.mark.is_cancelled()))
        {
            return Some(callback);
        }
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
    async fn post_directly(&self, callback: &Callback, permit: &mut InFlightPermit) {
        let (mut attempt, mut times_busy) = (1, 0);
        let reason = loop {
            match self.dispatcher.deliver(callback, attempt).await {
                DeliveryOutcome::Delivered => return,
                DeliveryOutcome::Retry(wait) => {
                    attempt += 1;
                    sleep(wait).await;
                }
                DeliveryOutcome::HostBusy => {
                    times_busy += 1;
                    sleep(PUT_OFF.wait_after(times_busy, rand::random())).await;
                }
                DeliveryOutcome::Undeliverable(reason) => break reason,
            }
        };
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
        let death = DeathInfo { reason, attempts: attempt, status: Some(callback.status) };
        let name = Some((function, call_id));
        if self.dead_letters.write(message, name, death, permit).await
            == DeadLetterOutcome::NotStored
        {
            error!(
                %call_id, %function, bytes = callback.body.len(),
                "result lost: it can neither be posted nor stored"
            );
        }
    }
}

/// Returns the response of a function as its client gets it.
fn for_client(call: &Call, mut reply: Reply) -> Reply {
    strip_connection_headers(&mut reply.headers);
    truncated::mark(&mut reply.headers, reply.truncated);
    call_headers::add(&mut reply.headers, &call.invocation);
    reply
}

/// Builds the result that is kept.
fn kept_result_of(call: &Call, end: EndState, code: u16, reply: &Reply) -> KeptResult {
    KeptResult {
        duration: reply.duration,
        attempt: call.attempts.number,
        max_attempts: call.policy.max_attempts,
        headers: reply.headers.clone(),
        body: reply.body.clone(),
        ..KeptResult::new(&call.invocation, call.stored.sequence, end, code)
    }
}

/// Builds the callback for the end of a call, or returns `None` if its client wants none.
fn callback_of(call: &Call, end: EndState, code: u16, reply: Reply) -> Option<Callback> {
    let invocation = &call.invocation;
    let url = invocation.callback_url.clone()?;
    Some(Callback {
        duration: reply.duration,
        attempt: call.attempts.number,
        max_attempts: call.policy.max_attempts,
        headers: reply.headers,
        body: reply.body,
        ..Callback::new(invocation, url, call.stored.sequence, end, code)
    })
}

/// Returns whether an earlier result has another end than `own`. `first`: its end, if it is still
/// known. `writes`: how often this worker has sent its own result, which the server may have stored
/// without confirming that in time.
fn is_other_end(own: EndState, first: Option<EndState>, writes: u32) -> bool {
    match first {
        Some(first) => first != own,
        None => writes == 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_that_was_sent_before_is_own() {
        let (dead, done) = (EndState::Dead, EndState::Done);
        // The server stored it and did not confirm that in time. If it counted as another worker's,
        // the call would get no dead letter.
        assert!(!is_other_end(dead, Some(dead), 2) && !is_other_end(dead, None, 2));
        assert!(!is_other_end(dead, Some(dead), 1));
        assert!(is_other_end(dead, Some(done), 1) && is_other_end(dead, Some(done), 2));
        // It was delivered and removed before this worker sent anything.
        assert!(is_other_end(dead, None, 1));
    }
}
