//! Calls that are older than their queue allows when they are delivered.

use std::time::Duration;

use test_support::{
    http::{HttpServer, respond},
    loopback::free_port,
    raw,
};
use tokio::time::sleep;

use crate::{
    gateway::Gateway,
    support::{Queue, callback_at},
};

/// `limits.maxAge` of the queue, as workers have it.
const MAX_AGE: (&str, &str) = ("max_age", "2s");

async fn state(gateway: &Gateway, call: &str) -> serde_json::Value {
    let answer = gateway.call("GET", &format!("/async-function/{call}"), &[], "").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["state"].clone()
}

#[tokio::test]
async fn a_call_that_waited_too_long_expires_and_never_runs() {
    let queue = Queue::start().await;
    let (function, receiver) = (HttpServer::start().await, HttpServer::start().await);
    let gateway = Gateway::before(&queue, &[]).await;
    let url = callback_at(&receiver).as_url().to_string();
    let callback = [("x-callback-url", url.as_str())];
    let expired = gateway.submit(&callback, "old").await;
    let silent = gateway.submit(&[], "old too").await;
    let cancelled = gateway.submit(&callback, "old").await;
    let answer = gateway.call("DELETE", &format!("/async-function/{cancelled}"), &[], "").await;
    assert_eq!(answer.status, 202);
    sleep(Duration::from_millis(2_200)).await;
    let young = gateway.submit(&callback, "young").await;

    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
    let admin = format!("127.0.0.1:{}", free_port());
    let secret = ("callback_signing_secret_file", secret.path().to_str().unwrap());
    let worker = queue.worker(&function, &[MAX_AGE, secret, ("http_addr", &admin)]);
    let results = receiver.receives(3).await;
    queue.empties().await;
    queue.holds("jobs-callbacks", 0).await;
    let of = |id: &str| {
        let result = results.iter().find(|result| result.header("x-call-id") == id).unwrap();
        let event = result.header("webhook-id").rsplit('_').next().unwrap_or_default().to_owned();
        (result.header("x-function-status").to_owned(), event)
    };
    assert_eq!(of(&expired), ("504".to_owned(), "expired".to_owned()));
    assert_eq!(of(&cancelled), ("499".to_owned(), "cancelled".to_owned()));
    assert_eq!(of(&young), ("200".to_owned(), "done".to_owned()));
    assert_eq!(receiver.received().len(), 3);
    assert_eq!(
        function.received().iter().map(|call| call.body.clone()).collect::<Vec<_>>(),
        ["young"]
    );

    assert_eq!(state(&gateway, &expired).await, "expired");
    assert_eq!(state(&gateway, &silent).await, "expired");
    assert_eq!(state(&gateway, &cancelled).await, "cancelled");
    for id in [&expired, &silent] {
        let answer = gateway.call("DELETE", &format!("/async-function/{id}"), &[], "").await;
        assert_eq!(answer.status, 409);
        assert!(answer.text().contains("has expired"), "{}", answer.text());
    }
    let metrics = raw::request(admin.parse().unwrap(), "GET", "/metrics", &[], b"").await.text();
    let series = metrics.lines().find(|line| line.contains(r#"outcome="expired""#)).unwrap();
    assert!(series.ends_with(" 2"), "{series}");
    assert_eq!(queue.info("jobs-dead").await.state.messages, 0);
    worker.logged("figlet has expired").await;
}

#[tokio::test]
async fn a_call_that_waits_for_a_retry_expires() {
    let (queue, receiver) = (Queue::start().await, HttpServer::start().await);
    let function = HttpServer::answering(|_| respond(503, "no")).await;
    let settings = [MAX_AGE, ("initial_retry_wait", "2500ms"), ("max_retry_wait", "5s")];
    let _worker = queue.worker(&function, &settings);
    queue.submit(|call| call.callback_url = Some(callback_at(&receiver))).await;
    let result = receiver.receives(1).await.remove(0);
    assert_eq!(result.header("x-function-status"), "504");
    queue.empties().await;
    assert_eq!((function.received().len(), receiver.received().len()), (1, 1));
    assert_eq!(queue.info("jobs-dead").await.state.messages, 0);
}
