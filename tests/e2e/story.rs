//! The files of `examples/`, as they stand.

use test_support::{
    cluster::{apply_folder, is_true, kubectl, object_is},
    wait::until,
};

use crate::support::Gateway;

#[tokio::test]
async fn slow_function_with_its_own_queue_delays_no_other() {
    apply_folder("examples/slow-queue");
    object_is("openfaas", "asyncqueue/slow-queue", "ready", |queue| is_true(queue, "Ready")).await;
    for deployment in ["fast", "slow", "callbacks"] {
        let name = format!("deployment/{deployment}");
        let _ = kubectl(&["rollout", "status", "-n", "openfaas-fn", &name, "--timeout=120s"]);
    }
    let known = |queue: &serde_json::Value| queue["status"]["functions"].as_u64() == Some(1);
    object_is("openfaas", "asyncqueue/slow-queue", "its function known", known).await;

    let gateway = Gateway::connect();
    let slow = gateway.submit("openfaas-fn", "slow").await;
    let fast = gateway.submit("openfaas-fn", "fast").await;
    assert_eq!((slow.status, fast.status), (202, 202), "{slow:?} {fast:?}");

    let result = gateway.callback("openfaas-fn", &fast.call_id).await.to_string();
    assert!(result.contains("hello"), "{result}");
    gateway.callback("openfaas-fn", &slow.call_id).await;
    let callbacks = gateway.callbacks("openfaas-fn").await;
    let arrived =
        |id: &str| callbacks.iter().position(|callback| callback.to_string().contains(id));
    assert!(
        arrived(&fast.call_id) < arrived(&slow.call_id),
        "the slow function held up the fast one"
    );

    // What users look for.
    let line = until("the worker's line", async || {
        let log = kubectl(&["logs", "-n", "openfaas", "deployment/slow-queue-worker"]);
        log.lines()
            .find(|line| line.contains("Invoked slow [200] in 10.") && line.contains(&slow.call_id))
            .map(str::to_owned)
    })
    .await;
    assert!(line.contains(&slow.call_id));
    let table = kubectl(&["get", "aq", "-n", "openfaas"]);
    let header = table.lines().next().unwrap_or_default().split_whitespace().collect::<Vec<_>>();
    let columns = [
        "NAME",
        "READY",
        "REASON",
        "PENDING",
        "INFLIGHT",
        "DEAD",
        "WORKERS",
        "MAX-INFLIGHT",
        "AGE",
    ];
    assert_eq!(header, columns);
}
