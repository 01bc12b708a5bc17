//! Settings of a queue that are edited while its calls run.

use serde_json::Value;
use test_support::{
    cluster::{PODS, get, kubectl, object_is},
    wait::until_in,
};

use crate::{
    support::{Gateway, Queue},
    workers::attempt,
};

/// The UIDs of the worker pods, and how often their containers were restarted.
fn pods(queue: &Queue) -> Vec<(String, u64)> {
    let label = format!("-l=asyncqueue.io/queue={}", queue.name());
    let listed = kubectl(&["get", "pods", "-n", queue.name(), &label, "-o", "json"]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let pods = listed["items"].as_array().unwrap().iter();
    let pods = pods.map(|pod| {
        let restarts = pod["status"]["containerStatuses"][0]["restartCount"].as_u64().unwrap();
        (pod["metadata"]["uid"].as_str().unwrap().to_owned(), restarts)
    });
    pods.collect()
}

/// Waits until a worker has logged this many changes, and returns the last one.
async fn changes(queue: &Queue, count: usize) -> String {
    let what = format!("{count} changes of settings");
    until_in(PODS, &what, async || {
        let log = kubectl(&["logs", "-n", queue.name(), &queue.worker(), "--since=5m"]);
        let changes: Vec<_> =
            log.lines().filter(|line| line.contains("settings changed")).collect();
        (changes.len() >= count).then(|| changes[changes.len() - 1].to_owned())
    })
    .await
}

fn generation(queue: &Queue) -> Value {
    get(queue.name(), &queue.worker()).unwrap()["metadata"]["generation"].clone()
}

#[tokio::test]
async fn a_call_runs_through_ten_edits_and_no_worker_restarts() {
    let queue = Queue::ready("edited", "{timeout: 2m}").await;
    queue.deploy_functions(&["slow", "fast", "callbacks"]).await;
    let (before, generation_before) = (pods(&queue), generation(&queue));
    let gateway = Gateway::connect();
    let call = gateway.submit(queue.name(), "slow?sleep=60s&echo=request").await;
    gateway.runs(&call.call_id).await;
    // The first change was that from the program's own settings to those of the directory.
    for edit in 1..=10 {
        let retry = format!("{{maxAttempts: {}}}", 10 + edit);
        queue.apply(&format!(
            "{{timeout: {}s, maxInflight: {}, retry: {retry}}}",
            120 + edit,
            1 + edit
        ));
        let change = changes(&queue, 1 + edit).await;
        assert!(change.contains(&format!("maxInflight {edit} -> {}", 1 + edit)), "{change}");
    }
    // There is room for another one next to the call, which still runs.
    let next = gateway.submit(queue.name(), "fast").await;
    gateway.callback(queue.name(), &next.call_id).await;
    let target = format!("/async-function/{}", call.call_id);
    let status = gateway.request("GET", &target, &[], "").await;
    assert!(status.body.contains("running"), "{}", status.body);
    let result = gateway.callback(queue.name(), &call.call_id).await;
    assert_eq!(attempt(&result), "1", "{result}");
    queue.is("empty", |queue| queue["status"]["pending"].as_u64() == Some(0)).await;
    let callbacks = gateway.callbacks(queue.name()).await;
    let of_call = callbacks.iter().filter(|callback| callback.to_string().contains(&call.call_id));
    assert_eq!(of_call.count(), 1, "it ran once");
    assert_eq!((pods(&queue), generation(&queue)), (before, generation_before));
}

#[tokio::test]
async fn a_timeout_beyond_the_grace_period_rolls_and_drains() {
    let queue = Queue::ready("grace", "{timeout: 1m}").await;
    queue.deploy_functions(&["slow", "callbacks"]).await;
    let (before, generation_before) = (pods(&queue), generation(&queue));
    let grace = |deployment: &Value| {
        deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"].as_u64()
    };
    assert_eq!(grace(&get(queue.name(), &queue.worker()).unwrap()), Some(300));
    let gateway = Gateway::connect();
    let call = gateway.submit(queue.name(), "slow?sleep=20s&echo=request").await;
    gateway.runs(&call.call_id).await;
    queue.apply("{timeout: 10m}");
    object_is(queue.name(), &queue.worker(), "with a longer grace period", |deployment| {
        grace(deployment) == Some(615)
    })
    .await;
    let result = gateway.callback(queue.name(), &call.call_id).await;
    assert_eq!(attempt(&result), "1", "the old worker finished its call: {result}");
    let replaced = until_in(PODS, "the worker is replaced", async || {
        let now = pods(&queue);
        (now.len() == 1 && now != before).then_some(now)
    })
    .await;
    assert_ne!(generation(&queue), generation_before);

    // A lower one fits, and leaves the longer period.
    let rolled = generation(&queue);
    queue.apply("{timeout: 1m, maxInflight: 3}");
    let change = changes(&queue, 2).await;
    assert!(change.contains("timeout 10m -> 1m"), "{change}");
    assert_eq!((pods(&queue), generation(&queue)), (replaced, rolled));
}
