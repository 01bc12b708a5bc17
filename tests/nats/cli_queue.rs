//! `kubectl aq queue`: what is wrong with a queue, as NATS and the workers show it.

use asyncqueue::stream::{QueueSpec, ensure_queue};
use serde_json::Value;
use test_support::{
    http::{HttpServer, respond},
    program::{Ended, run},
    wait::until,
};

use crate::support::{Queue, callback_at};

/// Runs `kubectl aq queue`. Its kubectl knows no cluster.
async fn aq_queue(queue: &Queue, arguments: &[&str]) -> Ended {
    let arguments = [&["queue"], arguments].concat();
    let settings = [("nats_url", &*queue.nats.url()), ("KUBECONFIG", "/dev/null")];
    run("kubectl-aq", &arguments, &settings).await
}

async fn report(queue: &Queue) -> Value {
    let ended = aq_queue(queue, &["jobs", "-o", "json"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    serde_json::from_str(&ended.text()).unwrap()
}

fn names(report: &Value) -> Vec<&str> {
    let findings = report["findings"].as_array().unwrap();
    findings.iter().map(|finding| finding["name"].as_str().unwrap()).collect()
}

/// Waits until the only finding has this name, and returns its cause.
async fn finds(queue: &Queue, name: &str) -> String {
    until(name, async || {
        let report = report(queue).await;
        let cause = report["findings"][0]["cause"].as_str().map(str::to_owned);
        cause.filter(|_| names(&report) == [name])
    })
    .await
}

/// A function that does not answer.
async fn hanging() -> HttpServer {
    HttpServer::answering(|_| Box::pin(std::future::pending())).await
}

#[tokio::test]
async fn queue_that_does_not_exist_is_an_error() {
    let queue = Queue::start().await;
    let ended = aq_queue(&queue, &["other"]).await;
    assert_eq!((ended.code, ended.text().as_str()), (Some(1), ""));
    assert!(
        ended
            .stderr
            .contains("there is no queue `other` in NATS, and its AsyncQueue can't be read")
            && ended.stderr.contains("`kubectl aq queues` lists all queues"),
        "{}",
        ended.stderr
    );
}

#[tokio::test]
async fn queue_without_workers_is_diagnosed() {
    let queue = Queue::start().await;
    queue.submit(|_| {}).await;
    let text = aq_queue(&queue, &["jobs"]).await.text();
    for part in [
        "Queue:          jobs\nAsyncQueue:     not read: ",
        "\nStream:         jobs\nWorkers:        0\n",
        "\nPending:        1\n",
        "\n\nerror NoWorkers\nCause:    No worker is connected: ",
        ": 1 call and 0 callbacks must wait.\n",
        "\nRemedy:   Start a worker with queue=jobs",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
}

#[tokio::test]
async fn healthy_standalone_queue_has_no_findings() {
    let (queue, function) = (Queue::standalone().await, HttpServer::start().await);
    let _worker = queue.worker(&function, &[("ensure_stream", "true")]);
    until("the worker has created the queue and is connected", async || {
        let ended = aq_queue(&queue, &["jobs"]).await;
        let text = ended.text();
        (text.contains("\nAsyncQueue:     -\n") && text.ends_with("\n\nNothing is wrong.\n"))
            .then_some(())
    })
    .await;
    let report = report(&queue).await;
    assert_eq!((&report["workers"], &report["notRead"]), (&1.into(), &Value::Null));
}

#[tokio::test]
async fn busy_slots_are_diagnosed() {
    let (queue, function) = (Queue::start().await, hanging().await);
    let _worker = queue.worker(&function, &[("max_inflight", "1")]);
    queue.submit(|_| {}).await;
    function.receives(1).await;
    queue.submit(|_| {}).await;
    let cause = finds(&queue, "SlotsBusy").await;
    assert_eq!(cause, "All slots (1) of 1 worker are in use: 1 call must wait.");
}

#[tokio::test]
async fn suspended_queue_is_diagnosed() {
    let (queue, function) = (Queue::start().await, HttpServer::start().await);
    let suspended = QueueSpec { suspended: true, ..queue.spec.clone() };
    ensure_queue(&queue.js, &suspended, false).await.unwrap();
    let _worker = queue.worker(&function, &[]);
    queue.submit(|_| {}).await;
    let cause = finds(&queue, "Suspended").await;
    assert_eq!(cause, "The delivery of calls is paused: 1 call must wait.");
    assert!(function.received().is_empty());
}

#[tokio::test]
async fn dead_letters_are_diagnosed_with_their_reason() {
    let queue = Queue::start().await;
    let function = HttpServer::answering(|_| respond(500, "sorry")).await;
    let _worker = queue.worker(&function, &[("max_retry_attempts", "1")]);
    for _ in 0..2 {
        queue.submit(|_| {}).await;
    }
    queue.holds("jobs-dead", 2).await;
    queue.empties().await;
    let cause = finds(&queue, "DeadLetters").await;
    assert_eq!(
        cause,
        "The queue keeps 2 dead letters. The reason of 2 of the newest 2: the function answered \
         500."
    );
}

#[tokio::test]
async fn blocked_calls_are_diagnosed() {
    let (queue, function) = (Queue::start().await, HttpServer::start().await);
    let hanging = hanging().await;
    let _worker = queue.worker(&function, &[("max_inflight", "2")]);
    // One result fills the stream, and no receiver takes it.
    let mut results = queue.info("jobs-callbacks").await.config;
    results.max_messages = 1;
    queue.js.update_stream(results).await.unwrap();
    for _ in 0..2 {
        queue.submit(|call| call.callback_url = Some(callback_at(&hanging))).await;
    }
    let report = until("a call is blocked", async || {
        let report = report(&queue).await;
        (names(&report).first() == Some(&"CallsBlocked")).then_some(report)
    })
    .await;
    let finding = &report["findings"][0];
    assert_eq!(finding["severity"], "error");
    assert_eq!(
        finding["cause"],
        "Workers can't store the records that end calls: the result of 1 call (stream_full)."
    );
    assert_eq!(finding["remedy"], "Check why callbacks fail, and replay or purge dead letters.");
}
