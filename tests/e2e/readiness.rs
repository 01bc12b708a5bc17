//! A queue is ready for as long as calls are accepted and a worker of the wanted revision runs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::TryStreamExt;
use kube::{
    Api,
    api::{ApiResource, DynamicObject, GroupVersionKind},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::Value;
use test_support::{
    cluster::{self, PODS, condition, get, is_true, kubectl, object_is_gone},
    health::health,
    wait::until_in,
};
use tokio::task::AbortHandle;

use crate::support::{Gateway, Queue};

/// A queue that is what its spec says, to kstatus and Argo CD.
const CURRENT: &str = "Current Healthy";

/// What a watch has seen of one queue, from the first status to the last.
struct History {
    seen: Arc<Mutex<Vec<Value>>>,
    watch: AbortHandle,
}

impl History {
    async fn of(queue: &Queue) -> Self {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(
            "asyncqueue.io",
            "v1alpha1",
            "AsyncQueue",
        ));
        let api: Api<DynamicObject> =
            Api::namespaced_with(cluster::client().await, queue.name(), &resource);
        let seen = Arc::<Mutex<Vec<Value>>>::default();
        let watch = tokio::spawn({
            let seen = seen.clone();
            async move {
                let changes = watcher(api, watcher::Config::default()).applied_objects();
                let kept = changes.try_for_each(|object| {
                    let object = serde_json::to_value(object).unwrap();
                    seen.lock().unwrap_or_else(PoisonError::into_inner).push(object);
                    std::future::ready(Ok(()))
                });
                kept.await.unwrap();
            }
        });
        Self { seen, watch: watch.abort_handle() }
    }

    /// Waits until the watch has seen an object as it is here, forgets what came before that, and
    /// returns all of it.
    async fn until(&self, object: &Value) -> Vec<Value> {
        let version = &object["metadata"]["resourceVersion"];
        until_in(PODS, "the watch has seen it", async || {
            let mut seen = self.lock();
            let last =
                seen.iter().position(|seen| seen["metadata"]["resourceVersion"] == *version)?;
            let after = seen.split_off(last);
            let before = std::mem::replace(&mut *seen, after);
            Some(before.into_iter().chain(seen.first().cloned()).collect())
        })
        .await
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Value>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for History {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

/// The statuses of a condition, each once for as long as it stays.
fn statuses(seen: &[Value], kind: &str) -> Vec<String> {
    let mut statuses: Vec<_> = seen.iter().map(|queue| condition(queue, kind).0).collect();
    statuses.dedup();
    statuses
}

/// Whether a queue is what its spec says, by the rules that kstatus has for all kinds of objects.
fn is_current(queue: &Value) -> bool {
    let is_observed = queue["status"]["observedGeneration"] == queue["metadata"]["generation"];
    let is_stopped = ["Reconciling", "Stalled"].into_iter().any(|kind| is_true(queue, kind));
    is_observed && !is_stopped && is_true(queue, "Ready")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_stays_ready_while_it_is_scaled_and_edited() {
    let queue = Queue::create("steady", "{maxInflight: 1}");
    let history = History::of(&queue).await;
    wait_ready(&queue);
    let current = queue.is("current", is_current).await;
    let created = history.until(&current).await;
    let ready = statuses(&created, "Ready");
    assert_eq!(ready.last().map(String::as_str), Some("True"), "{ready:?}");
    assert_eq!(ready.iter().filter(|status| *status == "True").count(), 1, "{ready:?}");
    assert_became(&created, "InProgress Progressing", CURRENT);

    let _ = kubectl(&[
        "scale",
        "-n",
        queue.name(),
        &format!("asyncqueue/{}", queue.name()),
        "--replicas=2",
    ]);
    let two =
        |queue: &Value| is_current(queue) && queue["status"]["readyReplicas"].as_u64() == Some(2);
    let scaled = queue.is("two workers", two).await;
    assert_progressed_ready(&history.until(&scaled).await);

    let revision = template(&queue);
    queue.apply("{verbose: true}");
    let verbose = |queue: &Value| is_current(queue) && queue["spec"]["verbose"] == true;
    let edited = queue.is("edited", verbose).await;
    assert_ne!(template(&queue), revision);
    assert_progressed_ready(&history.until(&edited).await);

    let _ = kubectl(&[
        "scale",
        "-n",
        queue.name(),
        &format!("asyncqueue/{}", queue.name()),
        "--replicas=0",
    ]);
    let none = queue
        .is("without workers", |queue| is_current(queue) && queue["status"]["replicas"] == 0)
        .await;
    assert_eq!(statuses(&history.until(&none).await, "Ready"), ["True"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_image_is_seen_and_calls_still_run() {
    let queue = Queue::ready("bad-image", "{}").await;
    queue.deploy_functions(&["fast", "callbacks"]).await;
    let history = History::of(&queue).await;
    queue.apply("{worker: {image: 'registry.invalid/asyncqueue:none'}}");
    let bad = queue.is("not ready", |queue| condition(queue, "Ready").1 == "ImagePullFailed").await;
    assert_eq!(health(std::slice::from_ref(&bad)), ["Failed Degraded"]);
    assert_eq!(bad["status"]["readyReplicas"], 1, "the earlier worker runs");
    assert_eq!(statuses(&history.until(&bad).await, "Ready"), ["True", "False"]);

    let gateway = Gateway::connect();
    let call = gateway.submit(queue.name(), "fast").await;
    assert_eq!(call.status, 202);
    gateway.callback(queue.name(), &call.call_id).await;
    let still = get(queue.name(), &format!("asyncqueue/{}", queue.name())).unwrap();
    assert_eq!(condition(&still, "Ready").1, "ImagePullFailed");

    // Repaired, though not to what it was before.
    queue.apply("{verbose: true}");
    let current = queue.is("repaired", is_current).await;
    let repaired = history.until(&current).await;
    assert_eq!(statuses(&repaired, "Ready"), ["False", "True"]);
    assert_became(&repaired, "InProgress Progressing", CURRENT);

    let _ = kubectl(&["delete", "asyncqueue", queue.name(), "-n", queue.name(), "--wait=false"]);
    object_is_gone(queue.name(), &format!("asyncqueue/{}", queue.name())).await;
    let what = "kstatus has seen the deletion";
    until_in(PODS, what, async || {
        let seen = history.lock().clone();
        health(&seen).iter().any(|health| health.starts_with("Terminating ")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn unschedulable_second_worker_is_reported() {
    let queue = Queue::ready("no-room", "{}").await;
    let quota = format!(
        "{{apiVersion: v1, kind: ResourceQuota, metadata: {{name: one, namespace: {}}}, \
         spec: {{hard: {{pods: '1'}}}}}}",
        queue.name()
    );
    cluster::apply(&quota);
    let _ = kubectl(&[
        "scale",
        "-n",
        queue.name(),
        &format!("asyncqueue/{}", queue.name()),
        "--replicas=2",
    ]);
    let stuck = queue.is("stuck", |queue| is_true(queue, "Stalled")).await;
    let (status, reason, message) = condition(&stuck, "Progressing");
    assert_eq!((&*status, &*reason), ("False", "PodsRefused"));
    assert!(message.contains("exceeded quota: one"), "{message}");
    assert_eq!(condition(&stuck, "Ready").0, "True", "a worker runs");
    let what = "an event says so";
    until_in(PODS, what, async || {
        let events =
            kubectl(&["get", "events", "-n", queue.name(), "-o", "jsonpath={.items[*].message}"]);
        events.contains("exceeded quota: one").then_some(())
    })
    .await;
}

/// As users wait for it.
fn wait_ready(queue: &Queue) {
    let object = format!("asyncqueue/{}", queue.name());
    let _ =
        kubectl(&["wait", "-n", queue.name(), "--for=condition=Ready", &object, "--timeout=60s"]);
}

/// Ready all the time, and not done for a part of it.
fn assert_progressed_ready(seen: &[Value]) {
    assert_eq!(statuses(seen, "Ready"), ["True"]);
    assert!(
        seen.iter().any(|queue| is_true(queue, "Progressing") && is_true(queue, "Reconciling")),
        "{seen:?}"
    );
    assert_became(seen, "InProgress Progressing", CURRENT);
}

/// To kstatus and Argo CD, a queue was one thing on its way, and is another in the end.
fn assert_became(seen: &[Value], way: &str, end: &str) {
    let found = health(seen);
    assert!(found.iter().any(|health| health == way), "{found:?}");
    assert_eq!(found.last().map(String::as_str), Some(end));
}

/// What the workers' pods are made from.
fn template(queue: &Queue) -> String {
    let deployment = get(queue.name(), &queue.worker()).unwrap();
    deployment["spec"]["template"].to_string()
}
