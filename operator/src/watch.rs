//! Watches of the Kubernetes API. They never give up: a CRD that is missing, an access that is denied, an API server
//! that is away are waited for, and told in readiness, log and metrics.

use std::{
    collections::BTreeMap,
    fmt::{self, Debug},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use asyncqueue_runtime::health::Health;
use futures::{Stream, StreamExt};
use kube::{
    Api, Client, Resource,
    core::{DeserializeGuard, NamespaceResourceScope},
    runtime::{
        WatchStreamExt,
        reflector::{self, ObjectRef, Store, store::Writer},
        utils::Backoff,
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::{error::chain, metrics::Metrics};

/// The readiness condition of all watches together.
const CONDITION: &str = "kubernetes";

/// Between attempts. A few requests every two seconds are nothing to an API server, and what was waited for is seen
/// as soon as it is there.
const PAUSE: Duration = Duration::from_secs(2);

/// While a watch fails for the same reason, say so this often.
const LOG_EVERY: Duration = Duration::from_secs(30);

/// What a namespaced object must be able to do to be watched.
pub(crate) trait Watched:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
}

impl<K> Watched for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static
{
}

/// One kind of objects, watched in one namespace or in all.
pub(crate) struct Watch<K: Watched> {
    api: Api<DeserializeGuard<K>>,
    place: Place,
    config: watcher::Config,
    writer: Writer<K>,
    complete: watch::Sender<bool>,
}

/// What has been seen of one kind of objects, in all places that are watched.
#[derive(Clone)]
pub(crate) struct Stores<K: Watched>(Vec<Seen<K>>);

/// What one watch has seen.
#[derive(Clone)]
struct Seen<K: Watched> {
    store: Store<K>,
    /// Whether that is all there is. The store knows too, but wakes only one of those who wait for it (kube 5.0).
    complete: watch::Receiver<bool>,
}

/// How all watches do.
#[derive(Debug)]
pub(crate) struct Watches {
    health: Health,
    metrics: Metrics,
    /// The watches that don't work, and why.
    down: Mutex<BTreeMap<Place, Down>>,
}

/// What is watched.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    resource: &'static str,
    namespace: Option<String>,
}

#[derive(Debug)]
struct Down {
    trouble: Trouble,
    logged: Option<Instant>,
}

/// Why a watch does not work.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Trouble {
    message: String,
    /// Time alone won't help.
    denied: bool,
}

/// Waits the same time after each error.
struct Pause;

// === impl Watch ===

impl<K: Watched> Watch<K> {
    /// Prepares a watch, which begins when its stream is polled.
    pub(crate) fn new(client: &Client, resource: &'static str, namespace: Option<&str>) -> Self {
        let api = match namespace {
            Some(namespace) => Api::namespaced(client.clone(), namespace),
            None => Api::all(client.clone()),
        };
        let place = Place { resource, namespace: namespace.map(str::to_owned) };
        let (config, writer) = (watcher::Config::default(), reflector::store().1);
        Self { api, place, config, writer, complete: watch::Sender::new(false) }
    }

    /// Of the objects with this label alone.
    pub(crate) fn labelled(mut self, label: &str) -> Self {
        self.config = self.config.labels(label);
        self
    }

    /// What has been seen.
    pub(crate) fn store(&self) -> Store<K> {
        self.writer.as_reader()
    }

    /// Follows the objects and keeps the store up to date. `trim` takes out of them what nobody reads. An object that can't
    /// be read, because a newer version of this program wrote it, is passed over and stops nobody else's.
    ///
    /// Errors are dealt with in here; the stream has the form that a controller wants.
    pub(crate) fn follow(
        self,
        watches: Arc<Watches>,
        trim: fn(&mut K),
    ) -> impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static {
        let Self { api, place, config, writer, complete } = self;
        watches.set(&place, Trouble::waiting());
        watcher(api, config)
            .backoff(Pause)
            .filter_map(move |event| {
                let event = match event {
                    Ok(event) => {
                        // A list begins also where it will fail.
                        if !matches!(event, Event::Init) {
                            watches.works(&place);
                        }
                        readable(event, &watches.metrics)
                    }
                    Err(error) => {
                        watches.set(&place, Trouble::new(&error, place.resource));
                        None
                    }
                };
                std::future::ready(event.map(Ok))
            })
            .modify(move |object| {
                object.meta_mut().managed_fields = None;
                trim(object);
            })
            .reflect(writer)
            .inspect(move |event| {
                if matches!(event, Ok(Event::InitDone)) {
                    complete.send_replace(true);
                }
            })
    }
}

/// The event without the guard; `None` if its object can't be read.
fn readable<K: Watched>(event: Event<DeserializeGuard<K>>, metrics: &Metrics) -> Option<Event<K>> {
    let read = |DeserializeGuard(object): DeserializeGuard<K>| {
        object
            .inspect_err(|invalid| {
                let (name, namespace) = (&invalid.metadata.name, &invalid.metadata.namespace);
                error!(?namespace, ?name, error = invalid.error, "{} can't be read", K::kind(&()));
                metrics.unreadable();
            })
            .ok()
    };
    match event {
        Event::Init => Some(Event::Init),
        Event::InitDone => Some(Event::InitDone),
        Event::InitApply(object) => read(object).map(Event::InitApply),
        Event::Apply(object) => read(object).map(Event::Apply),
        Event::Delete(object) => read(object).map(Event::Delete),
    }
}

// === impl Stores ===

impl<K: Watched> Stores<K> {
    pub(crate) fn new(watches: &[Watch<K>]) -> Self {
        let seen = |watch: &Watch<K>| Seen { store: watch.store(), complete: watch.complete.subscribe() };
        Self(watches.iter().map(seen).collect())
    }

    /// Returns when each watch has seen all there is: an empty store before that means nothing.
    pub(crate) async fn complete(&self) {
        for seen in &self.0 {
            // An error means that the program ends.
            let _ = seen.complete.clone().wait_for(|complete| *complete).await;
        }
    }

    /// All objects.
    pub(crate) fn all(&self) -> Vec<Arc<K>> {
        self.0.iter().flat_map(|seen| seen.store.state()).collect()
    }

    /// One object.
    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        let object = ObjectRef::new(name).within(namespace);
        self.0.iter().find_map(|seen| seen.store.get(&object))
    }
}

// === impl Watches ===

impl Watches {
    pub(crate) fn new(health: Health, metrics: Metrics) -> Arc<Self> {
        Arc::new(Self { health, metrics, down: Mutex::default() })
    }

    /// A watch works.
    fn works(&self, place: &Place) {
        let mut down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
        if down.remove(place).is_some() {
            info!("watching {place}");
            self.tell(&down, place.resource);
        }
    }

    /// A watch does not work.
    fn set(&self, place: &Place, trouble: Trouble) {
        let mut down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
        let logged =
            down.get(place).filter(|before| before.trouble == trouble).and_then(|before| before.logged);
        let log = trouble != Trouble::waiting() && logged.is_none_or(|at| at.elapsed() >= LOG_EVERY);
        if log && trouble.denied {
            error!("can't watch {place}: {}", trouble.message);
        } else if log {
            warn!("waiting to watch {place}: {}", trouble.message);
        }
        let logged = if log { Some(Instant::now()) } else { logged };
        down.insert(place.clone(), Down { trouble, logged });
        self.tell(&down, place.resource);
    }

    fn tell(&self, down: &BTreeMap<Place, Down>, resource: &'static str) {
        self.metrics.watches_down(resource, down.keys().filter(|place| place.resource == resource).count());
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
        self.namespace.as_ref().map_or(Ok(()), |namespace| write!(f, " in the namespace {namespace}"))
    }
}

// === impl Trouble ===

impl Trouble {
    /// Nothing is known yet.
    fn waiting() -> Self {
        Self { message: "not read yet".to_owned(), denied: false }
    }

    fn new(error: &watcher::Error, resource: &'static str) -> Self {
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
            return Self { message, denied: false };
        };
        let (message, denied) = match status.code {
            404 => ("the API server does not know them: is the CRD installed? Apply crds/".to_owned(), false),
            401 => (format!("the API server does not accept our credentials: {}", status.message), true),
            403 => {
                let message = &status.message;
                (format!("RBAC denies it, grant get, list and watch on {resource}: {message}"), true)
            }
            _ => (format!("the API server answers {}: {}", status.code, status.message), false),
        };
        Self { message, denied }
    }
}

// === impl Pause ===

impl Iterator for Pause {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(PAUSE)
    }
}

impl Backoff for Pause {
    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::Deployment;
    use kube::core::Status;
    use prometheus_client::registry::Registry;

    use super::*;

    fn watches() -> Arc<Watches> {
        Watches::new(Health::new(), Metrics::new(&mut Registry::default()))
    }

    fn place(resource: &'static str, namespace: Option<&str>) -> Place {
        Place { resource, namespace: namespace.map(str::to_owned) }
    }

    fn refused(code: u16) -> watcher::Error {
        let status = Status { code, message: "its words".to_owned(), ..Status::default() };
        watcher::Error::InitialListFailed(kube::Error::Api(Box::new(status)))
    }

    #[test]
    fn readiness_names_each_watch_that_does_not_work() {
        let watches = watches();
        let (queues, pods) = (place("asyncqueues", Some("a")), place("deployments", None));
        watches.set(&queues, Trouble::waiting());
        watches.set(&pods, Trouble::new(&refused(403), "deployments"));
        let (_, reason) = watches.health.report().unwrap_err().remove(0);
        assert_eq!(
            reason,
            "asyncqueues in the namespace a: not read yet; deployments: RBAC denies it, grant get, list and watch on \
             deployments: its words"
        );
        watches.works(&queues);
        watches.works(&pods);
        assert_eq!(watches.health.report(), Ok(()));
    }

    #[tokio::test]
    async fn all_who_wait_for_a_store_are_woken() {
        let complete = watch::Sender::new(false);
        let store = reflector::store::<Deployment>().0;
        let stores = Stores(vec![Seen { store, complete: complete.subscribe() }]);
        let waiting = [0, 1].map(|_| {
            let stores = stores.clone();
            tokio::spawn(async move { stores.complete().await })
        });
        tokio::task::yield_now().await;
        complete.send_replace(true);
        for task in waiting {
            tokio::time::timeout(Duration::from_secs(5), task).await.unwrap().unwrap();
        }
    }

    #[test]
    fn trouble_says_what_to_do() {
        let trouble = |code| Trouble::new(&refused(code), "asyncqueues");
        assert!(trouble(404).message.contains("is the CRD installed?"));
        assert!(!trouble(404).denied && !trouble(500).denied);
        assert!(trouble(401).denied && trouble(403).denied);
        assert_eq!(trouble(500).message, "the API server answers 500: its words");
    }
}
