//! The status of a call, as its worker tells it.

use std::time::Duration;

use asyncqueue_tests::{
    http::{HttpServer, respond, respond_after},
    wait::until,
};
use serde_json::Value;

use crate::{gateway::Gateway, support::Queue};

async fn status_is(gateway: &Gateway, call: &str, state: &str) -> Value {
    until(&format!("{call} is {state}"), async || {
        let answer = gateway.call("GET", &format!("/async-function/{call}"), &[], "").await;
        (answer.status == 200).then(|| answer.json()).filter(|status: &Value| status["state"] == state)
    })
    .await
}

#[tokio::test]
async fn a_running_call_is_told_with_its_worker_and_attempt() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    let function = HttpServer::answering(|_| respond_after(Duration::from_secs(60), 200, "ok")).await;
    let _worker = queue.worker(&function, &[("HOSTNAME", "worker-1")]);
    let id = gateway.submit(&[], "hi").await;
    let status = status_is(&gateway, &id, "running").await;
    assert_eq!(
        (&status["worker"], &status["attempt"], &status["maxAttempts"]),
        (&"worker-1".into(), &1.into(), &10.into())
    );
}

#[tokio::test]
async fn a_call_between_two_attempts_is_told_with_the_time_of_the_next() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    let function = HttpServer::answering(|_| respond(503, "no")).await;
    let settings = [("initial_retry_wait", "1m"), ("max_retry_wait", "1m"), ("max_retry_attempts", "2")];
    let _worker = queue.worker(&function, &settings);
    let id = gateway.submit(&[], "hi").await;
    let status = status_is(&gateway, &id, "waiting").await;
    assert_eq!(status["attempt"], 1);
    assert!(status["nextAttempt"].as_str().unwrap() > status["submittedAt"].as_str().unwrap());
}

#[tokio::test]
async fn a_dead_call_is_told_with_its_reason() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    let function = HttpServer::answering(|_| respond(500, "no")).await;
    let _worker = queue.worker(&function, &[("max_retry_attempts", "1")]);
    let id = gateway.submit(&[], "hi").await;
    let status = status_is(&gateway, &id, "dead").await;
    assert_eq!((&status["status"], &status["attempt"]), (&500.into(), &1.into()));
    assert_eq!(status["reason"], "the function answered 500 (attempt 1 of 1)");
}
