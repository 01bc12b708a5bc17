//! Limits how many results are posted to one host at once, so that a receiver that does not respond
//! never uses up the whole capacity.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use asyncqueue_runtime::log_limit::LogLimit;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tracing::warn;
use url::Url;

use super::CONCURRENCY;

/// Maximum number of results that are posted to one host at once.
pub(crate) const MAX_PER_HOST: usize = CONCURRENCY / 4;

/// Time without a free permit after which a host counts as slow: results for it then wait in their
/// stream. For a shorter time they wait here, since nearly all hosts answer within it.
const SLOW_HOST_AFTER: Duration = Duration::from_millis(250);

/// Minimum time between two warnings about one host.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// Number of hosts that are kept before those to which nothing is posted any more are removed.
const PRUNE_THRESHOLD: usize = 4 * CONCURRENCY;

/// The hosts to which results are being posted. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct HostLimits(Arc<Mutex<HashMap<String, Weak<HostLimit>>>>);

#[derive(Debug)]
struct HostLimit {
    permits: Arc<Semaphore>,
    last_release: Mutex<Instant>,
    warnings: LogLimit,
}

/// Permission to post to a host, until this is dropped.
#[derive(Debug)]
pub(crate) struct HostPermit {
    host: Arc<HostLimit>,
    _permit: OwnedSemaphorePermit,
}

// === impl HostLimits ===

impl HostLimits {
    /// Acquires a permit for the host of a URL. Returns `None` if no permit becomes free soon.
    pub(crate) async fn acquire(&self, url: &Url) -> Option<HostPermit> {
        let host = self.host(url);
        if let Ok(permit) = host.permits.clone().try_acquire_owned() {
            return Some(HostPermit { host, _permit: permit });
        }
        let max_wait = host.max_wait(Instant::now());
        if let Ok(Ok(permit)) = timeout(max_wait, host.permits.clone().acquire_owned()).await {
            return Some(HostPermit { host, _permit: permit });
        }
        if host.warnings.allow(Instant::now()).is_some() {
            let host = authority(url);
            warn!(
                host,
                "host is slow: it has reached its limit of {MAX_PER_HOST} concurrent callbacks, \
                 other results for it wait"
            );
        }
        None
    }

    fn host(&self, url: &Url) -> Arc<HostLimit> {
        let authority = authority(url);
        let mut hosts = self.lock();
        if let Some(host) = hosts.get(&authority).and_then(Weak::upgrade) {
            return host;
        }
        if hosts.len() >= PRUNE_THRESHOLD {
            hosts.retain(|_, host| host.strong_count() > 0);
        }
        let permits = Arc::new(Semaphore::new(MAX_PER_HOST));
        let host = Arc::new(HostLimit::new(permits));
        hosts.insert(authority, Arc::downgrade(&host));
        host
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Weak<HostLimit>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns host and port of a URL.
fn authority(url: &Url) -> String {
    format!(
        "{}:{}",
        url.host_str().unwrap_or_default(),
        url.port_or_known_default().unwrap_or_default()
    )
}

// === impl HostLimit ===

impl HostLimit {
    fn new(permits: Arc<Semaphore>) -> Self {
        let warnings = LogLimit::new(WARNING_INTERVAL);
        Self { permits, last_release: Mutex::new(Instant::now()), warnings }
    }

    /// Returns how long to wait for a permit: zero for a host that has not responded for a while.
    fn max_wait(&self, now: Instant) -> Duration {
        let last_release = *self.last_release.lock().unwrap_or_else(PoisonError::into_inner);
        SLOW_HOST_AFTER.saturating_sub(now.duration_since(last_release))
    }
}

impl Drop for HostPermit {
    fn drop(&mut self) {
        *self.host.last_release.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    async fn fill(hosts: &HostLimits, url: &Url) -> Vec<HostPermit> {
        let mut permits = Vec::new();
        for _ in 0..MAX_PER_HOST {
            permits.push(hosts.acquire(url).await.unwrap());
        }
        permits
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_has_at_most_a_quarter_of_the_permits() {
        let (hosts, hangs) = (HostLimits::default(), url("http://hangs/a"));
        let mut permits = fill(&hosts, &hangs).await;
        assert!(hosts.acquire(&url("http://HANGS:80/b")).await.is_none());
        for other in ["https://hangs/", "http://hangs:8080/", "http://other/"] {
            assert!(hosts.acquire(&url(other)).await.is_some(), "{other}");
        }
        permits.pop();
        assert!(hosts.acquire(&hangs).await.is_some());
    }

    #[tokio::test]
    async fn a_permit_that_becomes_free_soon_is_waited_for() {
        let (hosts, host) = (HostLimits::default(), url("http://h/"));
        let mut permits = fill(&hosts, &host).await;
        let first = permits.pop();
        let leaves = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            drop(first);
        };
        let (place, ()) = tokio::join!(hosts.acquire(&host), leaves);
        assert!(place.is_some());
    }

    #[test]
    fn a_host_that_has_not_responded_is_not_waited_for() {
        let last_release = Instant::now();
        let host = HostLimit {
            last_release: Mutex::new(last_release),
            ..HostLimit::new(Arc::new(Semaphore::new(0)))
        };
        assert_eq!(host.max_wait(last_release), SLOW_HOST_AFTER);
        assert_eq!(host.max_wait(last_release + SLOW_HOST_AFTER * 2), Duration::ZERO);
    }

    #[tokio::test]
    async fn unused_hosts_are_removed() {
        let hosts = HostLimits::default();
        for number in 0..PRUNE_THRESHOLD * 3 {
            hosts.acquire(&url(&format!("http://h{number}/"))).await.unwrap();
        }
        assert!(hosts.lock().len() <= PRUNE_THRESHOLD);
    }
}
