//! Takes one call through the worker: decodes it, checks whether it has ended already, invokes the
//! function and decides what follows. [`crate::finish`] carries out its end.

use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use async_nats::jetstream::{AckKind, Context};
use asyncqueue::{
    CallId, FunctionName, Invocation, QueueName,
    attempt_offset::{self, AttemptOffset, OffsetIncrement},
    call::{CallRef, Phase},
    dead_letters::DeathInfo,
    directory::Directory,
    jetstream::{NatsError, is_stored},
    message::{self, Fallback},
    status::request_worker_report,
    tombstone::{self, Mark, WriteOutcome},
};
use jiff::Timestamp;
use tokio::{sync::watch, time::sleep};
use tracing::{debug, info, warn};

use crate::{
    callback::of_call,
    cancellations::{CallInFlight, Cancellations},
    delivery::Delivered,
    finish::{self, Dying, Finish},
    function::{
        Caller, Reply,
        request::{Attempt, add_idempotency_key},
    },
    metrics::Metrics,
    outcome::{Outcome, RetryPolicy, Tries},
    pull::{Handler, Ticket},
    reports::{Reported, Reports},
    server_clock::ServerClock,
    settle::PATIENCE_IN_LEASES,
    stall::Stalls,
};

/// How long a call is handed back if it can't be started now, because it is not known whether it is
/// cancelled.
const UNKNOWN_WAIT: Duration = Duration::from_secs(1);

/// Invokes functions, for one message each.
pub(crate) struct Invoke {
    pub(crate) js: Context,
    pub(crate) queue: QueueName,
    /// Name of the queue's stream.
    pub(crate) stream: String,
    pub(crate) caller: Caller,
    pub(crate) policy: RetryPolicy,
    /// Maximum age of a call when it is delivered. Unset: unlimited.
    pub(crate) max_age: Option<Duration>,
    pub(crate) directory: watch::Receiver<Option<Arc<Directory>>>,
    pub(crate) function_namespace: String,
    pub(crate) cancellations: Cancellations,
    pub(crate) stalls: Stalls,
    pub(crate) clock: ServerClock,
    pub(crate) reports: Reports,
    pub(crate) finish: Finish,
    /// Whether headers and bodies are logged.
    pub(crate) verbose: bool,
    pub(crate) metrics: Metrics,
}

/// A decoded call, with its tries and its policy.
pub(crate) struct Call<'a> {
    pub(crate) invocation: Invocation,
    pub(crate) stored: CallRef,
    pub(crate) tries: Tries,
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

impl Handler for Invoke {
    type Kept = Option<CallInFlight>;

    /// Brings a call to its end, or to its next attempt.
    async fn handle(
        &self,
        delivered: &Delivered,
        lease: Duration,
        ticket: &mut Ticket,
    ) -> (AckKind, Option<CallInFlight>) {
        let invocation = match self.decode(delivered) {
            Ok(invocation) => invocation,
            Err(error) => {
                warn!(subject = %delivered.message.subject, %error, "a message is no call: it becomes a dead letter");
                let reason = format!("undecodable: {error}");
                return (Box::pin(self.give_up_message(delivered, reason, ticket)).await, None);
            }
        };
        let stored = CallRef { id: invocation.call_id.clone(), sequence: delivered.sequence };
        let in_flight = self.cancellations.take(stored.clone());
        // Here and below, rare steps are boxed: thousands of calls may run at once, and these steps
        // take no memory of a call while it runs.
        let offset = if delivered.count == 1 {
            Ok(0)
        } else {
            Box::pin(self.offset(delivered, &stored)).await
        };
        let offset = match offset {
            Ok(offset) => offset,
            Err(error) => {
                let call_id = &stored.id;
                debug!(%call_id, %error, "the attempt offset can't be read: the call is not started now");
                return (Box::pin(self.hand_back_unknown(&stored, ticket)).await, Some(in_flight));
            }
        };
        let tries = Tries {
            attempt: delivered.count.saturating_sub(offset).max(1),
            deliveries: delivered.count,
            age: self.age(delivered.stored_at),
        };
        let policy = self.policy_of(&invocation);
        let mut call = Call { invocation, stored, tries, policy };
        let ack = self.bring_on(delivered, &mut call, &in_flight, lease, ticket).await;
        (ack, Some(in_flight))
    }

    async fn give_up_unreadable(
        &self,
        delivered: &Delivered,
        why: String,
        ticket: &mut Ticket,
    ) -> AckKind {
        self.give_up_message(delivered, format!("undecodable: {why}"), ticket).await
    }

    /// Counts a delivery that was never read as no attempt, unless another worker has the call.
    async fn delivery_was_lost(&self, delivered: &Delivered) {
        let Ok(invocation) = self.decode(delivered) else { return };
        let call = CallRef { id: invocation.call_id, sequence: delivered.sequence };
        if let Ok(None) = request_worker_report(&self.js, &self.queue, &call).await {
            self.count_none(&call, 1).await;
        }
    }

    /// Counts the deliveries of a call that is handed back as no attempts.
    async fn before_hand_back(&self, delivered: &Delivered, repeats: u64) {
        if let Ok(invocation) = self.decode(delivered) {
            let call = CallRef { id: invocation.call_id, sequence: delivered.sequence };
            self.count_none(&call, 1 + repeats).await;
        }
    }

    /// Counts a delivery that came too late as no attempt. For a call that has left the queue, no
    /// count is needed.
    async fn was_late(&self, delivered: &Delivered) {
        let Ok(invocation) = self.decode(delivered) else { return };
        let call = CallRef { id: invocation.call_id, sequence: delivered.sequence };
        if let Ok(true) = is_stored(&self.js, &self.stream, call.sequence).await {
            self.count_none(&call, 1).await;
        }
    }
}

impl Invoke {
    /// Brings a call that this worker has in flight to its end, or to its next attempt.
    async fn bring_on(
        &self,
        delivered: &Delivered,
        call: &mut Call<'_>,
        in_flight: &CallInFlight,
        lease: Duration,
        ticket: &mut Ticket,
    ) -> AckKind {
        if call.tries.deliveries == 1 {
            self.metrics.waited(call.tries.age);
        }
        let is_expired = self.max_age.is_some_and(|most| call.tries.age > most);
        if is_expired || call.policy.is_poison(call.tries.attempt) {
            return Box::pin(
                self.end_without_run(delivered, call, in_flight, lease, ticket, is_expired),
            )
            .await;
        }
        let reported = self.reports.running(call.stored.clone(), call.attempt());
        match self.make(delivered, call, in_flight).await {
            Made::Reply(reply) => {
                Box::pin(self.end(delivered, call, reply, in_flight, reported, ticket)).await
            }
            Made::Ended(mark) => {
                Box::pin(self.end_as_marked(delivered, call, mark, in_flight, ticket)).await
            }
            Made::Unknown => Box::pin(self.hand_back_unknown(&call.stored, ticket)).await,
        }
    }

    /// Invokes the function, unless the call has ended already.
    async fn make(
        &self,
        delivered: &Delivered,
        call: &mut Call<'_>,
        in_flight: &CallInFlight,
    ) -> Made {
        match self.may_start(delivered, call).await {
            MayStart::Yes => {}
            MayStart::Ended(mark) => return Made::Ended(mark),
            MayStart::Unknown => return Made::Unknown,
        }
        let Some(cancelled) = in_flight.start() else {
            in_flight.has_stopped(false, delivered.was_renewed()).await;
            return Made::Ended(Mark::Cancelled { confirmed: false });
        };
        let invocation = &call.invocation;
        let (call_id, function, attempt) =
            (&invocation.call_id, &invocation.function, call.tries.attempt);
        debug!(%call_id, %function, attempt, bytes = invocation.body.len(), "Invoking {}", function.name());
        let directory = self.directory.borrow().clone();
        let _counted = self.metrics.running(function, directory.as_deref());
        if self.verbose {
            let (headers, body) = (&invocation.headers, String::from_utf8_lossy(&invocation.body));
            info!(%call_id, %function, path = invocation.path, query = invocation.query, ?headers, %body, "Request");
        }
        // Except for the trace, headers are not needed after this attempt. Moving them avoids a
        // copy while the call runs.
        let trace = of_call::trace(&call.invocation.headers);
        let headers = std::mem::replace(&mut call.invocation.headers, trace);
        let invocation = &call.invocation;
        let reply = {
            let attempt = call.attempt();
            let exchange = self.caller.call(invocation, headers, attempt, directory.as_deref());
            tokio::select! {
                // Checked first: a call that was cancelled before it was sent is not sent.
                biased;
                () = cancelled.cancelled() => None,
                reply = exchange => Some(reply),
            }
        };
        let Some(reply) = reply else {
            in_flight.has_stopped(true, delivered.was_renewed()).await;
            return Made::Ended(Mark::Cancelled { confirmed: false });
        };
        in_flight.has_run();
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
    async fn may_start(&self, delivered: &Delivered, call: &Call<'_>) -> MayStart {
        let (mut since, mut is_checked) = (delivered.received_at, false);
        let mut is_due = call.tries.deliveries > 1;
        while is_due || self.stalls.may_have_missed(since, is_checked) {
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
        delivered: &Delivered,
        call: &Call<'_>,
        reply: Reply,
        in_flight: &CallInFlight,
        reported: Reported,
        ticket: &mut Ticket,
    ) -> AckKind {
        let outcome =
            call.policy.decide(&reply.ending, call.tries, SystemTime::now(), rand::random());
        let is_cancelled = match &outcome {
            Outcome::Done => !in_flight.end(),
            Outcome::Retry { .. } => in_flight.is_cancelled(),
            Outcome::Dead(_) => match self.finish.mark(call, Mark::Dead, &reported, ticket).await {
                Some(WriteOutcome { mark: Mark::Dead, .. }) => false,
                Some(WriteOutcome { mark, .. }) => {
                    return self.end_as_marked(delivered, call, mark, in_flight, ticket).await;
                }
                // It is not known whether the call is cancelled: it is delivered again, and given
                // up then.
                None => return AckKind::Nak(Some(UNKNOWN_WAIT)),
            },
        };
        if is_cancelled {
            in_flight.has_stopped(false, delivered.was_renewed()).await;
            return self.finish.cancelled(call, ticket).await;
        }
        self.metrics.ended(&reply, &outcome);
        finish::log(call, &reply, &outcome);
        match outcome {
            Outcome::Done => self.finish.done(call, reply, in_flight, &reported, ticket).await,
            Outcome::Retry { wait, not_counted_for } => {
                let counted = not_counted_for.is_none();
                if let Some(offset) =
                    offset_after(call, counted, ticket.repeats(), delivered.was_renewed())
                {
                    self.finish.set_offset(call, offset, ticket).await;
                }
                reported.waits(wait, reply.failure(), not_counted_for);
                AckKind::Nak(Some(wait))
            }
            Outcome::Dead(reason) => {
                let dying = Dying { reason, is_first: true };
                self.finish.dead(delivered, call, reply, dying, Some(&reported), ticket).await
            }
        }
    }

    /// Ends a call that has an end state already, as its tombstone says.
    async fn end_as_marked(
        &self,
        delivered: &Delivered,
        call: &Call<'_>,
        mark: Mark,
        in_flight: &CallInFlight,
        ticket: &mut Ticket,
    ) -> AckKind {
        match mark {
            Mark::Cancelled { .. } => {
                in_flight.has_stopped(false, delivered.was_renewed()).await;
                self.finish.cancelled(call, ticket).await
            }
            Mark::Dead => {
                // There was no room for the dead letter, or the worker that gave the call up ended
                // before it was stored.
                let reason = "its attempts are exhausted: it was given up before, and its dead letter was not stored then";
                let dying = Dying { reason: reason.to_owned(), is_first: false };
                self.finish.dead(delivered, call, Reply::none(), dying, None, ticket).await
            }
            Mark::Expired => self.finish.expired(call, ticket).await,
            // The call has run, and no client wants its result.
            Mark::Ended => AckKind::Ack,
        }
    }

    /// Ends a call that does not run (again): it is too old, or its attempts are exhausted. If they
    /// are exhausted, its worker died during the last one: otherwise the call would be dead
    /// already.
    async fn end_without_run(
        &self,
        delivered: &Delivered,
        call: &Call<'_>,
        in_flight: &CallInFlight,
        lease: Duration,
        ticket: &mut Ticket,
        is_expired: bool,
    ) -> AckKind {
        match tombstone::read(&self.js, &self.queue, &call.stored).await {
            Ok(Some(tombstone)) => {
                return self
                    .end_as_marked(delivered, call, tombstone.mark, in_flight, ticket)
                    .await;
            }
            Ok(None) => {}
            Err(_) => return self.hand_back_unknown(&call.stored, ticket).await,
        }
        let reported = self.reports.running(call.stored.clone(), call.attempt());
        if call.tries.deliveries > 1
            && self.may_end_otherwise(call, lease, ticket).await.unwrap_or(true)
        {
            return AckKind::Nak(Some(lease));
        }
        let mark = if is_expired { Mark::Expired } else { Mark::Dead };
        match self.finish.mark(call, mark, &reported, ticket).await {
            Some(WriteOutcome { mark: Mark::Dead, .. }) => {
                self.finish.poison(delivered, call, &reported, ticket).await
            }
            Some(WriteOutcome { mark, .. }) => {
                self.end_as_marked(delivered, call, mark, in_flight, ticket).await
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
        ticket: &mut Ticket,
    ) -> Result<bool, NatsError> {
        ticket.leave_slot();
        sleep(lease * PATIENCE_IN_LEASES).await;
        if !is_stored(&self.js, &self.stream, call.stored.sequence).await? {
            return Ok(true);
        }
        let report = request_worker_report(&self.js, &self.queue, &call.stored).await?;
        let is_own = |worker: &str| worker == self.reports.worker();
        Ok(report.is_some_and(|report| {
            matches!(report.phase, Phase::Running { .. }) && !is_own(&report.worker)
        }))
    }

    /// Counts deliveries of a call as no attempts.
    async fn count_none(&self, call: &CallRef, deliveries: u64) {
        match OffsetIncrement::new(&self.queue, call, deliveries).write(&self.js).await {
            Ok(()) => debug!(call_id = %call.id, deliveries, "deliveries count as no attempts"),
            Err(error) => {
                debug!(call_id = %call.id, %error, "a delivery counts as an attempt though it was none");
            }
        }
    }

    /// Hands back a call that can't be started now. This delivery was no attempt.
    async fn hand_back_unknown(&self, call: &CallRef, ticket: &mut Ticket) -> AckKind {
        self.finish.add_to_offset(call, 1 + ticket.repeats(), ticket).await;
        AckKind::Nak(Some(UNKNOWN_WAIT))
    }

    /// Makes a dead letter of a message that is not a call.
    async fn give_up_message(
        &self,
        delivered: &Delivered,
        reason: String,
        ticket: &mut Ticket,
    ) -> AckKind {
        let death = DeathInfo { reason, attempts: delivered.count, status: None };
        self.finish.dead_letters.write(delivered.into(), None, death, ticket).await.ack()
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
            Cow::Owned(self.policy.overridden(&overrides))
        }
    }

    fn decode(&self, delivered: &Delivered) -> Result<Invocation, message::DecodeError> {
        let decoded =
            message::decode(delivered.headers(), &delivered.message.payload, || Fallback {
                call_id: CallId::from_sequence(delivered.sequence),
                stored_at: delivered.stored_at,
                namespace: self.function_namespace.clone(),
            });
        decoded.map(|mut invocation| {
            add_idempotency_key(&mut invocation, delivered.headers());
            invocation
        })
    }

    /// Returns how many deliveries before this one were no attempts.
    async fn offset(&self, delivered: &Delivered, call: &CallRef) -> Result<u64, NatsError> {
        let stored = attempt_offset::get(&self.js, &self.queue, &call.id, call.sequence).await?;
        let offset = stored.at(delivered.count);
        if let AttemptOffset::Attempts(_) = stored {
            // From now on, deliveries count again: if this worker dies, this one was an attempt.
            let written = AttemptOffset::Deliveries(offset);
            if let Err(error) =
                attempt_offset::set(&self.js, &self.queue, &call.id, call.sequence, written).await
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
/// invocation that failed was an attempt. `repeats`: number of deliveries that were ignored while
/// the call was in flight. `was_renewed`: each renewal of the lease was confirmed. Otherwise there
/// may have been deliveries that never arrived here.
fn offset_after(
    call: &Call<'_>,
    counted: bool,
    repeats: u64,
    was_renewed: bool,
) -> Option<AttemptOffset> {
    let made = call.tries.attempt - u64::from(!counted);
    match (was_renewed, repeats + u64::from(!counted)) {
        (false, _) => Some(AttemptOffset::Attempts(made)),
        (true, 0) => None,
        (true, uncounted) => Some(AttemptOffset::Deliveries(call.offset() + uncounted)),
    }
}
