//! Invokes the function of a prepared call, unless the call is too old, exhausted or ended.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use async_nats::jetstream::Context;
use asyncqueue::{
    EndState, QueueName,
    attempt_offset::AttemptOffset,
    directory::Directory,
    tombstone::{self, Mark},
};
use tokio::sync::watch;
use tracing::{debug, info};

use super::{
    Call, attempt_offsets::AttemptOffsets, cancellations::CallGuard, prepare::Prepared,
    result_keeper::ResultKeeper, stall::StallDetector, status::CallStatuses,
};
use crate::{
    callback::call_headers,
    consumer::delivery::Delivery,
    function::client::{FunctionClient, Reply},
    live_settings::LiveSettings,
    metrics::Metrics,
    retry::outcome::{AtLimit, PutOff, Refusal},
    server_clock::ServerClock,
    shared_limits::{FunctionGate, Gate},
};

/// Invokes the functions of a queue's calls.
pub(crate) struct Runner {
    pub(crate) js: Context,
    pub(crate) queue: QueueName,
    pub(crate) function_client: FunctionClient,
    /// The limits that the workers of the queue share.
    pub(crate) gate: Gate,
    /// The limits of functions, which the workers share too.
    pub(crate) functions: FunctionGate,
    pub(crate) offsets: AttemptOffsets,
    pub(crate) settings: watch::Receiver<LiveSettings>,
    pub(crate) directory: watch::Receiver<Option<Arc<Directory>>>,
    /// Maximum age of a call when it is delivered. Unset: unlimited.
    pub(crate) max_age: Option<Duration>,
    pub(crate) clock: ServerClock,
    pub(crate) statuses: CallStatuses,
    pub(crate) keeper: ResultKeeper,
    pub(crate) stall_detector: StallDetector,
    /// Whether headers and bodies are logged.
    pub(crate) verbose: bool,
    pub(crate) metrics: Metrics,
}

/// Outcome of running a call.
pub(crate) enum InvocationResult {
    /// The function was invoked. If it has refused the call, a limit of the function is learned
    /// from that.
    Reply(Reply, Option<Refusal>),
    /// The call has ended already, or was cancelled while it ran.
    AlreadyEnded(Mark),
    /// Whether the call has ended can't be determined now. It was not started.
    Unknown,
    /// The call was not started, and is delivered again later.
    PutOff(PutOff),
    /// The call was not started, and ends so. `Dead` means that its attempts are exhausted and its
    /// worker crashed during the last one: otherwise it would be dead already.
    Unstarted(EndState),
}

/// Says whether a call may be started.
enum StartCheck {
    MayStart,
    /// The call has ended already.
    AlreadyEnded(Mark),
    /// This can't be determined now.
    Unknown,
}

impl Runner {
    /// Runs a call. Reports it as running from its start on.
    pub(crate) async fn run(
        &self,
        delivery: &Delivery,
        prepared: &mut Prepared,
    ) -> InvocationResult {
        let Prepared { call, guard, status } = prepared;
        if self.max_age.is_some_and(|max_age| call.stored_for > max_age) {
            return InvocationResult::Unstarted(EndState::Expired);
        }
        if call.policy.is_poison(call.attempts.number) {
            return InvocationResult::Unstarted(EndState::Dead);
        }
        let (now, not_before) = (self.clock.now(), call.invocation.not_before);
        let put_off = PutOff::until_scheduled(not_before, now, rand::random())
            .or_else(|| PutOff::until_due(call.recorded, now))
            .or_else(|| self.put_off(call));
        let has_rate = self.gate.has_rate() || self.functions.has_rate(&call.invocation.function);
        if put_off.is_none() && has_rate {
            let refused = Box::pin(self.wait_for_tokens(delivery, call, guard)).await;
            if let Some(refused) = refused {
                return refused;
            }
        }
        *status = Some(self.statuses.track_running(call.stored.clone(), call.attempt()));
        match self.may_start(delivery, call).await {
            StartCheck::MayStart => match put_off {
                Some(put_off) => InvocationResult::PutOff(put_off),
                None => self.invoke(delivery, call, guard).await,
            },
            StartCheck::AlreadyEnded(mark) => InvocationResult::AlreadyEnded(mark),
            StartCheck::Unknown => InvocationResult::Unknown,
        }
    }

    /// Decides whether a call is put off, since its function is scaled to zero.
    fn put_off(&self, call: &Call) -> Option<PutOff> {
        let directory = self.directory.borrow();
        let is_at_zero =
            self.function_client.is_scaled_to_zero(&call.invocation.function, directory.as_deref());
        is_at_zero.then(|| call.attempts.put_off_at_zero(rand::random())).flatten()
    }

    /// Waits until the rates of the function and of the queue permit an invocation, or the call is
    /// cancelled. Returns what follows if there is no invocation.
    async fn wait_for_tokens(
        &self,
        delivery: &Delivery,
        call: &Call,
        guard: &CallGuard,
    ) -> Option<InvocationResult> {
        let tokens = async {
            let function = &call.invocation.function;
            if self.functions.has_rate(function) && !self.functions.wait_for_token(function).await {
                let at_limit = AtLimit::default();
                return Some(call.attempts.put_off_by_function_limit(at_limit, rand::random()));
            }
            let has_token = self.gate.wait_for_token().await;
            (!has_token).then(|| PutOff::without_share(rand::random()))
        };
        let put_off = match guard.try_start() {
            Some(cancelled) => tokio::select! {
                () = cancelled.cancelled() => None,
                put_off = tokens => Some(put_off),
            },
            None => None,
        };
        let Some(put_off) = put_off else {
            guard.confirm_stopped(false, delivery.is_lease_certain()).await;
            return Some(InvocationResult::AlreadyEnded(Mark::Cancelling));
        };
        guard.mark_idle();
        put_off.map(InvocationResult::PutOff)
    }

    /// Invokes the function, unless the call is cancelled before or while it runs.
    async fn invoke(
        &self,
        delivery: &Delivery,
        call: &mut Call,
        guard: &CallGuard,
    ) -> InvocationResult {
        let Some(cancelled) = guard.try_start() else {
            guard.confirm_stopped(false, delivery.is_lease_certain()).await;
            return InvocationResult::AlreadyEnded(Mark::Cancelling);
        };
        let open_function = match self.functions.open(&call.invocation.function) {
            Ok(open) => open,
            Err(at_limit) => {
                guard.mark_idle();
                let put_off = call.attempts.put_off_by_function_limit(at_limit, rand::random());
                return InvocationResult::PutOff(put_off);
            }
        };
        let Some(_open) = self.gate.open() else {
            guard.mark_idle();
            return InvocationResult::PutOff(PutOff::without_share(rand::random()));
        };
        if !matches!(call.recorded, AttemptOffset::Deliveries(_)) {
            Box::pin(self.offsets.count_deliveries(call)).await;
        }
        if call.attempts.deliveries == 1 || call.recorded == AttemptOffset::Attempts(0) {
            self.metrics.record_wait(call.attempts.age);
        }
        self.log_request(call);
        let directory = self.directory.borrow().clone();
        let _counted = self.metrics.track_running(&call.invocation.function, directory.as_deref());
        // Except for the trace, headers are not needed after this attempt. Moving them avoids a
        // copy while the call runs.
        let trace = call_headers::trace(&call.invocation.headers);
        let headers = std::mem::replace(&mut call.invocation.headers, trace);
        let invocation = &call.invocation;
        let reply = {
            let (attempt, time_limit) = (call.attempt(), self.settings.borrow().timeout());
            let directory = directory.as_deref();
            let exchange =
                self.function_client.invoke(invocation, headers, attempt, time_limit, directory);
            tokio::select! {
                // Checked first: a call that was cancelled before it was sent is not sent.
                biased;
                () = cancelled.cancelled() => None,
                reply = exchange => Some(reply),
            }
        };
        let Some(reply) = reply else {
            guard.confirm_stopped(true, delivery.is_lease_certain()).await;
            return InvocationResult::AlreadyEnded(Mark::Cancelling);
        };
        guard.mark_idle();
        let refusal = open_function.record(&reply.end, SystemTime::now());
        if self.verbose {
            let (headers, body) = (&reply.headers, String::from_utf8_lossy(&reply.body));
            let (function, call_id) = call.function_and_id();
            info!(%call_id, %function, ?headers, %body, "Response");
        }
        InvocationResult::Reply(reply, refusal)
    }

    fn log_request(&self, call: &Call) {
        let ((function, call_id), invocation) = (call.function_and_id(), &call.invocation);
        let attempt = call.attempts.number;
        debug!(
            %call_id, %function, attempt, bytes = invocation.body.len(),
            "Invoking {}",
            function.name()
        );
        if self.verbose {
            let (headers, body) = (&invocation.headers, String::from_utf8_lossy(&invocation.body));
            info!(
                %call_id, %function, path = invocation.path, query = invocation.query,
                ?headers, %body,
                "Request"
            );
        }
    }

    /// Returns whether a call is done, as its kept result says: its worker ended before the ack. A
    /// call whose result can't be read now runs again, as one without a kept result does.
    async fn has_kept_result(&self, call: &Call) -> bool {
        if self.keeper.retention(call).is_none() {
            return false;
        }
        let end = Box::pin(self.keeper.end_of(&call.stored)).await;
        end.is_ok_and(|end| end == Some(EndState::Done))
    }

    /// Returns whether a call may be started. If a first delivery is started at once, a
    /// cancellation arrives in time. A repeated delivery, or one that follows a stall of this
    /// process, may have been cancelled before.
    async fn may_start(&self, delivery: &Delivery, call: &Call) -> StartCheck {
        if !call.is_first && self.has_kept_result(call).await {
            return StartCheck::AlreadyEnded(Mark::Ended(EndState::Done));
        }
        let (mut since, mut is_checked) = (delivery.received_at, false);
        // A delayed call may have been cancelled without a worker's answer.
        let mut is_due = !call.is_first || call.invocation.not_before.is_some();
        while is_due || self.stall_detector.may_have_missed(since, is_checked) {
            (since, is_checked, is_due) = (Instant::now(), true, false);
            match Box::pin(tombstone::read(&self.js, &self.queue, &call.stored)).await {
                // Its worker crashed while it posted a result that can't be stored: the client may
                // not have the result.
                Ok(Some(tombstone))
                    if tombstone.mark == Mark::Ended(EndState::Done)
                        && call.invocation.callback_url.is_some() => {}
                Ok(Some(tombstone)) => return StartCheck::AlreadyEnded(tombstone.mark),
                Ok(None) => {}
                Err(error) => {
                    let call_id = &call.stored.id;
                    debug!(
                        %call_id, %error,
                        "failed to read the tombstone: the call is not started now"
                    );
                    return StartCheck::Unknown;
                }
            }
        }
        StartCheck::MayStart
    }
}
