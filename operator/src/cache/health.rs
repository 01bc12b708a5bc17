//! Reports the health of the watches in readiness, log and metrics: which do not work, and why.

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
const LOG_EVERY: Duration = Duration::from_secs(30);

/// Health of all watches.
#[derive(Debug)]
pub(crate) struct Watches {
    health: Health,
    metrics: Metrics,
    /// The watches that don't work, and why.
    down: Mutex<BTreeMap<Place, Down>>,
}

/// What is watched.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) resource: &'static str,
    pub(super) namespace: Option<String>,
}

#[derive(Debug)]
struct Down {
    trouble: Trouble,
    logged: Option<Instant>,
}

/// Reason why a watch does not work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    message: String,
    /// Whether access is denied: waiting does not help.
    pub(super) denied: bool,
    /// Whether the API server does not know the kind.
    pub(super) unknown: bool,
}

// === impl Watches ===

impl Watches {
    pub(crate) fn new(health: Health, metrics: Metrics) -> Arc<Self> {
        Arc::new(Self { health, metrics, down: Mutex::default() })
    }

    /// Records that a watch works.
    pub(super) fn works(&self, place: &Place) {
        if self.forget(place) {
            info!("watching {place}");
        }
    }

    /// Records that the API server does not know an optional kind, so that there is nothing to
    /// watch for now.
    pub(super) fn absent(&self, place: &Place) {
        info!("the API server does not know {place}; they are watched as soon as it does");
        self.forget(place);
    }

    /// Counts an object that was skipped.
    pub(super) fn unreadable(&self) {
        self.metrics.unreadable();
    }

    /// Records that a watch does not work.
    pub(super) fn set(&self, place: &Place, trouble: Trouble) {
        let mut down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
        let logged = down
            .get(place)
            .filter(|before| before.trouble == trouble)
            .and_then(|before| before.logged);
        let log =
            trouble != Trouble::waiting() && logged.is_none_or(|at| at.elapsed() >= LOG_EVERY);
        if log && trouble.denied {
            error!("can't watch {place}: {}", trouble.message);
        } else if log {
            warn!("waiting to watch {place}: {}", trouble.message);
        }
        let logged = if log { Some(Instant::now()) } else { logged };
        down.insert(place.clone(), Down { trouble, logged });
        self.tell(&down, place.resource);
    }

    /// Removes a watch from those that don't work. Returns whether it was one of them.
    fn forget(&self, place: &Place) -> bool {
        let mut down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
        let known = down.remove(place).is_some();
        if known {
            self.tell(&down, place.resource);
        }
        known
    }

    fn tell(&self, down: &BTreeMap<Place, Down>, resource: &'static str) {
        self.metrics
            .watches_down(resource, down.keys().filter(|place| place.resource == resource).count());
        let reasons: Vec<_> =
            down.iter().map(|(place, down)| format!("{place}: {}", down.trouble.message)).collect();
        if reasons.is_empty() {
            self.health.ready(CONDITION);
        } else {
            self.health.not_ready(CONDITION, reasons.join("; "));
        }
    }
}

// === impl Place ===

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.resource)?;
        self.namespace
            .as_ref()
            .map_or(Ok(()), |namespace| write!(f, " in the namespace {namespace}"))
    }
}

// === impl Trouble ===

impl Trouble {
    /// Returns the initial state: nothing is known yet.
    pub(super) fn waiting() -> Self {
        Self { message: "not read yet".to_owned(), denied: false, unknown: false }
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
            let message = format!("the Kubernetes API is away: {}", chain(error));
            return Self { message, denied: false, unknown: false };
        };
        let (message, denied) = match status.code {
            404 => (
                "the API server does not know them: is the CRD installed? Apply crds/".to_owned(),
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
        Self { message, denied, unknown: status.code == 404 }
    }
}

#[cfg(test)]
impl Watches {
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
        let status = Status { code, message: "its words".to_owned(), ..Status::default() };
        watcher::Error::InitialListFailed(kube::Error::Api(Box::new(status)))
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::{fixtures::refused, *};

    fn place(resource: &'static str, namespace: Option<&str>) -> Place {
        Place { resource, namespace: namespace.map(str::to_owned) }
    }

    #[test]
    fn readiness_names_each_watch_that_does_not_work() {
        let watches = Watches::new(Health::new(), Metrics::new(&mut Registry::default(), &[]));
        let (queues, pods) = (place("asyncqueues", Some("a")), place("deployments", None));
        watches.set(&queues, Trouble::waiting());
        watches.set(&pods, Trouble::new(&refused(403), "deployments"));
        let (_, reason) = watches.report().unwrap_err().remove(0);
        assert_eq!(
            reason,
            "asyncqueues in the namespace a: not read yet; deployments: RBAC denies it, grant list and watch on \
             deployments: its words"
        );
        watches.works(&queues);
        watches.works(&pods);
        assert_eq!(watches.report(), Ok(()));
    }

    #[test]
    fn trouble_says_what_to_do() {
        let trouble = |code| Trouble::new(&refused(code), "asyncqueues");
        assert!(trouble(404).message.contains("is the CRD installed?") && trouble(404).unknown);
        assert!(!trouble(404).denied && !trouble(500).denied && !trouble(403).unknown);
        assert!(trouble(401).denied && trouble(403).denied);
        assert_eq!(trouble(500).message, "the API server answers 500: its words");
    }
}
