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

pub(crate) use super::health::Watches;
use super::health::{Place, Trouble};

/// Pause between attempts. A few requests every two seconds are no load for an API server, and a
/// recovery is noticed quickly.
const PAUSE: Duration = Duration::from_secs(2);

/// Pause between attempts for a kind that may never exist.
const OPTIONAL_PAUSE: Duration = Duration::from_secs(5);

/// A namespaced object as the API server returns it.
pub(crate) trait Namespaced:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + DeserializeOwned
    + Send
    + 'static
{
}

impl<W> Namespaced for W where
    W: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + 'static
{
}

/// The part of a watched object that is kept.
pub(crate) trait Watched:
    Lookup<DynamicType = ()> + Clone + Debug + Send + Sync + 'static
{
    /// The object as the API server returns it.
    type Whole: Namespaced;

    /// Extracts the part of an object that is used. Its managed fields are already removed.
    fn of(whole: Self::Whole) -> Self;

    /// Returns whether the store keeps the object. Changes of other objects are reported too.
    fn is_kept(&self) -> bool {
        true
    }
}

/// A watch of one kind of objects, in one namespace or in all.
pub(crate) struct Watch<K: Watched> {
    api: Api<DeserializeGuard<K::Whole>>,
    place: Place,
    need: Need,
    config: watcher::Config,
    writer: Writer<K>,
    complete: watch::Sender<bool>,
}

/// Whether the API server must know a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing can be done without it.
    Required,
    /// If the API server does not know the kind, there are no objects of it. Its CRD may come and
    /// go.
    Optional,
    /// If it may not be read, everything else continues without it: a role of an earlier version
    /// lacks the permission.
    Helpful,
}

/// What has been seen of one kind of objects, in all places that are watched.
#[derive(Clone)]
pub(crate) struct Stores<K: Watched>(Vec<Seen<K>>);

/// What one watch has seen.
#[derive(Clone)]
struct Seen<K: Watched> {
    store: Store<K>,
    /// Whether the store is complete. The store has such a state too, but wakes only one of the
    /// tasks that wait for it (kube 5.0).
    complete: watch::Receiver<bool>,
}

/// Converts the events of a watch for the store.
struct Reading {
    place: Place,
    need: Need,
    /// Whether the API server does not know the kind.
    absent: bool,
    watches: Arc<Watches>,
}

/// Waits the same time after each error.
struct Pause(Duration);

// === impl Watch ===

impl<K: Watched> Watch<K> {
    /// Prepares a watch, which begins when its stream is polled.
    pub(crate) fn new(
        client: &Client,
        resource: &'static str,
        need: Need,
        namespace: Option<&str>,
    ) -> Self {
        let api = match namespace {
            Some(namespace) => Api::namespaced(client.clone(), namespace),
            None => Api::all(client.clone()),
        };
        let place = Place { resource, namespace: namespace.map(str::to_owned) };
        let (config, writer) = (watcher::Config::default(), reflector::store().1);
        Self { api, place, need, config, writer, complete: watch::Sender::new(false) }
    }

    /// Restricts the watch to objects with this label.
    pub(crate) fn labelled(mut self, label: &str) -> Self {
        self.config = self.config.labels(label);
        self
    }

    /// Returns the store with what has been seen.
    pub(crate) fn store(&self) -> Store<K> {
        self.writer.as_reader()
    }

    /// Follows the objects and keeps the store up to date. Skips an object that can't be read,
    /// because a newer version of this program wrote it; the others are not affected. Handles all
    /// errors itself.
    pub(crate) fn follow(
        self,
        watches: Arc<Watches>,
    ) -> impl Stream<Item = Event<K>> + Send + 'static {
        let Self { api, place, need, config, mut writer, complete } = self;
        let pause = match need {
            Need::Required | Need::Helpful => PAUSE,
            Need::Optional => OPTIONAL_PAUSE,
        };
        watches.set(&place, Trouble::waiting());
        let mut reading = Reading { place, need, absent: false, watches };
        watcher(api, config)
            .backoff(Pause(pause))
            .flat_map(move |event| stream::iter(reading.take::<K>(event)))
            .inspect(move |event| {
                match event {
                    Event::InitApply(object) if !object.is_kept() => {}
                    Event::Apply(object) if !object.is_kept() => {
                        writer.apply_watcher_event(&Event::Delete(object.clone()));
                    }
                    event => writer.apply_watcher_event(event),
                }
                if matches!(event, Event::InitDone) {
                    complete.send_replace(true);
                }
            })
    }
}

// === impl Reading ===

impl Reading {
    /// Returns the events for the store.
    fn take<K: Watched>(
        &mut self,
        event: watcher::Result<Event<DeserializeGuard<K::Whole>>>,
    ) -> Vec<Event<K>> {
        match event {
            // A listing begins with this event even if it fails later.
            Ok(Event::Init) => vec![Event::Init],
            Ok(event) => {
                self.absent = false;
                self.watches.works(&self.place);
                self.readable(event).into_iter().collect()
            }
            Err(error) => {
                let trouble = Trouble::new(&error, self.place.resource);
                // An API server that does not know all its CRDs yet answers 503.
                if self.need == Need::Optional && trouble.unknown {
                    let events = self.no_objects();
                    if !events.is_empty() {
                        self.watches.absent(&self.place);
                    }
                    return events;
                }
                let is_denied = trouble.denied;
                self.watches.set(&self.place, trouble);
                if self.need == Need::Helpful && is_denied { self.no_objects() } else { vec![] }
            }
        }
    }

    /// Returns, once, the events for a kind without objects: the API server does not know it, or
    /// denies it.
    fn no_objects<K>(&mut self) -> Vec<Event<K>> {
        if std::mem::replace(&mut self.absent, true) {
            return vec![];
        }
        vec![Event::Init, Event::InitDone]
    }

    /// Converts the object of an event to the part that is stored. Returns `None` if it can't be
    /// read.
    fn readable<K: Watched>(&self, event: Event<DeserializeGuard<K::Whole>>) -> Option<Event<K>> {
        let read = |DeserializeGuard(object): DeserializeGuard<K::Whole>| {
            object
                .inspect_err(|invalid| {
                    let (name, namespace) = (&invalid.metadata.name, &invalid.metadata.namespace);
                    error!(
                        ?namespace,
                        ?name,
                        error = invalid.error,
                        "{} can't be read",
                        K::kind(&())
                    );
                    self.watches.unreadable();
                })
                .ok()
                .map(|mut whole| {
                    whole.meta_mut().managed_fields = None;
                    K::of(whole)
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

// === impl Stores ===

impl<K: Watched> Stores<K> {
    pub(crate) fn new(watches: &[Watch<K>]) -> Self {
        let seen =
            |watch: &Watch<K>| Seen { store: watch.store(), complete: watch.complete.subscribe() };
        Self(watches.iter().map(seen).collect())
    }

    /// Waits until each watch has listed all objects: before that, an empty store means nothing.
    pub(crate) async fn complete(&self) {
        for seen in &self.0 {
            // An error means that the program ends.
            let _ = seen.complete.clone().wait_for(|complete| *complete).await;
        }
    }

    /// Returns all objects.
    pub(crate) fn all(&self) -> Vec<Arc<K>> {
        self.0.iter().flat_map(|seen| seen.store.state()).collect()
    }

    /// Returns one object.
    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        let object = ObjectRef::new(name).within(namespace);
        self.0.iter().find_map(|seen| seen.store.get(&object))
    }
}

// === impl Pause ===

impl Iterator for Pause {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.0)
    }
}

impl Backoff for Pause {
    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use asyncqueue_runtime::health::Health;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
    use prometheus_client::registry::Registry;

    use super::{super::health::fixtures::refused, *};
    use crate::{cache::service_account::Account, crd::AsyncQueue, fixtures, metrics::Metrics};

    fn reading(need: Need) -> Reading {
        let watches = Watches::new(Health::new(), Metrics::new(&mut Registry::default(), &[]));
        let place = Place { resource: "functions", namespace: None };
        Reading { place, need, absent: false, watches }
    }

    fn names(events: &[Event<Account>]) -> Vec<&'static str> {
        let name = |event: &Event<Account>| match event {
            Event::Init => "Init",
            Event::InitApply(_) => "InitApply",
            Event::InitDone => "InitDone",
            Event::Apply(_) => "Apply",
            Event::Delete(_) => "Delete",
        };
        events.iter().map(name).collect()
    }

    #[test]
    fn of_a_kind_that_nobody_needs_and_nobody_knows_there_is_no_object() {
        let mut reading = reading(Need::Optional);
        assert_eq!(names(&reading.take(Ok(Event::Init))), ["Init"]);
        assert_eq!(names(&reading.take(Err(refused(404)))), ["Init", "InitDone"]);
        assert_eq!(reading.watches.report(), Ok(()));
        // That is reported once.
        assert_eq!(names(&reading.take(Err(refused(404)))), [""; 0]);
        // The kind appears, and disappears again.
        assert_eq!(names(&reading.take(Ok(Event::InitDone))), ["InitDone"]);
        assert_eq!(names(&reading.take(Err(refused(404)))), ["Init", "InitDone"]);
    }

    #[test]
    fn a_watch_that_breaks_empties_nothing() {
        for code in [401, 403, 410, 500, 503] {
            let mut reading = reading(Need::Optional);
            assert_eq!(names(&reading.take(Err(refused(code)))), [""; 0], "{code}");
            assert!(reading.watches.report().is_err(), "{code}");
        }
        assert_eq!(names(&reading(Need::Required).take(Err(refused(404)))), [""; 0]);
    }

    #[test]
    fn a_helpful_kind_that_is_denied_holds_nothing_up_and_is_told() {
        let mut reading = reading(Need::Helpful);
        assert_eq!(names(&reading.take(Err(refused(403)))), ["Init", "InitDone"]);
        assert_eq!(names(&reading.take(Err(refused(403)))), [""; 0]);
        assert!(reading.watches.report().is_err());
        assert_eq!(names(&reading.take(Err(refused(500)))), [""; 0]);
        assert_eq!(names(&reading.take(Ok(Event::InitDone))), ["InitDone"]);
        assert_eq!(reading.watches.report(), Ok(()));
    }

    #[test]
    fn managed_fields_are_not_kept_of_anything() {
        let mut queue = fixtures::queue("q");
        queue.metadata.managed_fields = Some(vec![ManagedFieldsEntry::default()]);
        let event = Event::Apply(DeserializeGuard(Ok(queue)));
        let kept = reading(Need::Required).take::<AsyncQueue>(Ok(event));
        assert!(
            matches!(&kept[..], [Event::Apply(queue)] if queue.metadata.managed_fields.is_none())
        );
    }

    #[tokio::test]
    async fn all_who_wait_for_a_store_are_woken() {
        let complete = watch::Sender::new(false);
        let store = reflector::store::<Account>().0;
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
}
