//! The limit: all that was written for the queues, once more and under other names, by a client
//! that knows beforehand what to write. It watches nothing, asks nothing and decides nothing, and
//! none of it waits for anything but the answer before.

use std::time::{Duration, Instant};

use async_nats::jetstream::{self, consumer, stream};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use test_support::cluster::Namespace;

use crate::{APPLY, Bench, Error, clear, kind, queue, queues};

/// As the operator's.
const FIELD_MANAGER: &str = "asyncqueue-bench";

/// Of all that there is of one queue, what was written. In it stand the names of namespace and
/// queue, and the queue's uid.
struct Sample {
    namespace: String,
    name: String,
    uid: String,
    finalizers: Value,
    status: Value,
    applied: Vec<(ApiResource, DynamicObject)>,
    events: Vec<DynamicObject>,
    streams: Vec<(stream::Config, Vec<consumer::Config>)>,
}

/// How long that takes for so many queues.
pub(crate) async fn measure(bench: &Bench, size: usize) -> Result<Duration, Error> {
    let sample = Sample::of(bench).await?;
    let namespace = Namespace::create("limit");
    let begun = Instant::now();
    futures::stream::iter(0..size)
        .map(|number| sample.write(&bench.client, &bench.js, &namespace.name, number))
        .buffer_unordered(APPLY)
        .try_for_each(|()| std::future::ready(Ok(())))
        .await?;
    let taken = begun.elapsed();
    clear(&queues(&bench.client, &namespace.name)).await?;
    Ok(taken)
}

fn event() -> ApiResource {
    kind("events.k8s.io", "v1", "Event")
}

/// An object without what the API server adds to it.
fn written(mut object: DynamicObject) -> DynamicObject {
    object.metadata = ObjectMeta {
        creation_timestamp: None,
        generation: None,
        managed_fields: None,
        resource_version: None,
        uid: None,
        ..object.metadata
    };
    if let Some(fields) = object.data.as_object_mut() {
        fields.remove("status");
    }
    object
}

impl Sample {
    /// Of the first queue.
    async fn of(bench: &Bench) -> Result<Self, Error> {
        let namespace = bench.namespace.name.clone();
        let name = format!("{namespace}-0");
        let queue = bench.queues.get(&name).await?;
        let mut applied = Vec::new();
        for (resource, object) in [
            (kind("", "v1", "ServiceAccount"), format!("{name}-worker")),
            (kind("apps", "v1", "Deployment"), format!("{name}-worker")),
        ] {
            let api: Api<DynamicObject> =
                Api::namespaced_with(bench.client.clone(), &namespace, &resource);
            applied.push((resource, written(api.get(&object).await?)));
        }
        let api: Api<DynamicObject> =
            Api::namespaced_with(bench.client.clone(), &namespace, &event());
        let of_queue = ListParams::default().fields(&format!("regarding.name={name}"));
        let events = api.list(&of_queue).await?.items.into_iter().map(written).collect();
        let mut streams = Vec::new();
        for stream in [name.clone(), format!("{name}-callbacks"), format!("{name}-dead")] {
            let stream = bench.js.get_stream(stream).await?;
            let consumers =
                stream.consumers().map_ok(|consumer| consumer.config).try_collect().await?;
            streams.push((stream.cached_info().config.clone(), consumers));
        }
        Ok(Self {
            uid: queue.metadata.uid.clone().unwrap_or_default(),
            finalizers: json!(queue.metadata.finalizers),
            status: queue.data["status"].clone(),
            namespace,
            name,
            applied,
            events,
            streams,
        })
    }

    /// In the operator's order: the queue, its finalizer, what is made for it, its status and what
    /// is said of it.
    async fn write(
        &self,
        client: &Client,
        js: &jetstream::Context,
        namespace: &str,
        number: usize,
    ) -> Result<(), Error> {
        let name = format!("{namespace}-{number}");
        let queues = queues(client, namespace);
        let created = queues.create(&PostParams::default(), &queue(&name, false)?).await?;
        let uid = created.metadata.uid.unwrap_or_default();
        let finalizers = json!({ "metadata": { "finalizers": self.finalizers } });
        queues.patch(&name, &PatchParams::default(), &Patch::Merge(finalizers)).await?;
        for (stream, consumers) in &self.streams {
            let stream = js.create_stream(self.renamed(stream, namespace, &name, &uid)?).await?;
            for consumer in consumers {
                stream.create_consumer(self.renamed(consumer, namespace, &name, &uid)?).await?;
            }
        }
        for (resource, object) in &self.applied {
            let object = self.renamed(object, namespace, &name, &uid)?;
            let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, resource);
            let params = PatchParams::apply(FIELD_MANAGER).force();
            api.patch(
                object.metadata.name.as_deref().unwrap_or_default(),
                &params,
                &Patch::Apply(&object),
            )
            .await?;
        }
        let events: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &event());
        for event in &self.events {
            let event = self.renamed(event, namespace, &name, &uid)?;
            events.create(&PostParams::default(), &event).await?;
        }
        let status = self.renamed(&self.status, namespace, &name, &uid)?;
        let status = Patch::Merge(json!({ "status": status }));
        queues.patch_status(&name, &PatchParams::default(), &status).await?;
        Ok(())
    }

    /// The same for another queue.
    fn renamed<T: Serialize + DeserializeOwned>(
        &self,
        value: &T,
        namespace: &str,
        name: &str,
        uid: &str,
    ) -> Result<T, Error> {
        let text = serde_json::to_string(value)?;
        // The queue's name begins with the namespace's.
        let text = text
            .replace(&self.name, name)
            .replace(&self.namespace, namespace)
            .replace(&self.uid, uid);
        Ok(serde_json::from_str(&text)?)
    }
}
