//! Results that are kept, clients that wait, delayed calls and batches.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use test_support::{cluster::PODS, wait::until_in};

use crate::support::{Gateway, Queue};

/// Longer than the operator needs to count calls.
const DELAY: Duration = Duration::from_secs(45);

#[tokio::test]
async fn result_is_kept_as_the_spec_says() {
    let queue = Queue::ready("results", "{results: {retention: 1h}}").await;
    queue.deploy_functions(&["fast"]).await;
    let gateway = Gateway::connect();
    let target = format!("/async-function/fast.{}?echo=request", queue.name());
    let call = gateway.request("POST", &target, &[], "hello").await;
    assert_eq!(call.status, 202, "{call:?}");
    let target = format!("/async-function/{}/result", call.call_id);
    let result = until_in(PODS, "the result is kept", async || {
        let answer = gateway.request("GET", &target, &[], "").await;
        (answer.status != 202).then_some(answer)
    })
    .await;
    assert_eq!((result.status, &*result.call_state), (200, "done"), "{result:?}");
    assert!(result.body.contains(r#""body":"hello""#), "{}", result.body);
    // No call is left, and results keep no queue.
    queue.is("empty", |queue| queue["status"]["pending"].as_u64() == Some(0)).await;
}

#[tokio::test]
async fn client_that_waits_gets_the_response_of_the_function() {
    let queue = Queue::ready("waited", "{}").await;
    queue.deploy_functions(&["fast"]).await;
    let gateway = Gateway::connect();
    let target = format!("/async-function/fast.{}?sleep=1s&status=201", queue.name());
    let answer = until_in(PODS, "the response in time", async || {
        let answer = gateway.request("POST", &target, &[("Prefer", "wait=8")], "hello").await;
        // On a busy machine the call may take longer.
        (answer.status != 202).then_some(answer)
    })
    .await;
    assert_eq!((answer.status, &*answer.call_state), (201, "done"), "{answer:?}");
}

#[tokio::test]
async fn delayed_call_is_counted_and_runs_when_it_is_due() {
    let queue = Queue::ready("delayed", "{}").await;
    queue.deploy_functions(&["fast", "callbacks"]).await;
    let gateway = Gateway::connect();
    let callback = format!("http://callbacks.{}:8080/callback/", queue.name());
    let delay = format!("{}s", DELAY.as_secs());
    let headers = [("X-Delay", &*delay), ("X-Callback-Url", &callback)];
    let target = format!("/async-function/fast.{}", queue.name());
    let submitted = Instant::now();
    let call = gateway.request("POST", &target, &headers, "hello").await;
    assert_eq!(call.status, 202, "{call:?}");
    let number = |queue: &Value, name: &str| queue["status"][name].as_u64();
    let counted =
        queue.is("one scheduled call", |queue| number(queue, "scheduled") == Some(1)).await;
    assert_eq!(number(&counted, "pending"), Some(0), "{counted}");
    let status =
        gateway.request("GET", &format!("/async-function/{}", call.call_id), &[], "").await;
    assert!(status.body.contains(r#""state":"scheduled""#), "{}", status.body);
    gateway.callback(queue.name(), &call.call_id).await;
    assert!(submitted.elapsed() >= DELAY, "it ran too early");
    queue.is("no scheduled call", |queue| number(queue, "scheduled").is_none_or(|n| n == 0)).await;
}

#[tokio::test]
async fn batch_has_one_callback_for_all_calls() {
    let queue = Queue::ready("batch", "{}").await;
    queue.deploy_functions(&["fast", "callbacks"]).await;
    let gateway = Gateway::connect();
    let function = format!("fast.{}", queue.name());
    let lines = ["status=200", "status=404", "sleep=2s"]
        .map(|query| json!({"function": function, "query": query}).to_string());
    let callback = format!("http://callbacks.{}:8080/callback/", queue.name());
    // The cluster outlives the test.
    let id = format!("{}-batch", queue.name());
    let headers = [("X-Batch-Id", &*id), ("X-Callback-Url", &callback)];
    let answer = gateway.request("POST", "/async-batch", &headers, &lines.join("\n")).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let received = gateway.callback(queue.name(), &id).await;
    assert_eq!(received["headers"]["x-batch-id"], *id, "{received}");
    let report: Value = serde_json::from_str(received["body"].as_str().unwrap()).unwrap();
    assert_eq!((&report["state"], &report["total"]), (&json!("ended"), &json!(3)));
    assert_eq!((&report["counts"]["done"], &report["counts"]["failed"]), (&json!(2), &json!(1)));
    let status = gateway.request("GET", &format!("/async-batch/{id}"), &[], "").await;
    assert_eq!(serde_json::from_str::<Value>(&status.body).unwrap(), report);
}
