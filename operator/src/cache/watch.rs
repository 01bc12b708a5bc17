//! Watches the Kubernetes API. A watch never gives up. It waits for a missing CRD, for denied
//! access or for an unavailable API server. It reports the cause in readiness, log and metrics.

use std::{fmt::Debug, sync::Arc, time::Duration};

use futures::{Stream, StreamExt, stream};
use kube::{
    Api, Client, Resource,
    core::{DeserializeGuard, NamespaceResourceScope},
    runtime::{
        WatchStreamExt,
        reflector::{self, Lookup, ObjectRef, Store, store::Writer},
        utils::Backoff,
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tracing::error;

use super::health::{WatchError, WatchHealth, WatchTarget};

/// Delay between attempts. A few requests every two seconds are no load for an API server, and a
/// recovery is noticed quickly.
const RETRY_DELAY: Duration = Duration::from_secs(2);

/// Delay between attempts for a kind that may never exist.
const OPTIONAL_RETRY_DELAY: Duration = Duration::from_secs(5);

/// A namespaced object as the API server returns it.
pub(crate) trait NamespacedObject:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + DeserializeOwned
    + Send
    + 'static
{
}

impl<W> NamespacedObject for W where
    W: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + 'static
{
}

/// The cached form of a watched object.
pub(crate) trait Cacheable:
    Lookup<DynamicType = ()> + Clone + Debug + Send + Sync + 'static
{
    /// The object as the API server returns it.
    type Object: NamespacedObject;

    /// Extracts the part of an object that is used. Its managed fields are already removed.
    fn from_object(object: Self::Object) -> Self;

    /// Returns whether the object is stored. Changes of other objects are reported too.
    fn is_kept(&self) -> bool {
        true
    }
}

/// A watch of one kind of objects, in one namespace or in all.
pub(crate) struct Watch<K: Cacheable> {
    api: Api<DeserializeGuard<K::Object>>,
    target: WatchTarget,
    requirement: Requirement,
    config: watcher::Config,
    writer: Writer<K>,
    is_complete: watch::Sender<bool>,
}

/// Whether the operator can work without watching a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Requirement {
    /// Nothing can be done without it.
    Required,
    /// If the API server does not know the kind, there are no objects of it. Its CRD may come and
    /// go.
    Optional,
    /// If it may not be read, everything else continues without it: a role of an earlier version
    /// lacks the permission.
    BestEffort,
}

/// The stores of one kind of objects: one for each watched namespace, or one for all.
#[derive(Clone)]
pub(crate) struct MultiStore<K: Cacheable>(Vec<WatchedStore<K>>);

/// The store of one watch.
#[derive(Clone)]
struct WatchedStore<K: Cacheable> {
    store: Store<K>,
    /// Whether the store is complete. The store has such a state too, but wakes only one of the
    /// tasks that wait for it (kube 5.0).
    is_complete: watch::Receiver<bool>,
}

/// Converts the events of a watch for the store.
struct EventReader {
    target: WatchTarget,
    requirement: Requirement,
    /// Whether the API server does not know the kind, or denies access to it.
    is_absent: bool,
    health: Arc<WatchHealth>,
}

/// Waits the same time after each error.
struct ConstantBackoff(Duration);

// === impl Watch ===

impl<K: Cacheable> Watch<K> {
    /// Prepares a watch, which begins when its stream is polled.
    pub(crate) fn new(
        client: &Client,
        resource: &'static str,
        requirement: Requirement,
        namespace: Option<&str>,
    ) -> Self {
        let api = match namespace {
            Some(namespace) => Api::namespaced(client.clone(), namespace),
            None => Api::all(client.clone()),
        };
        let target = WatchTarget { resource, namespace: namespace.map(str::to_owned) };
        let (config, writer) = (watcher::Config::default(), reflector::store().1);
        Self { api, target, requirement, config, writer, is_complete: watch::Sender::new(false) }
    }

    /// Prepares a watch for each namespace; `None` stands for all.
    pub(crate) fn for_namespaces<'a>(
        client: &Client,
        resource: &'static str,
        requirement: Requirement,
        namespaces: impl Iterator<Item = Option<&'a str>>,
    ) -> Vec<Self> {
        namespaces.map(|namespace| Self::new(client, resource, requirement, namespace)).collect()
    }

    /// Restricts the watch to objects with these labels.
    pub(crate) fn with_labels(mut self, labels: &str) -> Self {
        self.config = self.config.labels(labels);
        self
    }

    /// Returns the store of the watched objects.
    pub(crate) fn store(&self) -> Store<K> {
        self.writer.as_reader()
    }

    /// Returns the changes of the objects. The store is updated while they are polled. An object
    /// that is not valid, because a newer version of this program wrote it, is skipped; the others
    /// are not affected. All errors are handled here.
    pub(crate) fn into_events(
        self,
        health: Arc<WatchHealth>,
    ) -> impl Stream<Item = Event<K>> + Send + 'static {
        let Self { api, target, requirement, config, mut writer, is_complete } = self;
        let retry_delay = match requirement {
            Requirement::Required | Requirement::BestEffort => RETRY_DELAY,
            Requirement::Optional => OPTIONAL_RETRY_DELAY,
        };
        health.mark_failed(&target, WatchError::waiting());
        let mut reader = EventReader { target, requirement, is_absent: false, health };
        watcher(api, config)
            .backoff(ConstantBackoff(retry_delay))
            .flat_map(move |event| stream::iter(reader.convert::<K>(event)))
            .inspect(move |event| {
                match event {
                    Event::InitApply(object) if !object.is_kept() => {}
                    Event::Apply(object) if !object.is_kept() => {
                        writer.apply_watcher_event(&Event::Delete(object.clone()));
                    }
                    event => writer.apply_watcher_event(event),
                }
                if matches!(event, Event::InitDone) {
                    is_complete.send_replace(true);
                }
            })
    }
}

// === impl EventReader ===

impl EventReader {
    /// Returns the events for the store.
    fn convert<K: Cacheable>(
        &mut self,
        event: watcher::Result<Event<DeserializeGuard<K::Object>>>,
    ) -> Vec<Event<K>> {
        match event {
            // A listing begins with this event even if it fails later.
            Ok(Event::Init) => vec![Event::Init],
            Ok(event) => {
                self.is_absent = false;
                self.health.mark_healthy(&self.target);
                self.convert_object(event).into_iter().collect()
            }
            Err(error) => {
                let error = WatchError::new(&error, self.target.resource);
                // An API server that does not know all its CRDs yet answers 503.
                if self.requirement == Requirement::Optional && error.is_unknown_kind {
                    let events = self.no_objects();
                    if !events.is_empty() {
                        self.health.mark_absent(&self.target);
                    }
                    return events;
                }
                let is_denied = error.is_denied;
                self.health.mark_failed(&self.target, error);
                if self.requirement == Requirement::BestEffort && is_denied {
                    self.no_objects()
                } else {
                    vec![]
                }
            }
        }
    }

    /// Returns, once, the events for a kind without objects: the API server does not know it, or
    /// denies it.
    fn no_objects<K>(&mut self) -> Vec<Event<K>> {
        if std::mem::replace(&mut self.is_absent, true) {
            return vec![];
        }
        vec![Event::Init, Event::InitDone]
    }

    /// Converts the object of an event to the part that is stored. Returns `None` if it can't be
    /// read.
    fn convert_object<K: Cacheable>(
        &self,
        event: Event<DeserializeGuard<K::Object>>,
    ) -> Option<Event<K>> {
        let read = |DeserializeGuard(object): DeserializeGuard<K::Object>| {
            object
                .inspect_err(|invalid| {
                    let (name, namespace) = (&invalid.metadata.name, &invalid.metadata.namespace);
                    error!(
                        ?namespace,
                        ?name,
                        error = invalid.error,
                        "skipped an invalid {}",
                        K::kind(&())
                    );
                    self.health.count_invalid_object();
                })
                .ok()
                .map(|mut object| {
                    object.meta_mut().managed_fields = None;
                    K::from_object(object)
                })
        };
        match event {
            Event::Init => Some(Event::Init),
            Event::InitDone => Some(Event::InitDone),
            Event::InitApply(object) => read(object).map(Event::InitApply),
            Event::Apply(object) => read(object).map(Event::Apply),
            Event::Delete(object) => read(object).map(Event::Delete),
        }
    }
}

// === impl MultiStore ===

impl<K: Cacheable> MultiStore<K> {
    pub(crate) fn new(watches: &[Watch<K>]) -> Self {
        let store = |watch: &Watch<K>| WatchedStore {
            store: watch.store(),
            is_complete: watch.is_complete.subscribe(),
        };
        Self(watches.iter().map(store).collect())
    }

    /// Waits until each watch has listed all objects: before that, an empty store means nothing.
    pub(crate) async fn wait_until_ready(&self) {
        for watched in &self.0 {
            // An error means that the program ends.
            let _ = watched.is_complete.clone().wait_for(|is_complete| *is_complete).await;
        }
    }

    /// Returns all objects.
    pub(crate) fn all(&self) -> Vec<Arc<K>> {
        self.0.iter().flat_map(|watched| watched.store.state()).collect()
    }

    /// Returns one object.
    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        let object = ObjectRef::new(name).within(namespace);
        self.0.iter().find_map(|watched| watched.store.get(&object))
    }
}

#[cfg(test)]
impl<K: Cacheable> MultiStore<K> {
    /// Creates a complete store with these objects.
    pub(crate) fn from_objects(objects: impl IntoIterator<Item = K>) -> Self {
        let (store, mut writer) = reflector::store();
        for object in objects.into_iter().filter(Cacheable::is_kept) {
            writer.apply_watcher_event(&Event::Apply(object));
        }
        Self(vec![WatchedStore { store, is_complete: watch::channel(true).1 }])
    }
}

// === impl ConstantBackoff ===

impl Iterator for ConstantBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.0)
    }
}

impl Backoff for ConstantBackoff {
    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use asyncqueue_runtime::health::Health;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
    use prometheus_client::registry::Registry;

    use super::{super::health::fixtures::refused, *};
    use crate::{
        cache::service_account::CachedServiceAccount, crd::AsyncQueue, fixtures, metrics::Metrics,
    };

    fn reader(requirement: Requirement) -> EventReader {
        let health = WatchHealth::new(Health::new(), Metrics::new(&mut Registry::default(), &[]));
        let target = WatchTarget { resource: "functions", namespace: None };
        EventReader { target, requirement, is_absent: false, health }
    }

    fn names(events: &[Event<CachedServiceAccount>]) -> Vec<&'static str> {
        let name = |event: &Event<CachedServiceAccount>| match event {
            Event::Init => "Init",
            Event::InitApply(_) => "InitApply",
            Event::InitDone => "InitDone",
            Event::Apply(_) => "Apply",
            Event::Delete(_) => "Delete",
        };
        events.iter().map(name).collect()
    }

    #[test]
    fn an_optional_kind_that_is_unknown_has_no_objects() {
        let mut reader = reader(Requirement::Optional);
        assert_eq!(names(&reader.convert(Ok(Event::Init))), ["Init"]);
        assert_eq!(names(&reader.convert(Err(refused(404)))), ["Init", "InitDone"]);
        assert_eq!(reader.health.report(), Ok(()));
        // That is reported once.
        assert_eq!(names(&reader.convert(Err(refused(404)))), [""; 0]);
        // The kind appears, and disappears again.
        assert_eq!(names(&reader.convert(Ok(Event::InitDone))), ["InitDone"]);
        assert_eq!(names(&reader.convert(Err(refused(404)))), ["Init", "InitDone"]);
    }

    #[test]
    fn a_failed_watch_keeps_its_objects() {
        for code in [401, 403, 410, 500, 503] {
            let mut reader = reader(Requirement::Optional);
            assert_eq!(names(&reader.convert(Err(refused(code)))), [""; 0], "{code}");
            assert!(reader.health.report().is_err(), "{code}");
        }
        assert_eq!(names(&reader(Requirement::Required).convert(Err(refused(404)))), [""; 0]);
    }

    #[test]
    fn a_denied_best_effort_kind_blocks_nothing_and_is_reported() {
        let mut reader = reader(Requirement::BestEffort);
        assert_eq!(names(&reader.convert(Err(refused(403)))), ["Init", "InitDone"]);
        assert_eq!(names(&reader.convert(Err(refused(403)))), [""; 0]);
        assert!(reader.health.report().is_err());
        assert_eq!(names(&reader.convert(Err(refused(500)))), [""; 0]);
        assert_eq!(names(&reader.convert(Ok(Event::InitDone))), ["InitDone"]);
        assert_eq!(reader.health.report(), Ok(()));
    }

    #[test]
    fn managed_fields_are_not_cached() {
        let mut queue = fixtures::queue("q");
        queue.metadata.managed_fields = Some(vec![ManagedFieldsEntry::default()]);
        let event = Event::Apply(DeserializeGuard(Ok(queue)));
        let cached = reader(Requirement::Required).convert::<AsyncQueue>(Ok(event));
        assert!(
            matches!(&cached[..], [Event::Apply(queue)] if queue.metadata.managed_fields.is_none())
        );
    }

    #[tokio::test]
    async fn all_tasks_that_wait_for_a_store_are_woken() {
        let complete = watch::Sender::new(false);
        let store = reflector::store::<CachedServiceAccount>().0;
        let stores = MultiStore(vec![WatchedStore { store, is_complete: complete.subscribe() }]);
        let waiting = [0, 1].map(|_| {
            let stores = stores.clone();
            tokio::spawn(async move { stores.wait_until_ready().await })
        });
        tokio::task::yield_now().await;
        complete.send_replace(true);
        for task in waiting {
            tokio::time::timeout(Duration::from_secs(5), task).await.unwrap().unwrap();
        }
    }
}
