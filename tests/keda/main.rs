//! The files of `examples/keda`, as they stand, with the real KEDA (`make test-keda`).

#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use serde_json::Value;
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
    queue_is("all calls made", |queue| {
        count(queue, "/status/pending") == Some(0) && count(queue, "/status/inflight") == Some(0)
    })
    .await;
    queue_is("no workers again", no_workers).await;

    // What is applied again leaves the replicas to KEDA.
    apply_folder("examples/keda");
    let queue = get("openfaas", "asyncqueue/bursty").unwrap();
    assert_eq!(queue["spec"]["replicas"], 0);
    let _ = kubectl(&["delete", "-n", "openfaas", "scaledobject/bursty", "asyncqueue/bursty"]);
}
