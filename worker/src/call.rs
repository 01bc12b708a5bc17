//! Takes a call from its delivery to its end, or to its next attempt: [`prepare`] decodes it,
//! [`run`] invokes its function, and [`finish`] carries out what follows.
//!
//! Thousands of calls may run at once. So rare steps are boxed here: they take no memory of a call
//! while it runs.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::{AckKind, Context};
use asyncqueue::{
    CallId, FunctionName, Invocation, QueueName,
    attempt_offset::{AttemptOffset, Unrecorded},
    call::CallRef,
    jetstream::is_stored,
    status::request_worker_report,
};

use self::{
    attempt_offsets::AttemptOffsets,
    cancellations::CallGuard,
    finish::Finisher,
    prepare::{Preparer, Unprepared},
    run::Runner,
};
use crate::{
    consumer::{Handler, InFlightPermit, delivery::Delivery},
    function::request::Attempt,
    retry::outcome::{AttemptCount, RetryPolicy},
};

pub(crate) mod attempt_offsets;
pub(crate) mod batch_ends;
pub(crate) mod cancellations;
pub(crate) mod ended_calls;
pub(crate) mod finish;
pub(crate) mod log;
pub(crate) mod policies;
pub(crate) mod prepare;
pub(crate) mod result_keeper;
pub(crate) mod results;
pub(crate) mod run;
pub(crate) mod stall;
pub(crate) mod status;
pub(crate) mod waiting_records;

/// Handles the calls of a queue, one for each message.
pub(crate) struct CallHandler {
    pub(crate) js: Context,
    pub(crate) queue: QueueName,
    /// Name of the queue's stream.
    pub(crate) stream: String,
    pub(crate) offsets: AttemptOffsets,
    pub(crate) preparer: Preparer,
    pub(crate) runner: Runner,
    pub(crate) finisher: Finisher,
}

/// A decoded call, with its attempts and its policy.
pub(crate) struct Call {
    pub(crate) invocation: Invocation,
    pub(crate) stored: CallRef,
    pub(crate) attempts: AttemptCount,
    /// The stored record from which the number of the attempt follows.
    pub(crate) recorded: AttemptOffset,
    /// How many deliveries by the consumer did not count as attempts: see
    /// [`AttemptOffset::Deliveries`].
    pub(crate) offset: i64,
    /// Whether the call was never delivered before, by no consumer.
    pub(crate) is_first: bool,
    /// How long the call has been in the queue.
    pub(crate) stored_for: Duration,
    /// The policy of the queue with the overrides of the function, as of the last decision.
    pub(crate) policy: Arc<RetryPolicy>,
}

// === impl Call ===

impl Call {
    /// Returns the function and the call id.
    pub(crate) fn function_and_id(&self) -> (&FunctionName, &CallId) {
        (&self.invocation.function, &self.invocation.call_id)
    }

    /// Returns what holds for the attempts of this call if they have no record.
    pub(crate) fn unrecorded(&self) -> Unrecorded {
        unrecorded(&self.invocation)
    }

    pub(crate) fn attempt(&self) -> Attempt {
        Attempt { number: self.attempts.number, max: self.policy.max_attempts }
    }
}

/// Returns what holds for the attempts of a call that have no record.
fn unrecorded(invocation: &Invocation) -> Unrecorded {
    match invocation.not_before {
        Some(_) => Unrecorded::Delayed,
        None => Unrecorded::Delivered,
    }
}

// === impl CallHandler ===

impl Handler for CallHandler {
    type SettleGuard = Option<CallGuard>;

    /// Takes a call to its end, or to its next attempt.
    async fn handle(
        &self,
        delivery: &Delivery,
        lease: Duration,
        permit: &mut InFlightPermit,
    ) -> (AckKind, Option<CallGuard>) {
        match self.prepare_and_run(delivery, lease, permit).await {
            Ok((ack, guard)) => (ack, Some(guard)),
            Err(Unprepared::DeadLetter(reason)) => {
                let ack = Box::pin(self.finisher.dead_letter_message(delivery, reason, permit));
                (ack.await, None)
            }
            Err(Unprepared::Redeliver(guard, unrecorded)) => {
                let ack = self.finisher.redeliver_later(guard.call(), unrecorded, permit);
                (Box::pin(ack).await, Some(guard))
            }
        }
    }

    async fn on_undecodable(
        &self,
        delivery: &Delivery,
        reason: String,
        permit: &mut InFlightPermit,
    ) -> AckKind {
        let reason = format!("undecodable: {reason}");
        self.finisher.dead_letter_message(delivery, reason, permit).await
    }

    /// Excludes a delivery that was never read from the attempts, unless another worker has the
    /// call.
    async fn on_lost_delivery(&self, delivery: &Delivery) {
        let Some((call, unrecorded)) = self.preparer.call_of(delivery) else { return };
        if let Ok(None) = request_worker_report(&self.js, &self.queue, &call).await {
            self.offsets.exclude(&call, unrecorded, 1).await;
        }
    }

    /// Excludes the deliveries of a call that is handed back from the attempts.
    async fn before_nak(&self, delivery: &Delivery, redeliveries: u64) {
        if let Some((call, unrecorded)) = self.preparer.call_of(delivery) {
            self.offsets.exclude(&call, unrecorded, 1 + redeliveries).await;
        }
    }

    /// Excludes a delivery that came too late from the attempts. This is not needed for a call that
    /// has left the queue.
    async fn on_late_delivery(&self, delivery: &Delivery) {
        let Some((call, unrecorded)) = self.preparer.call_of(delivery) else { return };
        if let Ok(true) = is_stored(&self.js, &self.stream, call.sequence).await {
            self.offsets.exclude(&call, unrecorded, 1).await;
        }
    }
}

impl CallHandler {
    /// Prepares, runs and finishes a call. The guard must be kept until the message is settled.
    async fn prepare_and_run(
        &self,
        delivery: &Delivery,
        lease: Duration,
        permit: &mut InFlightPermit,
    ) -> Result<(AckKind, CallGuard), Unprepared> {
        // `?` instead of a `match` that awaits: such a match would hold a second `Prepared`.
        let mut prepared = self.preparer.prepare(delivery).await?;
        let result = self.runner.run(delivery, &mut prepared).await;
        let finished = self.finisher.finish(delivery, &mut prepared, result, lease, permit);
        let ack = Box::pin(finished).await;
        Ok((ack, prepared.guard))
    }
}
