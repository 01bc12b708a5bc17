//! Workers in pods.

use serde_json::Value;
use test_support::{
    cluster::{PODS, get, kubectl, object_is},
    wait::until_in,
};

use crate::support::{Gateway, Queue};

#[tokio::test]
async fn worker_pod_deleted_during_a_call_loses_nothing() {
    let queue = Queue::ready("deleted-pod", "{timeout: 1m}").await;
    queue.deploy_functions(&["slow", "callbacks"]).await;
    let gateway = Gateway::connect();
    let call = gateway.submit(queue.name(), "slow?sleep=30s&echo=request").await;
    assert_eq!(call.status, 202);
    gateway.runs(&call.call_id).await;
    queue.is("a call in flight", |queue| queue["status"]["inflight"].as_u64() == Some(1)).await;
    delete_workers(&queue, &["--wait=false"]);
    let result = gateway.callback(queue.name(), &call.call_id).await;
    assert_eq!(attempt(&result), "1", "the pod finished its call: {result}");
    queue.is("empty again", |queue| queue["status"]["pending"].as_u64() == Some(0)).await;
}

#[tokio::test]
async fn call_of_a_killed_worker_pod_runs_again() {
    let queue = Queue::ready("killed-pod", "{timeout: 1m, consumer: {ackWait: 5s}}").await;
    queue.deploy_functions(&["slow", "callbacks"]).await;
    let gateway = Gateway::connect();
    let call = gateway.submit(queue.name(), "slow?sleep=20s&echo=request").await;
    gateway.runs(&call.call_id).await;
    delete_workers(&queue, &["--grace-period=0", "--force"]);
    let result = gateway.callback(queue.name(), &call.call_id).await;
    assert_eq!(attempt(&result), "2", "{result}");
}

fn delete_workers(queue: &Queue, how: &[&str]) {
    let pods = "-l=asyncqueue.io/queue=".to_owned() + queue.name();
    let _ = kubectl(&[&["delete", "pod", "-n", queue.name(), &pods], how].concat());
}

/// The attempt that a call's result is of, where the function answered with its request.
pub(crate) fn attempt(callback: &Value) -> String {
    let request: Value = serde_json::from_str(callback["body"].as_str().unwrap()).unwrap();
    request["headers"]["x-retry"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn workers_follow_their_queues_spec_and_scale() {
    let queue = Queue::ready("scaled", "{maxInflight: 2, timeout: 3m}").await;
    let deployment = get(queue.name(), &queue.worker()).unwrap();
    let pod = &deployment["spec"]["template"]["spec"];
    let environment = pod["containers"][0]["env"].as_array().unwrap();
    let setting = |name: &str| {
        environment
            .iter()
            .find(|variable| variable["name"] == name)
            .map(|variable| variable["value"].clone())
    };
    assert_eq!(setting("wait_for_settings").unwrap(), "true");
    assert_eq!((setting("max_inflight"), setting("upstream_timeout")), (None, None));
    assert_eq!(pod["terminationGracePeriodSeconds"].as_u64(), Some(300));
    let log = kubectl(&["logs", "-n", queue.name(), &queue.worker()]);
    assert!(log.contains("maxInflight 1 -> 2, timeout 1m -> 3m"), "{log}");
    assert_eq!(pod["automountServiceAccountToken"], false);

    let _ = kubectl(&[
        "scale",
        "-n",
        queue.name(),
        &format!("asyncqueue/{}", queue.name()),
        "--replicas=2",
    ]);
    let ready = |deployment: &Value| deployment["status"]["readyReplicas"].as_u64() == Some(2);
    object_is(queue.name(), &queue.worker(), "two workers ready", ready).await;
    let _ = kubectl(&[
        "scale",
        "-n",
        queue.name(),
        &format!("asyncqueue/{}", queue.name()),
        "--replicas=0",
    ]);
    let none = |deployment: &Value| deployment["status"]["replicas"].as_u64().unwrap_or(0) == 0;
    object_is(queue.name(), &queue.worker(), "no worker", none).await;
}

#[tokio::test]
async fn a_call_waits_for_a_worker_and_is_counted_as_pending() {
    let queue = Queue::ready("waiting", "{replicas: 0}").await;
    queue.deploy_functions(&["fast", "callbacks"]).await;
    let gateway = Gateway::connect();
    let call = gateway.submit(queue.name(), "fast").await;
    queue.is("one call pending", |queue| queue["status"]["pending"].as_u64() == Some(1)).await;
    queue.apply("{replicas: 1}");
    gateway.callback(queue.name(), &call.call_id).await;
    let what = "the queue is empty";
    until_in(PODS, what, async || {
        let queue = get(queue.name(), &format!("asyncqueue/{}", queue.name()))?;
        (queue["status"]["pending"].as_u64() == Some(0)).then_some(())
    })
    .await;
}
