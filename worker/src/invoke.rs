//! The way of one call through the worker: decoded, made, decided on, reported.

use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_nats::jetstream::{AckKind, Context};
use asyncqueue::{
    CallId, EndState, FunctionName, GoDuration, Invocation, QueueName,
    cancel::{self, StoredCall},
    directory::Directory,
    forward::strip_connection_headers,
    message::{self, Fallback, callback::Callback, dead_letter::Death},
    peek::{NatsError, is_stored},
    status::{Phase, worker_report},
    uncounted,
};
use jiff::Timestamp;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tracing::{debug, error, info, warn};

use crate::{
    bury::{ELECTION, Graveyard},
    callback::{
        self, Messenger,
        store::{CallbackStore, StoreError},
    },
    cancellations::Cancellations,
    delivery::Delivered,
    function::{
        Caller, Reply,
        request::{Attempt, add_idempotency_key},
    },
    metrics::Metrics,
    outcome::{Outcome, RetryPolicy, Tries, UNREACHABLE},
    pull::Handler,
    reports::{Reported, Reports},
    settle::PATIENCE_IN_LEASES,
};

/// Between attempts to store a result, or to give a call up, while NATS is away.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// Makes calls, one message each.
pub(crate) struct Invoke {
    pub(crate) js: Context,
    pub(crate) queue: QueueName,
    /// The queue's stream.
    pub(crate) stream: String,
    pub(crate) caller: Caller,
    pub(crate) policy: RetryPolicy,
    pub(crate) directory: watch::Receiver<Option<Arc<Directory>>>,
    pub(crate) function_namespace: String,
    pub(crate) cancellations: Cancellations,
    pub(crate) reports: Reports,
    pub(crate) graveyard: Graveyard,
    pub(crate) callbacks: CallbackStore,
    pub(crate) messenger: Messenger,
    /// Whether headers and bodies are logged.
    pub(crate) verbose: bool,
    pub(crate) metrics: Metrics,
}

/// A call, and how its message came.
struct Call<'a> {
    invocation: Invocation,
    stored: StoredCall,
    tries: Tries,
    /// The queue's policy, with what the function says of its own.
    policy: Cow<'a, RetryPolicy>,
}

impl Call<'_> {
    fn name(&self) -> (&FunctionName, &CallId) {
        (&self.invocation.function, &self.invocation.call_id)
    }

    fn attempt(&self) -> Attempt {
        Attempt { number: self.tries.attempt, max: self.policy.max_attempts }
    }
}

impl Handler for Invoke {
    /// Brings a call to its end, or to its next attempt.
    async fn handle(&self, delivered: &Delivered, lease: Duration) -> AckKind {
        let invocation = match self.decode(delivered) {
            Ok(invocation) => invocation,
            Err(error) => {
                warn!(subject = %delivered.message.subject, %error, "a message is no call: it becomes a dead letter");
                let reason = format!("undecodable: {error}");
                let death = Death { reason, attempts: delivered.count, status: None };
                return Box::pin(self.graveyard.bury(delivered, None, death)).await;
            }
        };
        let stored = StoredCall { id: invocation.call_id.clone(), sequence: delivered.sequence };
        // Here and below, what is seldom done is in a box of its own: while a call runs, as thousands may at once, it
        // takes no memory.
        let uncounted = if delivered.count == 1 { 0 } else { Box::pin(self.uncounted(&stored)).await };
        let tries = Tries {
            attempt: delivered.count.saturating_sub(uncounted).max(1),
            deliveries: delivered.count,
            age: age(delivered.stored_at),
        };
        let policy = self.policy_of(&invocation);
        let mut call = Call { invocation, stored, tries, policy };
        if tries.deliveries == 1 {
            self.metrics.waited(tries.age);
        }
        if call.policy.is_poison(call.tries.attempt) {
            return Box::pin(self.give_up_poison(delivered, &call, lease)).await;
        }
        let reported = self.reports.running(call.stored.clone(), call.attempt());
        match self.make(&mut call).await {
            Some(reply) => Box::pin(self.end(delivered, &call, reply, reported)).await,
            None => Box::pin(self.end_cancelled(&call)).await,
        }
    }

    async fn bury(&self, delivered: &Delivered, why: String) -> AckKind {
        let death = Death { reason: format!("undecodable: {why}"), attempts: delivered.count, status: None };
        self.graveyard.bury(delivered, None, death).await
    }

    /// A call that is handed back has not had its attempt.
    async fn before_hand_back(&self, delivered: &Delivered) {
        if let Ok(invocation) = self.decode(delivered) {
            let stored = StoredCall { id: invocation.call_id, sequence: delivered.sequence };
            let uncounted = if delivered.count == 1 { 0 } else { self.uncounted(&stored).await };
            self.set_uncounted(&stored, uncounted + 1).await;
        }
    }
}

impl Invoke {
    /// Makes a call; `None` if it was cancelled before or meanwhile.
    async fn make(&self, call: &mut Call<'_>) -> Option<Reply> {
        // A first delivery is heard of in time; one that comes again may have been cancelled while nobody had it.
        if call.tries.deliveries > 1 && Box::pin(self.was_cancelled(&call.stored)).await {
            return None;
        }
        let running = self.cancellations.begin(call.stored.clone())?;
        let invocation = &call.invocation;
        let (call_id, function, attempt) = (&invocation.call_id, &invocation.function, call.tries.attempt);
        debug!(%call_id, %function, attempt, bytes = invocation.body.len(), "Invoking {}", function.name());
        let _counted = self.metrics.running(function);
        let directory = self.directory.borrow().clone();
        if self.verbose {
            let (headers, body) = (&invocation.headers, String::from_utf8_lossy(&invocation.body));
            info!(%call_id, %function, path = invocation.path, query = invocation.query, ?headers, %body, "Request");
        }
        // Nobody needs them after this attempt, so that there is no copy of them while it runs.
        let headers = std::mem::take(&mut call.invocation.headers);
        let invocation = &call.invocation;
        let reply = tokio::select! {
            reply = self.caller.call(invocation, headers, call.attempt(), directory.as_deref()) => reply,
            () = running.cancelled() => return None,
        };
        if self.verbose {
            let (headers, body) = (&reply.headers, String::from_utf8_lossy(&reply.body));
            let (call_id, function) = (&invocation.call_id, &invocation.function);
            info!(%call_id, %function, ?headers, %body, "Answer");
        }
        Some(reply)
    }

    /// What the end of a call means for it.
    async fn end(&self, delivered: &Delivered, call: &Call<'_>, reply: Reply, reported: Reported) -> AckKind {
        let outcome = call.policy.decide(&reply.ending, call.tries, SystemTime::now(), rand::random());
        if matches!(outcome, Outcome::Dead(_)) && !self.may_die(call).await {
            return self.end_cancelled(call).await;
        }
        self.metrics.ended(&reply, &outcome);
        log(call, &reply, &outcome);
        match outcome {
            Outcome::Done => {
                self.report(call, EndState::Done, reply.ending.status(), reply).await;
                AckKind::Ack
            }
            Outcome::Retry { wait, counted } => {
                if !counted {
                    let uncounted = call.tries.deliveries - call.tries.attempt;
                    self.set_uncounted(&call.stored, uncounted + 1).await;
                }
                reported.waits(wait);
                AckKind::Nak(Some(wait))
            }
            Outcome::Dead(reason) => {
                let status = reply.ending.status();
                self.report(call, EndState::Dead, status, reply).await;
                let death = Death { reason, attempts: call.tries.attempt, status: Some(status) };
                self.graveyard.bury(delivered, Some(call.name()), death).await
            }
        }
    }

    /// Ends a call that was cancelled. Whoever cancelled it has told its caller already, unless the message came
    /// from an existing gateway; told twice, the caller hears it once.
    async fn end_cancelled(&self, call: &Call<'_>) -> AckKind {
        let (call_id, function) = (&call.invocation.call_id, &call.invocation.function);
        info!(%call_id, %function, "Cancelled {}", function.name());
        self.metrics.cancelled();
        self.report(call, EndState::Cancelled, cancel::CANCELLED, Reply::none()).await;
        AckKind::Ack
    }

    /// Ends a call whose attempts are used up, and under the last of which its worker died: had that come to an end, it
    /// would be dead already.
    async fn give_up_poison(&self, delivered: &Delivered, call: &Call<'_>, lease: Duration) -> AckKind {
        if self.may_end_otherwise(call, lease).await.unwrap_or(true) {
            return AckKind::Nak(Some(lease));
        }
        if !self.may_die(call).await {
            return self.end_cancelled(call).await;
        }
        let attempts = call.tries.attempt - 1;
        let (call_id, function) = (&call.invocation.call_id, &call.invocation.function);
        error!(%call_id, %function, attempts, "the worker of the last attempt died under it: it becomes a dead letter");
        self.metrics.poison();
        self.report(call, EndState::Dead, UNREACHABLE, Reply::none()).await;
        let reason = format!("its worker died under the last of {attempts} attempts");
        self.graveyard.bury(delivered, Some(call.name()), Death { reason, attempts, status: None }).await
    }

    /// Whether a call whose last attempt has no end yet may still have one: its worker did not die but lost its lease, or
    /// its acknowledgement is on the way.
    async fn may_end_otherwise(&self, call: &Call<'_>, lease: Duration) -> Result<bool, NatsError> {
        sleep(lease * PATIENCE_IN_LEASES).await;
        if !is_stored(&self.js, &self.stream, call.stored.sequence).await? {
            return Ok(true);
        }
        let report = worker_report(&self.js, &self.queue, &call.stored).await?;
        Ok(report.is_some_and(|report| matches!(report.phase, Phase::Running { .. })))
    }

    /// Whether a call that is to be given up was not cancelled meanwhile. From then on it can't be.
    async fn may_die(&self, call: &Call<'_>) -> bool {
        let begun = Instant::now();
        loop {
            match cancel::give_up(&self.js, &self.queue, &call.stored).await {
                Ok(Some(given_up)) => return given_up,
                // Nobody can cancel it either.
                Ok(None) if begun.elapsed() > ELECTION => return true,
                Ok(None) => debug!(call_id = %call.stored.id, "there is no bucket of tombstones now"),
                Err(error) => debug!(call_id = %call.stored.id, %error, "it can't be given up now"),
            }
            sleep(STORE_PAUSE).await;
        }
    }

    /// The policy for a call: what the directory knows of its function comes before what its message says.
    fn policy_of(&self, invocation: &Invocation) -> Cow<'_, RetryPolicy> {
        let directory = self.directory.borrow();
        let known = directory.as_ref().and_then(|directory| directory.functions.get(&invocation.function));
        let known = known.map(|function| function.retry.clone()).unwrap_or_default();
        let overrides = known.or(&invocation.retry);
        // As good as always: nothing is said, and nothing copied.
        if overrides.is_empty() {
            Cow::Borrowed(&self.policy)
        } else {
            Cow::Owned(self.policy.overridden(&overrides))
        }
    }

    fn decode(&self, delivered: &Delivered) -> Result<Invocation, message::DecodeError> {
        let decoded = message::decode(delivered.headers(), &delivered.message.payload, || Fallback {
            call_id: CallId::of_sequence(delivered.sequence),
            stored_at: delivered.stored_at,
            namespace: self.function_namespace.clone(),
        });
        decoded.map(|mut invocation| {
            add_idempotency_key(&mut invocation, delivered.headers());
            invocation
        })
    }

    async fn was_cancelled(&self, call: &StoredCall) -> bool {
        match cancel::is_cancelled(&self.js, &self.queue, call).await {
            Ok(cancelled) => cancelled,
            Err(error) => {
                // A cancelled call has been taken off its stream, so that this is a second look.
                debug!(call_id = %call.id, %error, "tombstones can't be looked up");
                false
            }
        }
    }

    /// How many deliveries before this one were no attempts. Not known, each was one: the side on which a call ends.
    async fn uncounted(&self, call: &StoredCall) -> u64 {
        let counted = uncounted::get(&self.js, &self.queue, &call.id, call.sequence).await;
        counted.unwrap_or_else(|error| {
            debug!(call_id = %call.id, %error, "deliveries that are no attempts can't be looked up");
            0
        })
    }

    async fn set_uncounted(&self, call: &StoredCall, deliveries: u64) {
        let written = uncounted::set(&self.js, &self.queue, &call.id, call.sequence, deliveries).await;
        if let Err(error) = written {
            debug!(call_id = %call.id, %error, "a delivery counts as an attempt though it was none");
        }
    }

    /// Sees to it that the caller hears the end of a call, if it wants to: stores the result for delivery, so
    /// that neither a slow receiver takes the slot of a call nor a failing one runs the function again.
    async fn report(&self, call: &Call<'_>, end: EndState, status: u16, reply: Reply) {
        let invocation = &call.invocation;
        let Some(url) = invocation.callback_url.clone() else { return };
        let mut headers = reply.headers;
        strip_connection_headers(&mut headers);
        let callback = Callback {
            duration: reply.duration,
            attempt: call.tries.attempt,
            max_attempts: call.policy.max_attempts,
            headers,
            body: reply.body,
            ..Callback::new(invocation, url, call.stored.sequence, end, status)
        };
        let begun = Instant::now();
        loop {
            let Err(error) = self.callbacks.put(&callback).await else { return };
            let is_for_ever = match error {
                StoreError::Never(_) => true,
                StoreError::NoStream(_) => begun.elapsed() > ELECTION,
                StoreError::NotNow(_) => false,
            };
            if is_for_ever {
                debug!(call_id = %callback.call_id, %error, "the result is posted directly");
                return self.deliver(&callback).await;
            }
            debug!(call_id = %callback.call_id, %error, "the result is not stored yet, trying again");
            sleep(STORE_PAUSE).await;
        }
    }

    /// Delivers a result that the stream can't hold, as often as one that it holds.
    async fn deliver(&self, callback: &Callback) {
        for attempt in 1.. {
            match self.messenger.deliver(callback, attempt).await {
                callback::Delivery::Done => return,
                callback::Delivery::Again(wait) => sleep(wait).await,
                callback::Delivery::GivenUp(_) => {
                    let (call_id, bytes) = (&callback.call_id, callback.body.len());
                    error!(%call_id, bytes, "the result is too large for a dead letter and is lost");
                    return;
                }
            }
        }
    }
}

/// The line that people look for in `kubectl logs`.
fn log(call: &Call<'_>, reply: &Reply, outcome: &Outcome) {
    let (call_id, function) = (&call.invocation.call_id, &call.invocation.function);
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
        Outcome::Retry { wait, .. } => {
            let wait = GoDuration(Duration::from_millis(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)));
            warn!(%call_id, %function, attempt, error, "Invoked {name} [{status}] in {seconds:.3}s, trying again in {wait}");
        }
        Outcome::Dead(reason) => {
            error!(%call_id, %function, attempt, error, "Invoked {name} [{status}] in {seconds:.3}s, it becomes a dead letter: {reason}");
        }
    }
}

/// Since when a call has been in the queue, by the clocks of the server and of this worker.
fn age(stored_at: Timestamp) -> Duration {
    Timestamp::now().duration_since(stored_at).try_into().unwrap_or_default()
}
