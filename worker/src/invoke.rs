//! The way of one call through the worker: decoded, made, decided on, reported.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_nats::jetstream::{AckKind, Message};
use asyncqueue::{
    GoDuration, Invocation,
    directory::Directory,
    message::{self, Fallback, callback::Callback, dead_letter::Death},
};
use http::HeaderMap;
use jiff::Timestamp;
use tokio::{sync::watch, time::sleep};
use tracing::{debug, error, info, warn};

use crate::{
    bury::Graveyard,
    callback::{
        Delivery, Messenger,
        store::{CallbackStore, StoreError},
    },
    function::{Caller, Reply},
    lease,
    metrics::Metrics,
    outcome::{Outcome, RetryPolicy, UNREACHABLE},
    pull::Handler,
    settle::{deliveries, settle},
};

/// Between attempts to store a result while NATS is away.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// Makes calls, one message each.
pub(crate) struct Invoke {
    pub(crate) caller: Caller,
    pub(crate) policy: RetryPolicy,
    pub(crate) directory: watch::Receiver<Option<Arc<Directory>>>,
    pub(crate) function_namespace: String,
    pub(crate) graveyard: Graveyard,
    pub(crate) callbacks: CallbackStore,
    pub(crate) messenger: Messenger,
    pub(crate) metrics: Metrics,
}

impl Handler for Invoke {
    async fn handle(&self, message: &Message, lease: Duration) {
        let held = lease::hold(message, lease, self.conclude(message)).await;
        if held.lost {
            let subject = &message.subject;
            warn!(%subject, "the lease could not be renewed in time: another worker may run this call too");
        }
        settle(message, held.value, lease).await;
    }
}

impl Invoke {
    /// Brings a call to its end, or to its next attempt, and says what that means for its message.
    async fn conclude(&self, message: &Message) -> AckKind {
        let attempt = deliveries(message);
        let invocation = match self.decode(message) {
            Ok(invocation) => invocation,
            Err(error) => {
                warn!(subject = %message.subject, %error, "a message is no call: it becomes a dead letter");
                let reason = format!("undecodable: {error}");
                return self.graveyard.bury(message, Death { reason, attempts: attempt, status: None }).await;
            }
        };
        if self.policy.is_poison(attempt) {
            return self.give_up_poison(message, &invocation, attempt).await;
        }
        let (call_id, function) = (&invocation.call_id, &invocation.function);
        debug!(%call_id, %function, attempt, bytes = invocation.body.len(), "Invoking {}", function.name());
        let reply = {
            let _running = self.metrics.running(function);
            let directory = self.directory.borrow().clone();
            self.caller.call(&invocation, directory.as_deref()).await
        };
        let outcome = self.policy.decide(&reply.ending, attempt, SystemTime::now(), rand::random());
        self.metrics.ended(&reply, &outcome);
        log(&invocation, attempt, &reply, &outcome);
        match outcome {
            Outcome::Done => {
                self.report(&invocation, reply.ending.status(), reply).await;
                AckKind::Ack
            }
            Outcome::Retry(wait) => AckKind::Nak(Some(wait)),
            Outcome::Dead(reason) => {
                let status = reply.ending.status();
                self.report(&invocation, status, reply).await;
                self.graveyard.bury(message, Death { reason, attempts: attempt, status: Some(status) }).await
            }
        }
    }

    fn decode(&self, message: &Message) -> Result<Invocation, message::DecodeError> {
        let headers = message.headers.clone().unwrap_or_default();
        let info = message.info().ok();
        let sequence = info.as_ref().map_or(0, |info| info.stream_sequence);
        let stored_at = info
            .and_then(|info| Timestamp::from_nanosecond(info.published.unix_timestamp_nanos()).ok())
            .unwrap_or_else(Timestamp::now);
        let fallback = Fallback {
            call_id: asyncqueue::CallId::of_sequence(sequence),
            stored_at,
            namespace: self.function_namespace.clone(),
        };
        message::decode(&headers, &message.payload, &fallback)
    }

    /// Ends a call under which its workers died each time.
    async fn give_up_poison(&self, message: &Message, invocation: &Invocation, attempt: u64) -> AckKind {
        let attempts = attempt - 1;
        let (call_id, function) = (&invocation.call_id, &invocation.function);
        error!(%call_id, %function, attempts, "no attempt of this call came to an end: it becomes a dead letter");
        let reply = Reply::none();
        self.report(invocation, UNREACHABLE, reply).await;
        let reason = format!("its worker died under each of {attempts} attempts");
        self.graveyard.bury(message, Death { reason, attempts, status: None }).await
    }

    /// Sees to it that the caller hears the end of a call, if it wants to: stores the result for delivery, so
    /// that neither a slow receiver takes the slot of a call nor a failing one runs the function again.
    async fn report(&self, invocation: &Invocation, status: u16, reply: Reply) {
        let Some(url) = invocation.callback_url.clone() else { return };
        let callback = Callback {
            call_id: invocation.call_id.clone(),
            function: invocation.function.clone(),
            url,
            status,
            duration: reply.duration,
            headers: reply.headers,
            body: reply.body,
        };
        loop {
            match self.callbacks.put(&callback).await {
                Ok(()) => return,
                Err(error @ StoreError::Never(_)) => {
                    debug!(call_id = %callback.call_id, %error, "the result is posted directly");
                    return self.deliver(&callback).await;
                }
                Err(error @ StoreError::NotNow(_)) => {
                    debug!(call_id = %callback.call_id, %error, "the result is not stored yet, trying again");
                }
            }
            sleep(STORE_PAUSE).await;
        }
    }

    /// Delivers a result that the stream can't hold, as often as one that it holds.
    async fn deliver(&self, callback: &Callback) {
        for attempt in 1.. {
            match self.messenger.deliver(callback, attempt).await {
                Delivery::Done => return,
                Delivery::Again(wait) => sleep(wait).await,
                Delivery::GivenUp(_) => {
                    let (call_id, bytes) = (&callback.call_id, callback.body.len());
                    error!(%call_id, bytes, "the result is too large for a dead letter and is lost");
                    return;
                }
            }
        }
    }
}

/// The line that people look for in `kubectl logs`.
fn log(invocation: &Invocation, attempt: u64, reply: &Reply, outcome: &Outcome) {
    let (call_id, function) = (&invocation.call_id, &invocation.function);
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
        Outcome::Retry(wait) => {
            let wait = GoDuration(Duration::from_millis(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)));
            warn!(%call_id, %function, attempt, error, "Invoked {name} [{status}] in {seconds:.3}s, trying again in {wait}");
        }
        Outcome::Dead(reason) => {
            error!(%call_id, %function, attempt, error, "Invoked {name} [{status}] in {seconds:.3}s, it becomes a dead letter: {reason}");
        }
    }
}

impl Reply {
    /// What there is to say of a call that never came to an end.
    fn none() -> Self {
        Self {
            ending: crate::outcome::Ending::Unreachable,
            headers: HeaderMap::new(),
            body: bytes::Bytes::new(),
            truncated: false,
            duration: Duration::ZERO,
            error: None,
        }
    }
}
