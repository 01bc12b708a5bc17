//! The files of `examples/keda`, as they stand, with the real KEDA (`make test-keda`).

#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use serde_json::{Value, json};
use test_support::{
    cluster::{apply_folder, get, kubectl},
    wait::until_in,
};

#[path = "../e2e/support.rs"]
#[allow(dead_code)] // the other end-to-end tests use more of it
mod e2e;

use e2e::Gateway;

/// Calls at once: enough for the most workers that there may be, and some time for each of them.
const CALLS: usize = 40;

/// KEDA and the autoscaler look every few seconds, and wait for half a minute before they scale
/// down.
const WAIT_TIMEOUT: Duration = Duration::from_secs(300);

/// Waits until the queue is in the desired state.
async fn queue_is(what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    until_in(WAIT_TIMEOUT, what, async || get("openfaas", "asyncqueue/bursty").filter(&holds)).await
}

/// A second operator, until it is dropped.
struct Operators;

impl Operators {
    fn start_second() -> Self {
        scale_operator(2);
        Self
    }
}

impl Drop for Operators {
    fn drop(&mut self) {
        scale_operator(1);
    }
}

fn scale_operator(replicas: usize) {
    let operator = "deployment/asyncqueue-operator";
    let replicas = format!("--replicas={replicas}");
    let _ = kubectl(&["scale", "-n", "openfaas", operator, &replicas]);
    let _ = kubectl(&["rollout", "status", "-n", "openfaas", operator, "--timeout=120s"]);
}

/// The address of the operator that stands by.
async fn standby_address() -> String {
    let selector = "--selector=app.kubernetes.io/name=asyncqueue-operator";
    until_in(WAIT_TIMEOUT, "an operator stands by", async || {
        let lease = get("openfaas", "lease/asyncqueue-operator")?;
        let pods = kubectl(&["get", "pods", "-n", "openfaas", selector, "-o", "json"]);
        let pods: Value = serde_json::from_str(&pods).unwrap();
        let pods = pods["items"].as_array()?.clone();
        let holder = &lease["spec"]["holderIdentity"];
        let standby = pods.iter().find(|pod| pod["metadata"]["name"] != *holder)?;
        standby["status"]["podIP"].as_str().map(str::to_owned)
    })
    .await
}

#[tokio::test]
async fn workers_scale_with_the_depth_of_their_queue() {
    let count = |queue: &Value, path: &str| queue.pointer(path).and_then(Value::as_u64);
    let no_workers = |queue: &Value| {
        count(queue, "/spec/replicas") == Some(0) && count(queue, "/status/replicas") == Some(0)
    };
    apply_folder("examples/keda");
    let _ =
        kubectl(&["rollout", "status", "-n", "openfaas-fn", "deployment/bursty", "--timeout=120s"]);
    queue_is("its function is known", |queue| count(queue, "/status/functions") == Some(1)).await;
    queue_is("no workers, since there are no calls", no_workers).await;

    let gateway = Gateway::connect();
    for _ in 0..CALLS {
        let call = gateway.submit("openfaas-fn", "bursty").await;
        assert_eq!(call.status, 202, "{call:?}");
    }
    queue_is("as many workers as there may be", |queue| {
        count(queue, "/status/readyReplicas") == Some(5)
    })
    .await;
    let all_made = |queue: &Value| {
        count(queue, "/status/pending") == Some(0) && count(queue, "/status/inflight") == Some(0)
    };
    queue_is("all calls made", all_made).await;
    queue_is("no workers again", no_workers).await;

    // With two operators, KEDA may ask the one that stands by, which redirects to the leader.
    let operators = Operators::start_second();
    let url = format!("http://{}:8083/depth/openfaas/bursty", standby_address().await);
    let patch = json!([{ "op": "replace", "path": "/spec/triggers/0/metadata/url", "value": url }]);
    let patch = ["--type=json", "-p", &patch.to_string()];
    let _ = kubectl(&[&["patch", "-n", "openfaas", "scaledobject/bursty"][..], &patch].concat());
    assert_eq!(gateway.submit("openfaas-fn", "bursty").await.status, 202);
    queue_is("a worker, by what the leader says", |queue| {
        count(queue, "/status/readyReplicas") >= Some(1)
    })
    .await;
    queue_is("the call made", all_made).await;
    queue_is("no workers for the third time", no_workers).await;
    drop(operators);

    // What is applied again leaves the replicas to KEDA.
    apply_folder("examples/keda");
    let queue = get("openfaas", "asyncqueue/bursty").unwrap();
    assert_eq!(queue["spec"]["replicas"], 0);
    let _ = kubectl(&["delete", "-n", "openfaas", "scaledobject/bursty", "asyncqueue/bursty"]);
}
