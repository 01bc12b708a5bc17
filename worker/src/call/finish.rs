//! Carries out what follows for a call after it has run, or instead: its tombstone, its result for
//! the client and its dead letter, in this order. After a crash in between, the next worker thus
//! finds what is left to do.

use std::time::{Duration, Instant, SystemTime};

use async_nats::jetstream::{AckKind, Context};
use asyncqueue::{
    EndState, FunctionName, QueueName, Rounded,
    attempt_offset::{AttemptOffset, Unrecorded},
    call::{AttemptFailure, CallRef, Phase},
    dead_letters::DeathInfo,
    failed_attempts::Tried,
    jetstream::{NatsError, is_stored},
    publish_failure::PublishFailure,
    status::request_worker_report,
    tombstone::{self, Mark, WriteOutcome},
};
use asyncqueue_runtime::log_limit::LogLimits;
use jiff::Timestamp;
use tokio::time::sleep;
use tracing::{error, info, warn};

use super::{
    Call,
    attempt_offsets::{AttemptOffsets, offset_after},
    log::{log_attempt, log_put_off, log_refused, log_scheduled},
    policies::RetryPolicies,
    prepare::Prepared,
    results::{ResultOutcome, ResultPublisher},
    run::InvocationResult,
    status::{CallStatuses, StatusGuard, Wait, blocked_reporter},
};
use crate::{
    consumer::{InFlightPermit, LEASES_UNTIL_ABANDONED, delivery::Delivery},
    dead_letter::DeadLetterWriter,
    function::client::Reply,
    metrics::Metrics,
    record::Record,
    record_store::RecordStore,
    retry::{
        backoff::until_others_come,
        outcome::{Outcome, PutOff, PutOffReason, Refusal, STATUS_UNREACHABLE},
    },
};

/// The status in its batch of a call that another worker has completed: its own is not known.
const STATUS_OK: u16 = 200;

/// Delay of a redelivery of a call if it can't be determined now whether the call is cancelled.
const UNKNOWN_STATE_DELAY: Duration = Duration::from_secs(1);

/// Finishes the calls of a queue.
pub(crate) struct Finisher {
    pub(crate) js: Context,
    pub(crate) queue: QueueName,
    /// Name of the queue's stream.
    pub(crate) stream: String,
    pub(crate) policies: RetryPolicies,
    pub(crate) store: RecordStore,
    pub(crate) offsets: AttemptOffsets,
    pub(crate) results: ResultPublisher,
    pub(crate) dead_letters: DeadLetterWriter,
    pub(crate) statuses: CallStatuses,
    /// Limits the log of functions whose calls are put off.
    pub(crate) put_off_log: LogLimits<FunctionName>,
    pub(crate) metrics: Metrics,
}

/// Says why a call is dead, and whether this worker has just marked it so. If it has, a result that
/// is stored already is of another end, since results of dead calls are stored after the mark.
struct DeathMark {
    reason: String,
    is_new: bool,
}

impl Finisher {
    /// Finishes a call, and returns how to settle its message.
    pub(crate) async fn finish(
        &self,
        delivery: &Delivery,
        prepared: &mut Prepared,
        result: InvocationResult,
        lease: Duration,
        permit: &mut InFlightPermit,
    ) -> AckKind {
        match result {
            InvocationResult::Reply(reply, refusal) => {
                self.finish_invoked(delivery, prepared, (reply, refusal), permit).await
            }
            InvocationResult::AlreadyEnded(mark) => {
                self.finish_as_marked(delivery, prepared, mark, permit).await
            }
            InvocationResult::Unknown => {
                let call = &prepared.call;
                self.redeliver_later(&call.stored, call.unrecorded(), permit).await
            }
            InvocationResult::PutOff(put_off) => {
                self.put_off(delivery, prepared, put_off, permit).await
            }
            InvocationResult::Unstarted(end) => {
                self.finish_unstarted(delivery, prepared, end, lease, permit).await
            }
        }
    }

    /// Writes a dead letter for a message that is not a call.
    pub(crate) async fn dead_letter_message(
        &self,
        delivery: &Delivery,
        reason: String,
        permit: &mut InFlightPermit,
    ) -> AckKind {
        let death = DeathInfo { reason, attempts: delivery.num_delivered, status: None };
        self.dead_letters.write(delivery.into(), None, death, permit).await.ack()
    }

    /// Hands back a call that can't be started now. This delivery does not count as an attempt.
    pub(crate) async fn redeliver_later(
        &self,
        call: &CallRef,
        unrecorded: Unrecorded,
        permit: &mut InFlightPermit,
    ) -> AckKind {
        self.offsets.add(call, unrecorded, 1 + permit.redeliveries(), permit).await;
        AckKind::Nak(Some(UNKNOWN_STATE_DELAY))
    }

    /// Hands back a call whose function can't be invoked now. Only the first time needs a record:
    /// from then on, no delivery counts as an attempt until the function is invoked.
    async fn put_off(
        &self,
        delivery: &Delivery,
        prepared: &mut Prepared,
        PutOff { reason, wait, not_counted_for }: PutOff,
        permit: &mut InFlightPermit,
    ) -> AckKind {
        if prepared.guard.is_cancelled() {
            return self.finish_as_marked(delivery, prepared, Mark::Cancelling, permit).await;
        }
        let call = &prepared.call;
        self.metrics.record_put_off(reason);
        // Its message says when it is due: it needs no record, and no memory here.
        if reason == PutOffReason::Scheduled {
            self.statuses.scheduled().insert(call.stored.sequence, wait, Instant::now());
            log_scheduled(call, wait);
            return AckKind::Nak(Some(wait));
        }
        let made = AttemptOffset::Attempts(call.attempts.number - 1);
        let is_recorded = match call.recorded {
            AttemptOffset::Waiting { .. } => true,
            recorded => recorded == made,
        };
        if !is_recorded {
            self.offsets.set(call, made, permit).await;
        }
        log_put_off(call, reason, wait, &self.put_off_log);
        if let Some(status) = prepared.status.take() {
            let failure = AttemptFailure {
                last_status: STATUS_UNREACHABLE,
                last_error: reason.description().to_owned(),
            };
            let made = call.attempts.number - 1;
            status.mark_waiting(Wait { time: wait, made, not_counted_for }, failure);
        }
        AckKind::Nak(Some(until_others_come(wait, Timestamp::now())))
    }

    /// Finishes a call whose function was invoked.
    async fn finish_invoked(
        &self,
        delivery: &Delivery,
        prepared: &mut Prepared,
        (reply, refusal): (Reply, Option<Refusal>),
        permit: &mut InFlightPermit,
    ) -> AckKind {
        // The call may have run for long: what applies now decides.
        prepared.call.policy = self.policies.for_call(&prepared.call.invocation);
        let Prepared { call, guard, status } = &*prepared;
        let refused = refusal.and_then(|refusal| call.attempts.refused(refusal, rand::random()));
        let is_refused = refused.is_some();
        let outcome = refused.unwrap_or_else(|| {
            call.policy.decide(&reply.end, call.attempts, SystemTime::now(), rand::random())
        });
        let is_cancelled = match &outcome {
            Outcome::Done => !guard.try_end(),
            Outcome::Retry { .. } => guard.is_cancelled(),
            Outcome::Dead(_) => {
                match self.write_tombstone(call, EndState::Dead, status.as_ref(), permit).await {
                    Some(WriteOutcome { mark: Mark::Ended(EndState::Dead), .. }) => false,
                    Some(WriteOutcome { mark, .. }) => {
                        return self.finish_as_marked(delivery, prepared, mark, permit).await;
                    }
                    // It is not known whether the call is cancelled: it is delivered again, and
                    // becomes a dead letter then.
                    None => return AckKind::Nak(Some(UNKNOWN_STATE_DELAY)),
                }
            }
        };
        if is_cancelled {
            return self.finish_as_marked(delivery, prepared, Mark::Cancelling, permit).await;
        }
        if is_refused {
            // The gate of its function has counted and logged it.
            log_refused(call, &reply);
        } else {
            self.metrics.record_attempt(reply.duration, &outcome);
            log_attempt(call, &reply, &outcome);
        }
        match outcome {
            Outcome::Done => self.finish_done(prepared, reply, permit).await,
            Outcome::Retry { wait, not_counted_for } => {
                self.finish_failed(delivery, prepared, &reply, (wait, not_counted_for), permit)
                    .await
            }
            Outcome::Dead(reason) => {
                let death = DeathMark { reason, is_new: true };
                self.finish_dead(delivery, call, reply, death, status.as_ref(), permit).await
            }
        }
    }

    /// Finishes a call that has an end state already, as its tombstone says.
    async fn finish_as_marked(
        &self,
        delivery: &Delivery,
        prepared: &Prepared,
        mark: Mark,
        permit: &mut InFlightPermit,
    ) -> AckKind {
        let Prepared { call, guard, .. } = prepared;
        if mark.is_cancelled() {
            guard.confirm_stopped(false, delivery.is_lease_certain()).await;
        }
        match mark.end() {
            EndState::Dead => {
                // There was no room for the dead letter, or the worker that marked the call as dead
                // ended before it was stored.
                let reason =
                    "its attempts were exhausted before, but its dead letter was not stored then";
                let death = DeathMark { reason: reason.to_owned(), is_new: false };
                self.finish_dead(delivery, call, Reply::empty(), death, None, permit).await
            }
            // The call has run, and no client wants its result.
            EndState::Done => {
                self.record_done(call, permit).await;
                AckKind::Ack
            }
            end => self.finish_without_run(call, end, permit).await,
        }
    }

    /// Finishes a call that was not started, unless it has ended in another way.
    async fn finish_unstarted(
        &self,
        delivery: &Delivery,
        prepared: &Prepared,
        end: EndState,
        lease: Duration,
        permit: &mut InFlightPermit,
    ) -> AckKind {
        let call = &prepared.call;
        match tombstone::read(&self.js, &self.queue, &call.stored).await {
            Ok(Some(tombstone)) => {
                return self.finish_as_marked(delivery, prepared, tombstone.mark, permit).await;
            }
            Ok(None) => {}
            Err(_) => {
                return self.redeliver_later(&call.stored, call.unrecorded(), permit).await;
            }
        }
        let status = self.statuses.track_running(call.stored.clone(), call.attempt());
        if call.attempts.deliveries > 1
            && self.is_still_in_progress(call, lease, permit).await.unwrap_or(true)
        {
            return AckKind::Nak(Some(lease));
        }
        match self.write_tombstone(call, end, Some(&status), permit).await {
            Some(WriteOutcome { mark: Mark::Ended(EndState::Dead), .. }) => {
                self.finish_crashed(delivery, call, &status, permit).await
            }
            Some(WriteOutcome { mark, .. }) => {
                self.finish_as_marked(delivery, prepared, mark, permit).await
            }
            None => AckKind::Nak(Some(UNKNOWN_STATE_DELAY)),
        }
    }

    /// Returns whether a call that was delivered before may still be in progress: its worker lost
    /// its lease without crashing, or its ack is on the way. Waits for that without the slot.
    async fn is_still_in_progress(
        &self,
        call: &Call,
        lease: Duration,
        permit: &mut InFlightPermit,
    ) -> Result<bool, NatsError> {
        permit.release_slot_early();
        sleep(lease * LEASES_UNTIL_ABANDONED).await;
        if !is_stored(&self.js, &self.stream, call.stored.sequence).await? {
            return Ok(true);
        }
        let report = request_worker_report(&self.js, &self.queue, &call.stored).await?;
        let is_own = |worker: &str| worker == self.statuses.worker();
        Ok(report.is_some_and(|report| {
            matches!(report.phase, Phase::Running { .. }) && !is_own(&report.worker)
        }))
    }

    /// Marks a call as ended in this way. Returns the mark that the call has then, which may be an
    /// earlier one, or `None` if that can't be determined now. Without a bucket, the call counts as
    /// marked: it can't be cancelled either.
    async fn write_tombstone(
        &self,
        call: &Call,
        end: EndState,
        status: Option<&StatusGuard>,
        permit: &mut InFlightPermit,
    ) -> Option<WriteOutcome> {
        let mark = Mark::Ended(end);
        let on_blocked = blocked_reporter(status);
        let written =
            self.store.store_with_retries(Record::Tombstone, permit, on_blocked, async || {
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

    /// Finishes a call that is done.
    async fn finish_done(
        &self,
        prepared: &Prepared,
        reply: Reply,
        permit: &mut InFlightPermit,
    ) -> AckKind {
        let Prepared { call, guard, status } = prepared;
        let code = reply.end.status();
        let published =
            self.results.publish(call, EndState::Done, code, reply, status.as_ref(), permit).await;
        if published == ResultOutcome::Settled && guard.mark_settled() {
            let marked = tombstone::mark_too_late(&self.js, &self.queue, &call.stored).await;
            if let Err(error) = marked {
                let (function, call_id) = call.function_and_id();
                warn!(%call_id, %function, %error, "failed to mark a cancellation as too late");
            }
        }
        AckKind::Ack
    }

    /// Finishes an attempt that has failed: the call is delivered again after the wait.
    async fn finish_failed(
        &self,
        delivery: &Delivery,
        prepared: &mut Prepared,
        reply: &Reply,
        (wait, not_counted_for): (Duration, Option<Duration>),
        permit: &mut InFlightPermit,
    ) -> AckKind {
        let is_attempt = not_counted_for.is_none();
        let is_lease_certain = delivery.is_lease_certain();
        let offset =
            offset_after(&prepared.call, is_attempt, permit.redeliveries(), is_lease_certain);
        if let Some(offset) = offset {
            self.offsets.set(&prepared.call, offset, permit).await;
        }
        if let Some(status) = prepared.status.take() {
            let made = prepared.call.attempts.number - u64::from(!is_attempt);
            let failure = reply.failure();
            if is_attempt {
                let AttemptFailure { last_status, last_error } = &failure;
                let (failed, call) = (self.statuses.failed_attempts(), &prepared.call.stored);
                failed.record(call, Tried::Call, made, *last_status, last_error);
            }
            status.mark_waiting(Wait { time: wait, made, not_counted_for }, failure);
        }
        AckKind::Nak(Some(wait))
    }

    /// Finishes a call that has not run. The result of a cancelled call was stored for its client
    /// with the cancellation, unless the message came from an existing gateway. If it is stored
    /// twice, the client gets it once.
    async fn finish_without_run(
        &self,
        call: &Call,
        end: EndState,
        permit: &mut InFlightPermit,
    ) -> AckKind {
        let (function, call_id) = call.function_and_id();
        let age = Rounded(call.stored_for);
        let (name, what) = (function.name(), end.description());
        if end == EndState::Cancelled {
            info!(%call_id, %function, %age, "{name} {what}");
        } else {
            warn!(%call_id, %function, %age, "{name} {what}");
        }
        self.metrics.record_end_without_run(end);
        let code = end.status().unwrap_or(STATUS_UNREACHABLE);
        self.results.publish(call, end, code, Reply::empty(), None, permit).await;
        AckKind::Ack
    }

    /// Finishes a call whose attempts are exhausted and that is marked as dead.
    async fn finish_dead(
        &self,
        delivery: &Delivery,
        call: &Call,
        reply: Reply,
        DeathMark { reason, is_new }: DeathMark,
        status: Option<&StatusGuard>,
        permit: &mut InFlightPermit,
    ) -> AckKind {
        let code = reply.end.status();
        let published =
            self.results.publish(call, EndState::Dead, code, reply, status, permit).await;
        if published == ResultOutcome::HasOtherEnd {
            if is_new {
                return self.finish_already_done(call, permit).await;
            }
            // The result of a dead call was delivered before.
            self.results.batches.record(call, EndState::Dead, code, status, permit).await;
        }
        let death = DeathInfo { reason, attempts: call.attempts.number, status: Some(code) };
        let name = Some(call.function_and_id());
        self.dead_letters.write(delivery.into(), name, death, permit).await.ack()
    }

    /// Finishes a call whose attempts are exhausted and whose worker crashed during the last one.
    async fn finish_crashed(
        &self,
        delivery: &Delivery,
        call: &Call,
        status: &StatusGuard,
        permit: &mut InFlightPermit,
    ) -> AckKind {
        let attempts = call.attempts.number - 1;
        let (function, call_id) = call.function_and_id();
        error!(
            %call_id, %function, attempts,
            "worker crashed during the final attempt: moving the call to the dead-letter stream"
        );
        self.metrics.record_end_without_run(EndState::Dead);
        let (end, reply) = (EndState::Dead, Reply::empty());
        let published =
            self.results.publish(call, end, STATUS_UNREACHABLE, reply, Some(status), permit).await;
        if published == ResultOutcome::HasOtherEnd {
            return self.finish_already_done(call, permit).await;
        }
        let reason = format!("its worker crashed during the last of {attempts} attempts");
        let death = DeathInfo { reason, attempts, status: None };
        let name = Some((function, call_id));
        self.dead_letters.write(delivery.into(), name, death, permit).await.ack()
    }

    /// Records in the batch of a call that another worker has completed it, unless that worker did.
    async fn record_done(&self, call: &Call, permit: &mut InFlightPermit) {
        self.results.batches.record(call, EndState::Done, STATUS_OK, None, permit).await;
    }

    /// Finishes a call that was about to be dead although another worker had stored a result of
    /// another kind. That worker completed the call, and lost its lease before it could settle it.
    async fn finish_already_done(&self, call: &Call, permit: &mut InFlightPermit) -> AckKind {
        self.record_done(call, permit).await;
        let (function, call_id) = call.function_and_id();
        info!(
            %call_id, %function,
            "{} has completed already: another worker has stored its result",
            function.name()
        );
        let ended = tombstone::replace(
            &self.js,
            &self.queue,
            &call.stored,
            Mark::Ended(EndState::Dead),
            Mark::Ended(EndState::Done),
        )
        .await;
        if let Err(error) = ended {
            warn!(%call_id, %error, "failed to replace the mark that the call is dead");
        }
        AckKind::Ack
    }
}
