//! Queues that cannot work say why within seconds, and then say nothing new.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use test_support::{
    broken_queues::{Broken, EXAMPLE, PRESENT, QUEUES, WITH_A_NAMESAKE, WITHOUT_QUOTA},
    cluster::{self, Namespace, apply, condition, is_true, kubectl},
    health::health,
    program,
};
use tokio::time::sleep;

use crate::support::{Gateway, Queue, object};

/// Where NATS runs.
const NATS_NAMESPACE: &str = "openfaas";

/// So many are created at once: one node starts only so many pods, and the time of each counts.
const AT_ONCE: usize = 6;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// On a machine that does much else, so much later.
const SLACK: Duration = Duration::from_secs(5);

/// For this time, queues that have a cause must not be written: back-offs of kubelet and
/// controllers pass in it.
const STEADY: Duration = Duration::from_secs(20);

#[tokio::test]
async fn broken_queues_say_why_within_seconds() {
    let (namespace, no_pods) = (Namespace::create("broken"), Namespace::create("broken-quota"));
    prepare(&namespace.name, &no_pods.name);
    let place =
        |queue: &Broken| if queue.name == WITHOUT_QUOTA { &no_pods.name } else { &namespace.name };
    let mut late = Vec::new();
    for batch in QUEUES.chunks(AT_ONCE) {
        let image = cluster::loaded_image("asyncqueue-example-function");
        let objects = batch
            .iter()
            .map(|queue| object(place(queue), queue.name, &queue.spec.replace(EXAMPLE, &image)));
        apply(&objects.collect::<Vec<_>>().join("\n---\n"));
        late.extend(watch(batch, [&namespace.name, &no_pods.name]).await);
    }
    assert!(late.is_empty(), "{}", late.join("\n"));

    let before = versions(&queues(&[&namespace.name, &no_pods.name]));
    sleep(STEADY).await;
    let after = versions(&queues(&[&namespace.name, &no_pods.name]));
    assert_eq!(before, after, "a queue whose cause stays is written once");
    for queue in &QUEUES {
        assert_event(queue, place(queue));
        assert_diagnosis(queue, place(queue));
    }
    for object in queues(&[&namespace.name, &no_pods.name]) {
        // NATS that is unavailable is waited for.
        let waits = condition(&object, "Ready").1 == "NatsUnavailable";
        let expected = if waits { "InProgress Degraded" } else { "Failed Degraded" };
        assert_eq!(health(std::slice::from_ref(&object)), [expected], "{object}");
    }
}

/// Calls that together need more memory than [`MEMORY_LIMIT`], and the size of each in bytes.
const CALLS: usize = 60;
const BODY: usize = 700 * 1024;

/// A worker that may use this much, and whose setting says that it may use more.
const MEMORY_LIMIT: &str = "{maxInflight: 200, timeout: 2m, deletionPolicy: Delete, \
                            consumer: {ackWait: 5s}, worker: {env: [{name: memory_budget, \
                            value: 1Gi}], resources: {requests: {memory: 24Mi}, \
                            limits: {memory: 24Mi}}}}";

#[tokio::test]
async fn a_worker_that_is_killed_for_its_memory_says_so() {
    let queue = Queue::ready("memory", "{replicas: 0, deletionPolicy: Delete}").await;
    queue.deploy_functions(&["slow"]).await;
    let (gateway, target) =
        (Gateway::connect(), format!("/async-function/slow.{}?sleep=1m", queue.name()));
    let body = "x".repeat(BODY);
    for _ in 0..CALLS {
        assert_eq!(gateway.request("POST", &target, &[], &body).await.status, 202);
    }
    queue.apply(MEMORY_LIMIT);
    let object = queue
        .is("not ready for its memory", |queue| condition(queue, "Ready").1 == "OutOfMemory")
        .await;
    let (status, _, message) = condition(&object, "Ready");
    assert_eq!(status, "False");
    let words =
        ["killed for using more memory than its limit", "resources.limits.memory", "memory_budget"];
    assert!(has_in_order(&message, &words), "{message}");
    // With enough memory, they run.
    queue.apply(&MEMORY_LIMIT.replace("24Mi", "512Mi"));
    queue
        .is("ready", |queue| {
            is_true(queue, "Ready") && queue["status"]["inflight"].as_u64() > Some(0)
        })
        .await;
}

/// What is there and what is in the way.
fn prepare(namespace: &str, no_pods: &str) {
    apply(&cluster::secret(namespace, PRESENT, &json!({ "other": "x" })));
    let config = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": PRESENT, "namespace": namespace },
    });
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota",
        "metadata": { "name": "none", "namespace": no_pods },
        "spec": { "hard": { "pods": "0" } },
    });
    let labels = json!({ "app": "somebody-elses" });
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "name": format!("{WITH_A_NAMESAKE}-worker"), "namespace": namespace },
        "spec": {
            "replicas": 0, "selector": { "matchLabels": labels },
            "template": {
                "metadata": { "labels": labels },
                "spec": { "containers": [{ "name": "c", "image": "absent:1" }] },
            },
        },
    });
    for object in [config, quota, deployment] {
        apply(&object.to_string());
    }
}

/// Waits until each queue of a batch has its cause. Returns those that are late.
async fn watch(batch: &[Broken], namespaces: [&String; 2]) -> Vec<String> {
    let begun = Instant::now();
    let mut waiting: Vec<&Broken> = batch.iter().collect();
    let mut late = Vec::new();
    while !waiting.is_empty() {
        sleep(LOOK_EVERY).await;
        let (now, seen) = (begun.elapsed(), queues(&namespaces.map(String::as_str)));
        waiting.retain(|queue| {
            let found = seen.iter().find(|object| object["metadata"]["name"] == queue.name);
            let ready = found.map(|object| condition(object, "Ready")).unwrap_or_default();
            let is_said = says(queue, &ready);
            if is_said {
                let object = found.unwrap();
                assert_columns(queue, object);
                println!("{:4.1} s  {}: {} {}", now.as_secs_f64(), queue.name, ready.1, ready.2);
            }
            let is_late = !is_said && now > Duration::from_secs(queue.seconds) + SLACK;
            if is_late {
                late.push(format!(
                    "{} is not {} after {now:?}: {ready:?}",
                    queue.name, queue.reason
                ));
            }
            !is_said && !is_late
        });
    }
    late
}

/// Whether the condition is what is expected: its words in their order.
fn says(queue: &Broken, (status, reason, message): &(String, String, String)) -> bool {
    status == "False" && reason == queue.reason && has_in_order(message, queue.words)
}

fn has_in_order(text: &str, words: &[&str]) -> bool {
    let mut rest = text;
    words.iter().all(|word| {
        let found = rest.find(word).map(|at| at + word.len());
        rest = &rest[found.unwrap_or_default()..];
        found.is_some()
    })
}

/// What tools read that know no `AsyncQueue`: NATS that is unavailable is waited for, all else is
/// stalled.
fn assert_columns(queue: &Broken, object: &Value) {
    assert_eq!(
        object["status"]["observedGeneration"], object["metadata"]["generation"],
        "{}",
        queue.name
    );
    let is_stalled = is_true(object, "Stalled");
    assert_eq!(
        is_stalled,
        queue.reason != "NatsUnavailable",
        "{}: {}",
        queue.name,
        object["status"]
    );
    assert!(!is_true(object, "Progressing") && !is_true(object, "Reconciling"), "{}", queue.name);
}

/// The event says what the condition says.
fn assert_event(queue: &Broken, namespace: &str) {
    let about = format!("involvedObject.kind=AsyncQueue,involvedObject.name={}", queue.name);
    let events = kubectl(&[
        "get",
        "events",
        "-n",
        namespace,
        &format!("--field-selector={about}"),
        "-o",
        "json",
    ]);
    let events: Value = serde_json::from_str(&events).unwrap();
    let events = events["items"].as_array().unwrap();
    let has = |event: &Value| {
        let message = event["message"].as_str().unwrap_or_default();
        event["type"] == "Warning"
            && event["reason"] == queue.reason
            && has_in_order(message, queue.words)
    };
    assert!(events.iter().any(has), "{}: no such event in {events:?}", queue.name);
}

/// `kubectl aq queue` passes the cause on, and says what to do.
fn assert_diagnosis(queue: &Broken, namespace: &str) {
    let plugin = program::path("kubectl-aq");
    let printed = cluster::command(plugin.to_str().unwrap())
        .args(["-n", NATS_NAMESPACE, "queue", queue.name, "--queue-namespace", namespace])
        .output()
        .unwrap();
    let text = String::from_utf8(printed.stdout).unwrap();
    let said = String::from_utf8_lossy(&printed.stderr);
    assert!(printed.status.success(), "{}: {said}", queue.name);
    println!("{text}");
    let name = format!("{namespace}/{}", queue.name);
    let remedy = format!("kubectl describe asyncqueue {} -n {namespace}", queue.name);
    let parts = [&[&*name, "error Ready\nCause:"], queue.words, &["\nRemedy:", &remedy]].concat();
    assert!(has_in_order(&text, &parts), "{}: {parts:?} in\n{text}", queue.name);
}

fn queues(namespaces: &[&str]) -> Vec<Value> {
    let mut found = Vec::new();
    for namespace in namespaces {
        let list = kubectl(&["get", "asyncqueues", "-n", namespace, "-o", "json"]);
        let mut list: Value = serde_json::from_str(&list).unwrap();
        found.append(list["items"].as_array_mut().unwrap());
    }
    found
}

/// The version of each queue, which each write changes.
fn versions(queues: &[Value]) -> BTreeMap<String, (String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let of = |queue: &Value| {
        let meta = &queue["metadata"];
        (text(&meta["name"]), (text(&meta["resourceVersion"]), condition(queue, "Ready").2))
    };
    queues.iter().map(of).collect()
}
