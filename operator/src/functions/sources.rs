//! The registered sources of functions. To add one, see "Add a source of functions" in
//! CONTRIBUTING.md.

use std::sync::Arc;

use asyncqueue::FunctionName;
use futures::{FutureExt, StreamExt, future::BoxFuture};
use k8s_openapi::api::core::v1::Service;
use kube::Client;
use tokio::sync::Notify;

use super::{DiscoveredFunction, FunctionIndex, FunctionSource, deployment, openfaas};
use crate::{
    cache::{
        deployment::CachedDeployment,
        health::WatchHealth,
        object::{CachedMeta, CachedObject},
        watch::{Cacheable, MultiStore, Requirement, Watch},
    },
    settings::Namespaces,
};

/// A cached object of a source: only the function that it describes.
type SourceObject<K> = CachedObject<K, Option<Box<(FunctionName, DiscoveredFunction)>>>;

/// A cache of one source.
trait SourceCache: Send + Sync {
    fn wait_until_ready(&self) -> BoxFuture<'_, ()>;

    /// Adds all functions of the source. They take precedence over those in the index.
    fn add_to(&self, index: &mut FunctionIndex);
}

/// The caches of all sources, in ascending order of precedence.
pub(crate) struct FunctionSources(Vec<Box<dyn SourceCache>>);

/// Creates the watches of the sources.
pub(crate) struct SourceBuilder<'a> {
    pub(crate) client: &'a Client,
    pub(crate) namespaces: &'a Namespaces,
    pub(crate) health: &'a Arc<WatchHealth>,
    /// Is notified when an object of a source changes.
    pub(crate) changed: &'a Arc<Notify>,
    /// The futures that keep the caches up to date.
    pub(crate) watches: Vec<BoxFuture<'static, ()>>,
}

// === impl FunctionSources ===

impl FunctionSources {
    /// Registers all sources. The controllers watch Deployments: their cache is shared.
    pub(crate) fn new(
        builder: &mut SourceBuilder<'_>,
        deployments: MultiStore<CachedDeployment>,
    ) -> Self {
        let services = builder.watch::<Service>("services", Requirement::Required);
        let functions = builder.watch::<openfaas::Function>("functions", Requirement::Optional);
        Self::in_order(services, deployments, functions)
    }

    /// If several objects describe one function, a later source takes precedence. `OpenFaaS`
    /// creates the Deployment and the Service from the Function, and only a Service has a port.
    pub(super) fn in_order(
        services: MultiStore<SourceObject<Service>>,
        deployments: MultiStore<CachedDeployment>,
        functions: MultiStore<SourceObject<openfaas::Function>>,
    ) -> Self {
        Self(vec![Box::new(services), Box::new(deployments), Box::new(functions)])
    }

    /// Waits until all caches are complete.
    pub(crate) async fn wait_until_ready(&self) {
        for source in &self.0 {
            source.wait_until_ready().await;
        }
    }

    /// Returns the functions of all sources.
    pub(crate) fn index(&self) -> FunctionIndex {
        let mut index = FunctionIndex::new();
        for source in &self.0 {
            source.add_to(&mut index);
        }
        index
    }
}

// === impl SourceBuilder ===

impl SourceBuilder<'_> {
    /// Watches one kind of objects, and returns its cache.
    fn watch<K: FunctionSource>(
        &mut self,
        resource: &'static str,
        requirement: Requirement,
    ) -> MultiStore<SourceObject<K>> {
        let watches: Vec<Watch<SourceObject<K>>> =
            Watch::for_namespaces(self.client, resource, requirement, self.namespaces.iter());
        let store = MultiStore::new(&watches);
        for watch in watches {
            let changed = self.changed.clone();
            let events = watch.into_events(self.health.clone());
            let watching = events.for_each(move |_| {
                changed.notify_one();
                std::future::ready(())
            });
            self.watches.push(watching.boxed());
        }
        store
    }
}

// === impl SourceCache ===

impl<K: FunctionSource> Cacheable for SourceObject<K> {
    type Object = K;

    fn from_object(object: K) -> Self {
        Self::new(CachedMeta::new(object.meta()), object.function().map(Box::new))
    }

    fn is_kept(&self) -> bool {
        self.data.is_some()
    }
}

impl<K: FunctionSource> SourceCache for MultiStore<SourceObject<K>> {
    fn wait_until_ready(&self) -> BoxFuture<'_, ()> {
        Self::wait_until_ready(self).boxed()
    }

    fn add_to(&self, index: &mut FunctionIndex) {
        let objects = self.all();
        let described = objects.iter().filter_map(|object| object.data.as_deref().cloned());
        add(index, described);
    }
}

impl SourceCache for MultiStore<CachedDeployment> {
    fn wait_until_ready(&self) -> BoxFuture<'_, ()> {
        Self::wait_until_ready(self).boxed()
    }

    fn add_to(&self, index: &mut FunctionIndex) {
        add(index, self.all().iter().filter_map(|object| deployment::function(object)));
    }
}

/// Adds functions to an index. They take precedence over those that are in it.
fn add(
    index: &mut FunctionIndex,
    functions: impl IntoIterator<Item = (FunctionName, DiscoveredFunction)>,
) {
    for (name, function) in functions {
        let function = match index.remove(&name) {
            Some(other) => function.merged_over(other),
            None => function,
        };
        index.insert(name, function);
    }
}
