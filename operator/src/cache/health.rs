//! Reports in readiness, log and metrics which watches do not work, and why.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use asyncqueue_runtime::health::Health;
use kube::runtime::watcher;
use tracing::{error, info, warn};

use crate::{error::chain, metrics::Metrics};

/// The readiness condition of all watches together.
const CONDITION: &str = "kubernetes";

/// Interval of the log messages while a watch fails for the same reason.
const LOG_INTERVAL: Duration = Duration::from_secs(30);

/// Health of all watches.
#[derive(Debug)]
pub(crate) struct WatchHealth {
    health: Health,
    metrics: Metrics,
    /// The watches that don't work, and why.
    failures: Mutex<BTreeMap<WatchTarget, Failure>>,
}

/// What is watched.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WatchTarget {
    pub(super) resource: &'static str,
    pub(super) namespace: Option<String>,
}

#[derive(Debug)]
struct Failure {
    error: WatchError,
    logged: Option<Instant>,
}

/// Reason why a watch does not work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WatchError {
    message: String,
    /// Whether access is denied: waiting does not help.
    pub(super) is_denied: bool,
    /// Whether the API server does not know the kind.
    pub(super) is_unknown_kind: bool,
}

// === impl WatchHealth ===

impl WatchHealth {
    pub(crate) fn new(health: Health, metrics: Metrics) -> Arc<Self> {
        Arc::new(Self { health, metrics, failures: Mutex::default() })
    }

    /// Records that a watch works.
    pub(super) fn mark_healthy(&self, target: &WatchTarget) {
        if self.clear(target) {
            info!("watching {target}");
        }
    }

    /// Records that the API server does not know an optional kind, so that there is nothing to
    /// watch for now.
    pub(super) fn mark_absent(&self, target: &WatchTarget) {
        info!("the API server does not know {target}: watching starts when the CRD is installed");
        self.clear(target);
    }

    /// Counts an object that was skipped.
    pub(super) fn count_invalid_object(&self) {
        self.metrics.unreadable();
    }

    /// Records that a watch does not work.
    pub(super) fn mark_failed(&self, target: &WatchTarget, error: WatchError) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let logged = failures
            .get(target)
            .filter(|previous| previous.error == error)
            .and_then(|previous| previous.logged);
        let log =
            error != WatchError::waiting() && logged.is_none_or(|at| at.elapsed() >= LOG_INTERVAL);
        if log && error.is_denied {
            error!("can't watch {target}: {}", error.message);
        } else if log {
            warn!("failed to watch {target}, retrying: {}", error.message);
        }
        let logged = if log { Some(Instant::now()) } else { logged };
        failures.insert(target.clone(), Failure { error, logged });
        self.publish(&failures, target.resource);
    }

    /// Removes a watch from those that don't work. Returns whether it was one of them.
    fn clear(&self, target: &WatchTarget) -> bool {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let had_failed = failures.remove(target).is_some();
        if had_failed {
            self.publish(&failures, target.resource);
        }
        had_failed
    }

    fn publish(&self, failures: &BTreeMap<WatchTarget, Failure>, resource: &'static str) {
        let failed = failures.keys().filter(|target| target.resource == resource).count();
        self.metrics.watches_down(resource, failed);
        let reasons = failures.iter();
        let reasons: Vec<_> = reasons
            .map(|(target, failure)| format!("{target}: {}", failure.error.message))
            .collect();
        if reasons.is_empty() {
            self.health.ready(CONDITION);
        } else {
            self.health.not_ready(CONDITION, reasons.join("; "));
        }
    }
}

// === impl WatchTarget ===

impl fmt::Display for WatchTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.resource)?;
        self.namespace
            .as_ref()
            .map_or(Ok(()), |namespace| write!(f, " in the namespace {namespace}"))
    }
}

// === impl WatchError ===

impl WatchError {
    /// Returns the initial state: nothing is known yet.
    pub(super) fn waiting() -> Self {
        Self { message: "not read yet".to_owned(), is_denied: false, is_unknown_kind: false }
    }

    pub(super) fn new(error: &watcher::Error, resource: &'static str) -> Self {
        use watcher::Error;
        let status = match error {
            Error::WatchError(status)
            | Error::InitialListFailed(kube::Error::Api(status))
            | Error::WatchStartFailed(kube::Error::Api(status))
            | Error::WatchFailed(kube::Error::Api(status)) => Some(status),
            _ => None,
        };
        let Some(status) = status else {
            let message = format!("the Kubernetes API is unavailable: {}", chain(error));
            return Self { message, is_denied: false, is_unknown_kind: false };
        };
        let (message, is_denied) = match status.code {
            404 => (
                "the API server does not know this kind. Is the CRD installed? Apply crds/"
                    .to_owned(),
                false,
            ),
            401 => (
                format!("the API server does not accept our credentials: {}", status.message),
                true,
            ),
            403 => {
                let message = &status.message;
                (format!("RBAC denies it, grant list and watch on {resource}: {message}"), true)
            }
            _ => (format!("the API server answers {}: {}", status.code, status.message), false),
        };
        Self { message, is_denied, is_unknown_kind: status.code == 404 }
    }
}

#[cfg(test)]
impl WatchHealth {
    /// Returns what readiness reports.
    pub(super) fn report(&self) -> Result<(), Vec<(&'static str, String)>> {
        self.health.report()
    }
}

#[cfg(test)]
pub(super) mod fixtures {
    use kube::core::Status;

    use super::*;

    /// Returns an error with the API server's refusal of a list.
    pub(crate) fn refused(code: u16) -> watcher::Error {
        let status = Status { code, message: "the message".to_owned(), ..Status::default() };
        watcher::Error::InitialListFailed(kube::Error::Api(Box::new(status)))
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::{fixtures::refused, *};

    fn target(resource: &'static str, namespace: Option<&str>) -> WatchTarget {
        WatchTarget { resource, namespace: namespace.map(str::to_owned) }
    }

    #[test]
    fn readiness_names_each_watch_that_does_not_work() {
        let health = WatchHealth::new(Health::new(), Metrics::new(&mut Registry::default(), &[]));
        let (queues, pods) = (target("asyncqueues", Some("a")), target("deployments", None));
        health.mark_failed(&queues, WatchError::waiting());
        health.mark_failed(&pods, WatchError::new(&refused(403), "deployments"));
        let (_, reason) = health.report().unwrap_err().remove(0);
        assert_eq!(
            reason,
            "asyncqueues in the namespace a: not read yet; deployments: RBAC denies it, grant \
             list and watch on deployments: the message"
        );
        health.mark_healthy(&queues);
        health.mark_healthy(&pods);
        assert_eq!(health.report(), Ok(()));
    }

    #[test]
    fn an_error_names_the_remedy() {
        let error = |code| WatchError::new(&refused(code), "asyncqueues");
        assert!(error(404).message.contains("Is the CRD installed?") && error(404).is_unknown_kind);
        assert!(!error(404).is_denied && !error(500).is_denied && !error(403).is_unknown_kind);
        assert!(error(401).is_denied && error(403).is_denied);
        assert_eq!(error(500).message, "the API server answers 500: the message");
    }
}
