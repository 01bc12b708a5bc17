//! Waits for the results of calls.
//!
//! A worker stores the result of a call, and the server publishes it again at once: see
//! [`kept_results`]. Each wait has a subscription for its call alone, so that the gateway gets no
//! other results. The subscription begins before the call is stored, and ends when
//! the wait is dropped, as it is when the client leaves.

use std::{sync::Arc, time::Duration};

use async_nats::{Client, Subscriber};
use asyncqueue::{
    CallId, FunctionName, QueueName, kept_results::done_subject, message::kept_result::KeptResult,
};
use asyncqueue_runtime::memory::{Account, MemoryPermit};
use futures::StreamExt;
use http::{HeaderMap, HeaderName};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::metrics::{Counted, Metrics, WaitOutcome};

/// The preferences of a client (RFC 7240).
static PREFER: HeaderName = HeaderName::from_static("prefer");

/// Memory of a wait next to that of its connection, in bytes: the subscription, and the request.
const WAIT_BYTES: usize = 12 * 1024;

/// Waits for results, up to a maximum number at once.
#[derive(Debug)]
pub(crate) struct Waits {
    client: Client,
    permits: Arc<Semaphore>,
    memory: Account,
    /// Maximum time of a wait.
    max_wait: Duration,
    /// Ends all waits: their clients get 202.
    shutdown: CancellationToken,
    metrics: Metrics,
}

/// A wait for the result of a call.
#[derive(Debug)]
pub(crate) struct Wait {
    results: Subscriber,
    deadline: Instant,
    shutdown: CancellationToken,
    _permit: OwnedSemaphorePermit,
    _memory: MemoryPermit,
    _counted: Counted,
}

/// Returns for how long a client prefers to wait: `Prefer: wait=5`. A value that is not valid is
/// ignored, and so is every preference but the first of its name (RFC 7240, 2).
pub(crate) fn preferred_wait(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all(&PREFER).iter().filter_map(|value| value.to_str().ok());
    let mut preferences = values.flat_map(|value| value.split(',')).map(|preference| {
        let preference = preference.split(';').next().unwrap_or_default();
        let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
        (name.trim().to_ascii_lowercase(), value.trim().trim_matches('"'))
    });
    let (_, seconds) = preferences.find(|(name, _)| name == "wait")?;
    let is_number = !seconds.is_empty() && seconds.bytes().all(|b| b.is_ascii_digit());
    // A number that is too large is more than the maximum.
    let seconds = is_number.then(|| seconds.parse().unwrap_or(u64::from(u32::MAX)))?;
    (seconds > 0).then(|| Duration::from_secs(seconds.min(u32::MAX.into())))
}

// === impl Waits ===

impl Waits {
    pub(crate) fn new(
        client: Client,
        max_waits: usize,
        memory: Account,
        max_wait: Duration,
        shutdown: CancellationToken,
        metrics: Metrics,
    ) -> Self {
        let permits = Arc::new(Semaphore::new(max_waits));
        Self { client, permits, memory, max_wait, shutdown, metrics }
    }

    /// Begins to wait for the result of a call, before it is stored. Returns `None` if there are
    /// too many waits, no memory, or if NATS is unavailable: the client then does not wait.
    pub(crate) async fn begin(
        &self,
        queue: &QueueName,
        function: &FunctionName,
        call_id: &CallId,
        time: Duration,
    ) -> Option<Wait> {
        let deadline = Instant::now() + time.min(self.max_wait);
        let permit = self.permits.clone().try_acquire_owned().ok();
        let memory = permit.is_some().then(|| self.memory.try_take(WAIT_BYTES)).flatten();
        let Some((permit, memory)) = permit.zip(memory) else {
            self.metrics.record_wait(WaitOutcome::Refused);
            return None;
        };
        match self.client.subscribe(done_subject(queue, function, call_id)).await {
            Ok(results) => Some(Wait {
                results,
                deadline,
                shutdown: self.shutdown.clone(),
                _permit: permit,
                _memory: memory,
                _counted: self.metrics.track_wait(),
            }),
            Err(error) => {
                debug!(%call_id, %error, "failed to subscribe to the result of a call");
                self.metrics.record_wait(WaitOutcome::Refused);
                None
            }
        }
    }

    /// Returns the result of the call for which this wait was begun. `sequence` is the one at which
    /// the call is stored, if it is known: other calls may have the same id.
    pub(crate) async fn result(&self, mut wait: Wait, sequence: Option<u64>) -> Option<KeptResult> {
        let shutdown = wait.shutdown.clone();
        let found = tokio::select! {
            found = timeout_at(wait.deadline, wait.next(sequence)) => found.ok().flatten(),
            () = shutdown.cancelled() => None,
        };
        let outcome = if found.is_some() { WaitOutcome::Ended } else { WaitOutcome::TimedOut };
        self.metrics.record_wait(outcome);
        found
    }
}

// === impl Wait ===

impl Wait {
    /// Returns the next result of the call; `None` if the subscription has ended.
    async fn next(&mut self, sequence: Option<u64>) -> Option<KeptResult> {
        while let Some(message) = self.results.next().await {
            let headers = message.headers.unwrap_or_default();
            // A message without the headers of a result says that one is not kept any more.
            let Ok(result) = KeptResult::decode(&headers, message.payload) else { continue };
            if sequence.is_none_or(|sequence| sequence == result.sequence) {
                return Some(result);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wait(values: &[&str]) -> Option<u64> {
        let headers = values.iter().map(|value| (PREFER.clone(), value.parse().unwrap()));
        preferred_wait(&headers.collect()).map(|wait| wait.as_secs())
    }

    #[test]
    fn preference_is_read_as_rfc_7240_says() {
        for (values, expected) in [
            (&["wait=5"][..], Some(5)),
            (&["respond-async, wait=10"], Some(10)),
            (&["respond-async", "Wait = \"7\""], Some(7)),
            (&["wait=5; x=y"], Some(5)),
            (&["wait=5, wait=9"], Some(5)),
            (&["wait=99999999999999999999"], Some(u64::from(u32::MAX))),
            (&["wait=0"], None),
            (&["wait"], None),
            (&["wait=soon"], None),
            (&["wait=-1"], None),
            (&["wait=1.5"], None),
            (&["waiting=5"], None),
            (&[""], None),
            (&[], None),
        ] {
            assert_eq!(wait(values), expected, "{values:?}");
        }
    }

    proptest! {
        #[test]
        fn any_value_is_read(value in "[ -~]{0,40}") {
            let _ = wait(&[&value]);
        }
    }
}
