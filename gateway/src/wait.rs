//! Waits for the results of calls.
//!
//! A worker stores the result of a call, and the server publishes it again at once: see
//! [`asyncqueue::kept_results`]. Each wait has a subscription for its call alone, so that the
//! gateway gets no other results. The subscription begins before the call is stored, and ends when
//! the wait is dropped, as it is when the client leaves.

use std::{sync::Arc, time::Duration};

use async_nats::Client;
use asyncqueue::{lookup::ResultWait, message::kept_result::KeptResult};
use asyncqueue_runtime::memory::{Account, MemoryPermit};
use http::{HeaderMap, HeaderName};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep_until, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::metrics::{Counted, Metrics, WaitOutcome};

/// The preferences of a client (RFC 7240).
static PREFER: HeaderName = HeaderName::from_static("prefer");

/// Memory of a wait next to that of its connection, in bytes: the subscription, and the request.
const WAIT_BYTES: usize = 12 * 1024;

/// The time after which a call that was submitted before is looked up again, if no result of it is
/// published: its result may not be kept, and a message may be lost with the connection.
const MIN_LOOKUP_INTERVAL: Duration = Duration::from_secs(1);

/// The longest interval between two such lookups.
const MAX_LOOKUP_INTERVAL: Duration = Duration::from_secs(10);

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
    results: ResultWait,
    begun: Instant,
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

    /// Begins to wait for what is published on the [subject] of a call, before the call is stored
    /// or looked up. Returns `None` if there are too many waits, no memory, or if NATS is
    /// unavailable: the client then does not wait.
    ///
    /// [subject]: asyncqueue::kept_results::done_subject
    pub(crate) async fn begin(&self, subject: String, time: Duration) -> Option<Wait> {
        let begun = Instant::now();
        let deadline = begun + time.min(self.max_wait);
        let permit = self.permits.clone().try_acquire_owned().ok();
        let memory = permit.is_some().then(|| self.memory.try_take(WAIT_BYTES)).flatten();
        let Some((permit, memory)) = permit.zip(memory) else {
            self.metrics.record_wait(WaitOutcome::Refused);
            return None;
        };
        match ResultWait::begin_on(&self.client, subject.clone()).await {
            Ok(results) => Some(Wait {
                results,
                begun,
                deadline,
                shutdown: self.shutdown.clone(),
                _permit: permit,
                _memory: memory,
                _counted: self.metrics.track_wait(),
            }),
            Err(error) => {
                debug!(subject, %error, "failed to subscribe to the result of a call");
                self.metrics.record_wait(WaitOutcome::Refused);
                None
            }
        }
    }

    /// Returns the result of the call for which this wait was begun. `sequence` is the one at which
    /// the call is stored, if it is known: other calls may have the same id.
    pub(crate) async fn result(&self, mut wait: Wait, sequence: Option<u64>) -> Option<KeptResult> {
        let (deadline, shutdown) = (wait.deadline, wait.shutdown.clone());
        self.until(deadline, shutdown, async { wait.results.next(sequence).await }).await
    }

    /// Looks a call up, each time that it may have ended, until `look_up` returns how it ended.
    /// Returns `None` if the wait is over before.
    pub(crate) async fn until_ended<T, F>(
        &self,
        mut wait: Wait,
        look_up: impl Fn() -> F,
    ) -> Option<T>
    where
        F: Future<Output = Option<T>>,
    {
        let (deadline, shutdown) = (wait.deadline, wait.shutdown.clone());
        let ended = async {
            loop {
                wait.may_have_ended().await;
                if let Some(ended) = look_up().await {
                    return Some(ended);
                }
            }
        };
        self.until(deadline, shutdown, ended).await
    }

    /// Waits for the end of a call until a deadline or the shutdown, and counts the outcome.
    async fn until<T>(
        &self,
        deadline: Instant,
        shutdown: CancellationToken,
        ended: impl Future<Output = Option<T>>,
    ) -> Option<T> {
        let found = tokio::select! {
            found = timeout_at(deadline, ended) => found.ok().flatten(),
            () = shutdown.cancelled() => None,
        };
        let outcome = if found.is_some() { WaitOutcome::Ended } else { WaitOutcome::TimedOut };
        self.metrics.record_wait(outcome);
        found
    }
}

// === impl Wait ===

impl Wait {
    /// Waits until a result of the call is published, or until it is time to look it up again.
    async fn may_have_ended(&mut self) {
        let again = Instant::now() + lookup_interval(self.begun.elapsed());
        if let Ok(None) = timeout_at(again, self.results.next(None)).await {
            // The subscription has ended.
            sleep_until(again).await;
        }
    }
}

/// Returns the time until a call is looked up again for a client that has waited for so long: about
/// ten lookups in a minute.
fn lookup_interval(waited: Duration) -> Duration {
    (waited / 2).clamp(MIN_LOOKUP_INTERVAL, MAX_LOOKUP_INTERVAL)
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

    #[test]
    fn call_is_looked_up_ten_times_in_a_minute() {
        let mut waited = Duration::ZERO;
        let mut lookups = 0;
        while waited < Duration::from_secs(60) {
            let interval = lookup_interval(waited);
            assert!((MIN_LOOKUP_INTERVAL..=MAX_LOOKUP_INTERVAL).contains(&interval));
            waited += interval;
            lookups += 1;
        }
        assert!((8..=12).contains(&lookups), "{lookups}");
    }

    proptest! {
        #[test]
        fn any_value_is_read(value in "[ -~]{0,40}") {
            let _ = wait(&[&value]);
        }
    }
}
