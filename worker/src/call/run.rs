//! Takes one call through the worker: decodes it, checks whether it has ended already, invokes the
//! function and decides what follows. [`super::finish`] carries out its end.

use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use async_nats::jetstream::{AckKind, Context};
use asyncqueue::{
    CallId, FunctionName, Invocation, QueueName,
    directory::Directory,
    message::{self, Fallback, dead_letter::Death},
    peek::{NatsError, is_stored},
    status::{Phase, worker_report},
    stored_call::StoredCall,
    tombstone::{self, Mark, Written},
    uncounted::{self, Addition, Offset},
};
use jiff::Timestamp;
use tokio::{sync::watch, time::sleep};
use tracing::{debug, info, warn};

use super::{
    cancellations::{CallGuard, Cancellations},
    finish::{self, DeathMark, Finisher},
    stall::StallDetector,
    status::{CallStatuses, StatusGuard},
};
use crate::{
    callback::call_headers,
    consumer::{Handler, InFlightPermit, LEASES_UNTIL_ABANDONED, delivery::Delivery},
    function::{
        client::{FunctionClient, Reply},
        request::{Attempt, add_idempotency_key},
    },
    metrics::Metrics,
    retry::outcome::{AttemptCount, Outcome, RetryPolicy},
    server_clock::ServerClock,
};

/// How long a call is handed back if it can't be started now, because it is not known whether it is
/// cancelled.
const UNKNOWN_WAIT: Duration = Duration::from_secs(1);

/// Invokes functions, for one message each.
pub(crate) struct CallHandler {
    pub(crate) js: Context,
    pub(crate) queue: QueueName,
    /// Name of the queue's stream.
    pub(crate) stream: String,
    pub(crate) function_client: FunctionClient,
    pub(crate) policy: RetryPolicy,
    /// Maximum age of a call when it is delivered. Unset: unlimited.
    pub(crate) max_age: Option<Duration>,
    pub(crate) directory: watch::Receiver<Option<Arc<Directory>>>,
    pub(crate) function_namespace: String,
    pub(crate) cancellations: Cancellations,
    pub(crate) stall_detector: StallDetector,
    pub(crate) clock: ServerClock,
    pub(crate) statuses: CallStatuses,
    pub(crate) finish: Finisher,
    /// Whether headers and bodies are logged.
    pub(crate) verbose: bool,
    pub(crate) metrics: Metrics,
}

/// A decoded call, with its tries and its policy.
pub(crate) struct Call<'a> {
    pub(crate) invocation: Invocation,
    pub(crate) stored: StoredCall,
    pub(crate) tries: AttemptCount,
    /// The queue's policy, with the overrides of the function.
    pub(crate) policy: Cow<'a, RetryPolicy>,
}

/// Says whether a call may be started.
enum MayStart {
    Yes,
    /// The call has ended already.
    Ended(Mark),
    /// This can't be determined now.
    Unknown,
}

/// Outcome of an attempt to invoke a function.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are replies, and a box would be made for each call"
)]
enum Made {
    Reply(Reply),
    Ended(Mark),
    Unknown,
}

impl Call<'_> {
    /// Returns the function and the call id.
    pub(crate) fn name(&self) -> (&FunctionName, &CallId) {
        (&self.invocation.function, &self.invocation.call_id)
    }

    pub(crate) fn attempt(&self) -> Attempt {
        Attempt { number: self.tries.attempt, max: self.policy.max_attempts }
    }

    /// Returns how many deliveries were no attempts.
    pub(crate) fn offset(&self) -> u64 {
        self.tries.deliveries.saturating_sub(self.tries.attempt)
    }
}

impl Handler for CallHandler {
    type SettleGuard = Option<CallGuard>;

    /// Brings a call to its end, or to its next attempt.
    async fn handle(
        &self,
        delivery: &Delivery,
        lease: Duration,
        permit: &mut InFlightPermit,
    ) -> (AckKind, Option<CallGuard>) {
        let invocation = match self.decode(delivery) {
            Ok(invocation) => invocation,
            Err(error) => {
                warn!(subject = %delivery.message.subject, %error, "a message is no call: it becomes a dead letter");
                let reason = format!("undecodable: {error}");
                return (Box::pin(self.give_up_message(delivery, reason, permit)).await, None);
            }
        };
        let stored = StoredCall { id: invocation.call_id.clone(), sequence: delivery.sequence };
        let in_flight = self.cancellations.register(stored.clone());
        // Here and below, rare steps are boxed: thousands of calls may run at once, and these steps
        // take no memory of a call while it runs.
        let offset = if delivery.delivery_count == 1 {
            Ok(0)
        } else {
            Box::pin(self.offset(delivery, &stored)).await
        };
        let offset = match offset {
            Ok(offset) => offset,
            Err(error) => {
                let call_id = &stored.id;
                debug!(%call_id, %error, "the attempt offset can't be read: the call is not started now");
                return (Box::pin(self.hand_back_unknown(&stored, permit)).await, Some(in_flight));
            }
        };
        let tries = AttemptCount {
            attempt: delivery.delivery_count.saturating_sub(offset).max(1),
            deliveries: delivery.delivery_count,
            age: self.age(delivery.stored_at),
        };
        let policy = self.policy_of(&invocation);
        let mut call = Call { invocation, stored, tries, policy };
        let ack = self.bring_on(delivery, &mut call, &in_flight, lease, permit).await;
        (ack, Some(in_flight))
    }

    async fn on_undecodable(
        &self,
        delivery: &Delivery,
        why: String,
        permit: &mut InFlightPermit,
    ) -> AckKind {
        self.give_up_message(delivery, format!("undecodable: {why}"), permit).await
    }

    /// Counts a delivery that was never read as no attempt, unless another worker has the call.
    async fn on_lost_delivery(&self, delivery: &Delivery) {
        let Ok(invocation) = self.decode(delivery) else { return };
        let call = StoredCall { id: invocation.call_id, sequence: delivery.sequence };
        if let Ok(None) = worker_report(&self.js, &self.queue, &call).await {
            self.count_none(&call, 1).await;
        }
    }

    /// Counts the deliveries of a call that is handed back as no attempts.
    async fn before_nak(&self, delivery: &Delivery, redeliveries: u64) {
        if let Ok(invocation) = self.decode(delivery) {
            let call = StoredCall { id: invocation.call_id, sequence: delivery.sequence };
            self.count_none(&call, 1 + redeliveries).await;
        }
    }

    /// Counts a delivery that came too late as no attempt. For a call that has left the queue, no
    /// count is needed.
    async fn on_late_delivery(&self, delivery: &Delivery) {
        let Ok(invocation) = self.decode(delivery) else { return };
        let call = StoredCall { id: invocation.call_id, sequence: delivery.sequence };
        if let Ok(true) = is_stored(&self.js, &self.stream, call.sequence).await {
            self.count_none(&call, 1).await;
        }
    }
}

impl CallHandler {
    /// Brings a call that this worker has in flight to its end, or to its next attempt.
    async fn bring_on(
        &self,
        delivery: &Delivery,
        call: &mut Call<'_>,
        in_flight: &CallGuard,
        lease: Duration,
        permit: &mut InFlightPermit,
    ) -> AckKind {
        if call.tries.deliveries == 1 {
            self.metrics.record_wait(call.tries.age);
        }
        let is_expired = self.max_age.is_some_and(|most| call.tries.age > most);
        if is_expired || call.policy.is_poison(call.tries.attempt) {
            return Box::pin(
                self.record_end_without_run(delivery, call, in_flight, lease, permit, is_expired),
            )
            .await;
        }
        let reported = self.statuses.track_running(call.stored.clone(), call.attempt());
        match self.make(delivery, call, in_flight).await {
            Made::Reply(reply) => {
                Box::pin(self.end(delivery, call, reply, in_flight, reported, permit)).await
            }
            Made::Ended(mark) => {
                Box::pin(self.end_as_marked(delivery, call, mark, in_flight, permit)).await
            }
            Made::Unknown => Box::pin(self.hand_back_unknown(&call.stored, permit)).await,
        }
    }

    /// Invokes the function, unless the call has ended already.
    async fn make(&self, delivery: &Delivery, call: &mut Call<'_>, in_flight: &CallGuard) -> Made {
        match self.may_start(delivery, call).await {
            MayStart::Yes => {}
            MayStart::Ended(mark) => return Made::Ended(mark),
            MayStart::Unknown => return Made::Unknown,
        }
        let Some(cancelled) = in_flight.try_start() else {
            in_flight.confirm_stopped(false, delivery.is_lease_certain()).await;
            return Made::Ended(Mark::Cancelled { confirmed: false });
        };
        let invocation = &call.invocation;
        let (call_id, function, attempt) =
            (&invocation.call_id, &invocation.function, call.tries.attempt);
        debug!(%call_id, %function, attempt, bytes = invocation.body.len(), "Invoking {}", function.name());
        let directory = self.directory.borrow().clone();
        let _counted = self.metrics.track_running(function, directory.as_deref());
        if self.verbose {
            let (headers, body) = (&invocation.headers, String::from_utf8_lossy(&invocation.body));
            info!(%call_id, %function, path = invocation.path, query = invocation.query, ?headers, %body, "Request");
        }
        // Except for the trace, headers are not needed after this attempt. Moving them avoids a
        // copy while the call runs.
        let trace = call_headers::trace(&call.invocation.headers);
        let headers = std::mem::replace(&mut call.invocation.headers, trace);
        let invocation = &call.invocation;
        let reply = {
            let attempt = call.attempt();
            let exchange =
                self.function_client.invoke(invocation, headers, attempt, directory.as_deref());
            tokio::select! {
                // Checked first: a call that was cancelled before it was sent is not sent.
                biased;
                () = cancelled.cancelled() => None,
                reply = exchange => Some(reply),
            }
        };
        let Some(reply) = reply else {
            in_flight.confirm_stopped(true, delivery.is_lease_certain()).await;
            return Made::Ended(Mark::Cancelled { confirmed: false });
        };
        in_flight.mark_idle();
        if self.verbose {
            let (headers, body) = (&reply.headers, String::from_utf8_lossy(&reply.body));
            let (call_id, function) = (&invocation.call_id, &invocation.function);
            info!(%call_id, %function, ?headers, %body, "Answer");
        }
        Made::Reply(reply)
    }

    /// Returns whether a call may be started. If a first delivery is started at once, a
    /// cancellation arrives in time. A repeated delivery, or one that follows a stall of this
    /// process, may have been cancelled before.
    async fn may_start(&self, delivery: &Delivery, call: &Call<'_>) -> MayStart {
        let (mut since, mut is_checked) = (delivery.received_at, false);
        let mut is_due = call.tries.deliveries > 1;
        while is_due || self.stall_detector.may_have_missed(since, is_checked) {
            (since, is_checked, is_due) = (Instant::now(), true, false);
            match Box::pin(tombstone::read(&self.js, &self.queue, &call.stored)).await {
                // Its worker died while it posted a result that can't be stored: the client may not
                // have the result.
                Ok(Some(tombstone))
                    if tombstone.mark == Mark::Ended && call.invocation.callback_url.is_some() => {}
                Ok(Some(tombstone)) => return MayStart::Ended(tombstone.mark),
                Ok(None) => {}
                Err(error) => {
                    let call_id = &call.stored.id;
                    debug!(%call_id, %error, "the tombstone can't be read: the call is not started now");
                    return MayStart::Unknown;
                }
            }
        }
        MayStart::Yes
    }

    /// Carries out what the end of an invocation means for its call.
    async fn end(
        &self,
        delivery: &Delivery,
        call: &Call<'_>,
        reply: Reply,
        in_flight: &CallGuard,
        reported: StatusGuard,
        permit: &mut InFlightPermit,
    ) -> AckKind {
        let outcome = call.policy.decide(&reply.end, call.tries, SystemTime::now(), rand::random());
        let is_cancelled = match &outcome {
            Outcome::Done => !in_flight.try_end(),
            Outcome::Retry { .. } => in_flight.is_cancelled(),
            Outcome::Dead(_) => match self.finish.mark(call, Mark::Dead, &reported, permit).await {
                Some(Written { mark: Mark::Dead, .. }) => false,
                Some(Written { mark, .. }) => {
                    return self.end_as_marked(delivery, call, mark, in_flight, permit).await;
                }
                // It is not known whether the call is cancelled: it is delivered again, and given
                // up then.
                None => return AckKind::Nak(Some(UNKNOWN_WAIT)),
            },
        };
        if is_cancelled {
            in_flight.confirm_stopped(false, delivery.is_lease_certain()).await;
            return self.finish.cancelled(call, permit).await;
        }
        self.metrics.record_attempt(&reply, &outcome);
        finish::log(call, &reply, &outcome);
        match outcome {
            Outcome::Done => self.finish.done(call, reply, in_flight, &reported, permit).await,
            Outcome::Retry { wait, not_counted_for } => {
                let counted = not_counted_for.is_none();
                if let Some(offset) =
                    offset_after(call, counted, permit.redeliveries(), delivery.is_lease_certain())
                {
                    self.finish.set_offset(call, offset, permit).await;
                }
                reported.mark_waiting(wait, reply.failure(), not_counted_for);
                AckKind::Nak(Some(wait))
            }
            Outcome::Dead(reason) => {
                let dying = DeathMark { reason, is_first: true };
                self.finish.dead(delivery, call, reply, dying, Some(&reported), permit).await
            }
        }
    }

    /// Ends a call that has an end state already, as its tombstone says.
    async fn end_as_marked(
        &self,
        delivery: &Delivery,
        call: &Call<'_>,
        mark: Mark,
        in_flight: &CallGuard,
        permit: &mut InFlightPermit,
    ) -> AckKind {
        match mark {
            Mark::Cancelled { .. } => {
                in_flight.confirm_stopped(false, delivery.is_lease_certain()).await;
                self.finish.cancelled(call, permit).await
            }
            Mark::Dead => {
                // There was no room for the dead letter, or the worker that gave the call up ended
                // before it was stored.
                let reason = "its attempts are exhausted: it was given up before, and its dead letter was not stored then";
                let dying = DeathMark { reason: reason.to_owned(), is_first: false };
                self.finish.dead(delivery, call, Reply::empty(), dying, None, permit).await
            }
            Mark::Expired => self.finish.expired(call, permit).await,
            // The call has run, and no client wants its result.
            Mark::Ended => AckKind::Ack,
        }
    }

    /// Ends a call that does not run (again): it is too old, or its attempts are exhausted. If they
    /// are exhausted, its worker died during the last one: otherwise the call would be dead
    /// already.
    async fn record_end_without_run(
        &self,
        delivery: &Delivery,
        call: &Call<'_>,
        in_flight: &CallGuard,
        lease: Duration,
        permit: &mut InFlightPermit,
        is_expired: bool,
    ) -> AckKind {
        match tombstone::read(&self.js, &self.queue, &call.stored).await {
            Ok(Some(tombstone)) => {
                return self.end_as_marked(delivery, call, tombstone.mark, in_flight, permit).await;
            }
            Ok(None) => {}
            Err(_) => return self.hand_back_unknown(&call.stored, permit).await,
        }
        let reported = self.statuses.track_running(call.stored.clone(), call.attempt());
        if call.tries.deliveries > 1
            && self.may_end_otherwise(call, lease, permit).await.unwrap_or(true)
        {
            return AckKind::Nak(Some(lease));
        }
        let mark = if is_expired { Mark::Expired } else { Mark::Dead };
        match self.finish.mark(call, mark, &reported, permit).await {
            Some(Written { mark: Mark::Dead, .. }) => {
                self.finish.poison(delivery, call, &reported, permit).await
            }
            Some(Written { mark, .. }) => {
                self.end_as_marked(delivery, call, mark, in_flight, permit).await
            }
            None => AckKind::Nak(Some(UNKNOWN_WAIT)),
        }
    }

    /// Returns whether a call that was delivered before may still end otherwise: its worker lost
    /// its lease without dying, or its ack is on the way. Waits for that without the slot.
    async fn may_end_otherwise(
        &self,
        call: &Call<'_>,
        lease: Duration,
        permit: &mut InFlightPermit,
    ) -> Result<bool, NatsError> {
        permit.release_slot_early();
        sleep(lease * LEASES_UNTIL_ABANDONED).await;
        if !is_stored(&self.js, &self.stream, call.stored.sequence).await? {
            return Ok(true);
        }
        let report = worker_report(&self.js, &self.queue, &call.stored).await?;
        let is_own = |worker: &str| worker == self.statuses.worker();
        Ok(report.is_some_and(|report| {
            matches!(report.phase, Phase::Running { .. }) && !is_own(&report.worker)
        }))
    }

    /// Counts deliveries of a call as no attempts.
    async fn count_none(&self, call: &StoredCall, deliveries: u64) {
        match Addition::new(&self.queue, call, deliveries).write(&self.js).await {
            Ok(()) => debug!(call_id = %call.id, deliveries, "deliveries count as no attempts"),
            Err(error) => {
                debug!(call_id = %call.id, %error, "a delivery counts as an attempt though it was none");
            }
        }
    }

    /// Hands back a call that can't be started now. This delivery was no attempt.
    async fn hand_back_unknown(&self, call: &StoredCall, permit: &mut InFlightPermit) -> AckKind {
        self.finish.add_to_offset(call, 1 + permit.redeliveries(), permit).await;
        AckKind::Nak(Some(UNKNOWN_WAIT))
    }

    /// Makes a dead letter of a message that is not a call.
    async fn give_up_message(
        &self,
        delivery: &Delivery,
        reason: String,
        permit: &mut InFlightPermit,
    ) -> AckKind {
        let death = Death { reason, attempts: delivery.delivery_count, status: None };
        self.finish.dead_letters.write(delivery.into(), None, death, permit).await.ack()
    }

    /// Returns the policy for a call. The overrides of its function in the directory take
    /// precedence over those in its message.
    fn policy_of(&self, invocation: &Invocation) -> Cow<'_, RetryPolicy> {
        let directory = self.directory.borrow();
        let known =
            directory.as_ref().and_then(|directory| directory.functions.get(&invocation.function));
        let known = known.map(|function| function.retry.clone()).unwrap_or_default();
        let overrides = known.or(&invocation.retry);
        // Nearly always there are no overrides, and nothing is copied.
        if overrides.is_empty() {
            Cow::Borrowed(&self.policy)
        } else {
            Cow::Owned(self.policy.with_overrides(&overrides))
        }
    }

    fn decode(&self, delivery: &Delivery) -> Result<Invocation, message::DecodeError> {
        let decoded = message::decode(delivery.headers(), &delivery.message.payload, || Fallback {
            call_id: CallId::of_sequence(delivery.sequence),
            stored_at: delivery.stored_at,
            namespace: self.function_namespace.clone(),
        });
        decoded.map(|mut invocation| {
            add_idempotency_key(&mut invocation, delivery.headers());
            invocation
        })
    }

    /// Returns how many deliveries before this one were no attempts.
    async fn offset(&self, delivery: &Delivery, call: &StoredCall) -> Result<u64, NatsError> {
        let stored = uncounted::get(&self.js, &self.queue, &call.id, call.sequence).await?;
        let offset = stored.at(delivery.delivery_count);
        if let Offset::Made(_) = stored {
            // From now on, deliveries count again: if this worker dies, this one was an attempt.
            let written = Offset::Deliveries(offset);
            if let Err(error) =
                uncounted::set(&self.js, &self.queue, &call.id, call.sequence, written).await
            {
                debug!(call_id = %call.id, %error, "the attempt offset can't be written");
            }
        }
        Ok(offset)
    }

    /// Returns how long a call has been in the queue, by the server's clock.
    fn age(&self, stored_at: Timestamp) -> Duration {
        self.clock.now().duration_since(stored_at).try_into().unwrap_or_default()
    }
}

/// Returns the attempt offset to store for a call that is tried again, if any. `counted`: the
/// invocation that failed was an attempt. `redeliveries`: number of deliveries that were ignored while
/// the call was in flight. `is_lease_certain`: each renewal of the lease was confirmed. Otherwise there
/// may have been deliveries that never arrived here.
fn offset_after(
    call: &Call<'_>,
    counted: bool,
    redeliveries: u64,
    is_lease_certain: bool,
) -> Option<Offset> {
    let made = call.tries.attempt - u64::from(!counted);
    match (is_lease_certain, redeliveries + u64::from(!counted)) {
        (false, _) => Some(Offset::Made(made)),
        (true, 0) => None,
        (true, uncounted) => Some(Offset::Deliveries(call.offset() + uncounted)),
    }
}
