//! A queue whose functions have lanes, on the cluster, and the change of its fairness.

use std::time::Duration;

use serde_json::Value;
use test_support::{cluster::PODS, wait::until_in};

use crate::{
    support::{Gateway, Queue},
    workers::attempt,
};

fn condition<'a>(queue: &'a Value, kind: &str) -> Option<&'a Value> {
    let conditions = queue["status"]["conditions"].as_array()?;
    conditions.iter().find(|condition| condition["type"] == kind)
}

fn is_true(queue: &Value, kind: &str) -> bool {
    condition(queue, kind).is_some_and(|condition| condition["status"] == "True")
}

#[tokio::test]
async fn a_queue_with_lanes_changes_its_fairness_between_calls() {
    let queue = Queue::ready("fair", "{fairness: Function, maxInflight: 1}").await;
    queue.deploy_functions(&["slow", "fast", "callbacks"]).await;
    let gateway = Gateway::connect();
    // One slot: the calls of `slow` take turns with that of `fast`.
    let mut calls = Vec::new();
    for _ in 0..4 {
        calls.push(gateway.submit(queue.name(), "slow?sleep=3s&echo=request").await.call_id);
    }
    gateway.runs(&calls[0]).await;
    let fast = gateway.submit(queue.name(), "fast").await.call_id;
    gateway.callback(queue.name(), &fast).await;
    let done = gateway.callbacks(queue.name()).await;
    let slow = done.iter().filter(|done| calls.iter().any(|id| done.to_string().contains(id)));
    assert!(slow.count() < 4, "the fast call waited for all others");

    // A slow call runs, and others wait.
    queue.apply("{fairness: Fifo, maxInflight: 1}");
    queue.is("migrating", |queue| is_true(queue, "Migrating") && is_true(queue, "Ready")).await;
    let changed =
        |queue: &Value| condition(queue, "Migrating").is_none() && is_true(queue, "Ready");
    queue.is("changed", changed).await;
    let late = gateway.submit(queue.name(), "fast").await.call_id;
    for call in &calls {
        let result = gateway.callback(queue.name(), call).await;
        assert_eq!(attempt(&result), "1", "{result}");
    }
    gateway.callback(queue.name(), &late).await;
    queue.is("empty", |queue| queue["status"]["pending"].as_u64() == Some(0)).await;
    until_in(PODS, "each call has one callback", async || {
        (gateway.callbacks(queue.name()).await.len() == calls.len() + 2).then_some(())
    })
    .await;
    // And back, without any call: within moments.
    queue.apply("{fairness: Function, maxInflight: 1}");
    tokio::time::sleep(Duration::from_secs(1)).await;
    queue.is("changed back", changed).await;
    let last = gateway.submit(queue.name(), "fast").await.call_id;
    gateway.callback(queue.name(), &last).await;
}
