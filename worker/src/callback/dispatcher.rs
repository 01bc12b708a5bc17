//! Delivers results to their receivers: limits the requests to each host, and decides what a
//! failed attempt means.

use std::time::{Duration, SystemTime};

use asyncqueue::{Rounded, call::CallRef, failed_attempts::Tried, message::callback::Callback};
use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::{
    client::{CallbackClient, PostResult},
    host_limits::HostLimits,
};
use crate::{
    failed_attempts::FailedAttempts,
    live_settings::LiveSettings,
    metrics::Metrics,
    retry::outcome::{AttemptCount, Outcome, RetryPolicy},
};

/// Delivers results, with as many attempts as the policy permits.
#[derive(Clone, Debug)]
pub(crate) struct CallbackDispatcher {
    client: CallbackClient,
    host_limits: HostLimits,
    max_attempts: u64,
    /// The waits between attempts are those of the calls.
    settings: watch::Receiver<LiveSettings>,
    failed: FailedAttempts,
    metrics: Metrics,
}

/// What an attempt to deliver a result means for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DeliveryOutcome {
    /// The receiver has accepted the result.
    Delivered,
    /// The attempt failed. The next one is due after this time.
    Retry(Duration),
    /// There was no attempt: the host answers slowly, and already has its maximum of requests.
    HostBusy,
    /// The result can't be delivered, for this reason: it becomes a dead letter.
    Undeliverable(String),
}

// === impl CallbackDispatcher ===

impl CallbackDispatcher {
    /// Creates a dispatcher that makes at most `max_attempts` attempts in all.
    pub(crate) fn new(
        client: CallbackClient,
        max_attempts: u64,
        settings: watch::Receiver<LiveSettings>,
        failed: FailedAttempts,
        metrics: Metrics,
    ) -> Self {
        let host_limits = HostLimits::default();
        Self { client, host_limits, max_attempts, settings, failed, metrics }
    }

    /// Returns the policy that applies now. Any status other than 2xx is retried: the receiver has
    /// not accepted the result.
    fn policy(&self) -> RetryPolicy {
        RetryPolicy {
            max_attempts: self.max_attempts,
            backoff: self.settings.borrow().policy.backoff,
            codes: (100..=999).collect(),
        }
    }

    /// Makes the `attempt`th attempt to deliver a result, and returns what that means for it.
    pub(crate) async fn deliver(&self, callback: &Callback, attempt: u64) -> DeliveryOutcome {
        let Some(_permit) = self.host_limits.acquire(callback.url.as_url()).await else {
            self.metrics.record_callback_deferred();
            let (call_id, function, url) = (&callback.call_id, &callback.function, &callback.url);
            debug!(
                %call_id, %function,
                "callback to {url} deferred: its host has reached its limit of concurrent requests"
            );
            return DeliveryOutcome::HostBusy;
        };
        let result = self.client.post(callback).await;
        self.metrics.record_callback(result.outcome());
        let (call_id, function, url) = (&callback.call_id, &callback.function, &callback.url);
        let reason = match result {
            PostResult::Accepted(status) => {
                info!(
                    %call_id, %function, status,
                    "Posted result for {} to {url}",
                    function.name()
                );
                return DeliveryOutcome::Delivered;
            }
            PostResult::Refused(reason) => reason,
            PostResult::Failed(end, reason) => {
                let outcome = self.policy().decide(
                    &end,
                    AttemptCount::all_counted(attempt),
                    SystemTime::now(),
                    rand::random(),
                );
                if let Outcome::Retry { wait, .. } = outcome {
                    let again = Rounded(wait);
                    warn!(
                        %call_id, %function, attempt, reason,
                        "callback to {url} failed, retrying in {again}"
                    );
                    let call = CallRef { id: call_id.clone(), sequence: callback.sequence };
                    self.failed.record(&call, Tried::Callback, attempt, end.status(), &reason);
                    return DeliveryOutcome::Retry(wait);
                }
                reason
            }
        };
        warn!(
            %call_id, %function, attempt, reason,
            "callback to {url} failed: moving it to the dead-letter stream"
        );
        DeliveryOutcome::Undeliverable(reason)
    }
}
