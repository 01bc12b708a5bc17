//! The status of a call, as its worker reports it.

use std::time::Duration;

use serde_json::Value;
use test_support::{
    http::{HttpServer, respond, respond_after},
    loopback::free_port,
    program::run,
    wait::until,
};

use crate::{gateway::Gateway, support::Queue};

async fn status_is(gateway: &Gateway, call: &str, state: &str) -> Value {
    until(&format!("{call} is {state}"), async || {
        let answer = gateway.call("GET", &format!("/async-function/{call}"), &[], "").await;
        (answer.status == 200)
            .then(|| answer.json())
            .filter(|status: &Value| status["state"] == state)
    })
    .await
}

#[tokio::test]
async fn status_of_a_running_call_has_worker_and_attempt() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    let function =
        HttpServer::answering(|_| respond_after(Duration::from_secs(60), 200, "ok")).await;
    let _worker = queue.worker(&function, &[("HOSTNAME", "worker-1")]);
    let id = gateway.submit(&[], "hi").await;
    let status = status_is(&gateway, &id, "running").await;
    assert_eq!(
        (&status["worker"], &status["attempt"], &status["maxAttempts"]),
        (&"worker-1".into(), &1.into(), &10.into())
    );
}

#[tokio::test]
async fn a_waiting_call_says_when_it_is_retried_and_why_it_failed() {
    let failing = HttpServer::answering(|_| respond(500, "a secret in the body")).await;
    let hanging =
        HttpServer::answering(|_| respond_after(Duration::from_secs(60), 200, "late")).await;
    let gone_url = format!("http://127.0.0.1:{}", free_port());
    let settings = [
        ("initial_retry_wait", "1m"),
        ("max_retry_wait", "1m"),
        ("max_retry_attempts", "2"),
        ("upstream_timeout", "1s"),
    ];
    for (function, also, last_status, last_error) in [
        (&failing, None, 500, "the function answered 500"),
        (&failing, Some(("function_url", gone_url.as_str())), 503, "the function did not answer: "),
        (&hanging, None, 504, "the time limit was reached"),
    ] {
        // Each with a server of its own: a request of the worker before could take the call.
        let queue = Queue::start().await;
        let gateway = Gateway::before(&queue, &[]).await;
        let settings: Vec<_> = settings.into_iter().chain(also).collect();
        let _worker = queue.worker(function, &settings);
        let id = gateway.submit(&[], "hi").await;
        let status = status_is(&gateway, &id, "waiting").await;
        assert_eq!(
            (&status["attempt"], &status["lastStatus"]),
            (&1.into(), &last_status.into()),
            "{status}"
        );
        assert!(status["nextAttempt"].as_str().unwrap() > status["submittedAt"].as_str().unwrap());
        assert!(status["lastError"].as_str().unwrap().starts_with(last_error), "{status}");
        assert!(!status.to_string().contains("secret"), "{status}");
        let url = queue.nats.url();
        let shown = run("kubectl-aq", &["status", &id], &[("nats_url", &url)]).await.text();
        assert!(shown.contains("attempt 1 of 2 failed") && shown.contains(last_error), "{shown}");
    }
}
