//! Delivers results to their receivers: limits the requests to each host, and decides what a
//! failed attempt means.

use std::time::{Duration, SystemTime};

use asyncqueue::{Rounded, message::callback::Callback};
use tracing::{debug, info, warn};

use super::{
    client::{Posted, Poster},
    host_limits::Hosts,
};
use crate::{
    metrics::Metrics,
    retry::{
        backoff::Waits,
        outcome::{Outcome, RetryPolicy, Tries},
    },
};

/// Delivers results, with as many attempts as the policy permits.
#[derive(Clone, Debug)]
pub(crate) struct Messenger {
    poster: Poster,
    hosts: Hosts,
    policy: RetryPolicy,
    metrics: Metrics,
}

/// What an attempt to deliver a result means for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// The receiver has accepted the result.
    Done,
    /// The attempt failed. The next one is due after this time.
    Again(Duration),
    /// There was no attempt: the host answers slowly, and already has its maximum of requests.
    Busy,
    /// The result is given up, for this reason.
    GivenUp(String),
}

// === impl Messenger ===

impl Messenger {
    /// Creates a messenger that makes at most `max_attempts` attempts in all, with these waits
    /// between them.
    pub(crate) fn new(poster: Poster, max_attempts: u64, waits: Waits, metrics: Metrics) -> Self {
        // Any status other than 2xx is retried: the receiver has not accepted the result.
        let codes = (100..=999).collect();
        Self {
            poster,
            hosts: Hosts::default(),
            policy: RetryPolicy { max_attempts, waits, codes },
            metrics,
        }
    }

    /// Makes the `attempt`th attempt to deliver a result, and returns what that means for it.
    pub(crate) async fn deliver(&self, callback: &Callback, attempt: u64) -> Delivery {
        let Some(_place) = self.hosts.enter(callback.url.as_url()).await else {
            self.metrics.callback_put_off();
            let (call_id, function, url) = (&callback.call_id, &callback.function, &callback.url);
            debug!(%call_id, %function, "callback to {url} waits: its host has as many at once as it may have");
            return Delivery::Busy;
        };
        let posted = self.poster.post(callback).await;
        self.metrics.posted(&posted);
        let (call_id, function, url) = (&callback.call_id, &callback.function, &callback.url);
        let reason = match posted {
            Posted::Accepted(status) => {
                info!(%call_id, %function, status, "Posted result for {} to {url}", function.name());
                return Delivery::Done;
            }
            Posted::Refused(reason) => reason,
            Posted::Failed(ending, reason) => {
                let outcome = self.policy.decide(
                    &ending,
                    Tries::all_counted(attempt),
                    SystemTime::now(),
                    rand::random(),
                );
                if let Outcome::Retry { wait, .. } = outcome {
                    let again = Rounded(wait);
                    warn!(%call_id, %function, attempt, reason, "callback to {url} failed, trying again in {again}");
                    return Delivery::Again(wait);
                }
                reason
            }
        };
        warn!(%call_id, %function, attempt, reason, "callback to {url} is given up");
        Delivery::GivenUp(reason)
    }
}
