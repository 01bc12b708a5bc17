//! Calls whose results are other calls, and the events that receivers get.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use asyncqueue::message::dead_letter::H_REASON;
use futures::{StreamExt, stream};
use test_support::{
    http::{Answer, HttpServer, Received, respond},
    program::run,
    raw,
};

use crate::{
    gateway::{Gateway, messages},
    support::{Queue, callback_at},
};

/// Calls in a burst, and how many clients submit them.
const BURST: usize = 3_000;
const CLIENTS: usize = 32;

/// The webhook secret of a worker: "whsec_" and base64 of 24 bytes.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// 200, with a header.
fn respond_with(name: &'static str, value: String) -> Answer {
    Box::pin(async move {
        let mut response = respond(200, "ok").await;
        response.headers_mut().insert(name, value.parse().unwrap());
        response
    })
}

#[tokio::test]
async fn a_burst_of_chains_runs_each_call_once() {
    let (queue, function) = (Queue::start().await, HttpServer::start().await);
    let gateway = Gateway::before(&queue, &[]).await;
    let _worker = queue.worker(&function, &[("max_inflight", "50"), ("RUST_LOG", "warn")]);
    let next = format!("http://{}/async-function/second/next", gateway.addr);
    let headers = [("x-callback-url", next.as_str())];
    let submits = (0..BURST).map(|_| gateway.submit(&headers, "first"));
    let submitted: BTreeSet<String> =
        stream::iter(submits).buffer_unordered(CLIENTS).collect().await;

    let received = function.receives(2 * BURST).await;
    queue.empties().await;
    queue.holds("jobs-callbacks", 0).await;
    assert_eq!((function.received().len(), submitted.len()), (2 * BURST, BURST));
    assert_eq!(
        gateway.metric(r#"gateway_submissions_total{outcome="stored"}"#).await,
        2 * BURST as u64
    );
    let metrics = raw::request(gateway.metrics_addr, "GET", "/metrics", &[], b"").await.text();
    assert!(
        !metrics.contains("outcome=\"duplicate\"") && !metrics.contains("\"409\""),
        "{metrics}"
    );

    let (first, second): (Vec<_>, Vec<_>) =
        received.iter().partition(|request| request.target == "/");
    let by_id = |requests: Vec<&Received>| -> BTreeMap<String, Received> {
        requests
            .into_iter()
            .map(|call| (call.header("x-call-id").to_owned(), call.clone()))
            .collect()
    };
    let (first, second) = (by_id(first), by_id(second));
    assert!(first.keys().eq(submitted.iter()) && second.keys().eq(submitted.iter()));
    let mut hops: Vec<Duration> = second.iter().map(|(id, call)| call.at - first[id].at).collect();
    hops.sort();
    let [p50, p99] = [50, 99].map(|percent| hops[hops.len() * percent / 100]);
    println!("{BURST} chained calls: second hop after p50 {p50:?}, p99 {p99:?}");
    for (id, call) in second {
        assert_eq!((call.target.as_str(), call.header("x-async-depth")), ("/next", "2"));
        let key = call.header("idempotency-key");
        assert!(key.starts_with(&format!("{id}_")) && key.ends_with("_done"), "{key}");
    }
}

#[tokio::test]
async fn a_chain_in_a_circle_ends_at_max_chain_depth() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[("max_chain_depth", "5")]).await;
    let again = format!("http://{}/async-function/figlet", gateway.addr);
    let function = HttpServer::answering({
        let again = again.clone();
        move |_| respond_with("x-callback-url", again.clone())
    })
    .await;
    let _worker = queue.worker(&function, &[]);
    let id = gateway.submit(&[("x-callback-url", &again)], "begin").await;
    queue.holds("jobs-dead", 1).await;
    queue.empties().await;
    queue.holds("jobs-callbacks", 0).await;

    let received = function.received();
    let depths: Vec<_> = received.iter().map(|request| request.header("x-async-depth")).collect();
    assert_eq!(depths, ["1", "2", "3", "4", "5", "6"]);
    assert!(received.iter().all(|request| request.header("x-call-id") == id));
    let keys: BTreeSet<_> =
        received.iter().map(|request| request.header("idempotency-key")).collect();
    assert_eq!(keys.len(), received.len(), "{keys:?}");
    let letter = messages(&queue, "jobs-dead").await.remove(0);
    let reason = letter.headers.get(H_REASON).unwrap().as_str();
    assert!(reason.contains("508") && reason.contains("max_chain_depth"), "{reason}");
    assert_eq!(gateway.metric(r#"gateway_submissions_total{outcome="chain_depth"}"#).await, 1);
}

#[tokio::test]
async fn a_depth_above_max_chain_depth_is_refused_with_508() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    for (depth, status) in [("0", 202), ("100", 202), ("101", 508), ("99999999999", 508)] {
        let headers = [("x-async-depth", depth)];
        let answer = gateway.call("POST", "/async-function/figlet", &headers, "hi").await;
        assert_eq!(answer.status, status, "{depth}: {}", answer.text());
        assert!(status == 202 || answer.text().contains("max_chain_depth"), "{}", answer.text());
    }
    queue.holds("jobs", 2).await;
}

#[tokio::test]
async fn a_repeat_of_a_callback_stores_no_second_call() {
    let (queue, function) = (Queue::start().await, HttpServer::start().await);
    let gateway = Gateway::before(&queue, &[]).await;
    // A proxy in between that loses the first answer.
    let posts = Arc::new(AtomicUsize::new(0));
    let addr = gateway.addr;
    let proxy = HttpServer::answering(move |request| {
        let posts = posts.clone();
        Box::pin(async move {
            let headers: Vec<_> = ["x-call-id", "idempotency-key", "x-async-depth"]
                .map(|name| (name, request.header(name).to_owned()))
                .into();
            let headers: Vec<_> =
                headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let answer = raw::request(addr, "POST", &request.target, &headers, &request.body).await;
            assert_eq!(answer.status, 202, "{}", answer.text());
            let is_first = posts.fetch_add(1, Ordering::SeqCst) == 0;
            assert_eq!(answer.header("x-call-duplicate"), if is_first { "" } else { "true" });
            respond(if is_first { 503 } else { 202 }, "").await
        })
    })
    .await;
    let _worker = queue.worker(&function, &[]);
    let next = format!("{}/async-function/second/next", proxy.url());
    let id = gateway.submit(&[("x-callback-url", &next)], "first").await;
    proxy.receives(2).await;
    let received = function.receives(2).await;
    queue.empties().await;
    queue.holds("jobs-callbacks", 0).await;
    assert_eq!(function.received().len(), 2);
    assert!(received.iter().all(|request| request.header("x-call-id") == id));
}

#[tokio::test]
async fn a_replay_that_ends_otherwise_is_another_event() {
    let queue = Queue::start().await;
    let function = HttpServer::answering(|request| match request.header("x-retry-max") {
        "1" => respond(500, "no"),
        _ => respond(200, "ok"),
    })
    .await;
    // Takes each event at the second attempt.
    let caller = HttpServer::answering({
        let posts = Arc::new(AtomicUsize::new(0));
        move |_| {
            respond(
                if posts.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) { 503 } else { 200 },
                "",
            )
        }
    })
    .await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), SECRET).unwrap();
    let signed = ("callback_signing_secret_file", file.path().to_str().unwrap());
    let failing = queue.worker(&function, &[signed, ("max_retry_attempts", "1")]);
    let id = queue.submit(|call| call.callback_url = Some(callback_at(&caller))).await;
    caller.receives(2).await;
    queue.holds("jobs-dead", 1).await;
    queue.holds("jobs-callbacks", 0).await;
    drop(failing);
    let _worker = queue.worker(&function, &[signed]);
    let replay = ["dead", "replay", "jobs", id.as_str()];
    assert_eq!(run("kubectl-aq", &replay, &[("nats_url", &queue.nats.url())]).await.code, Some(0));
    let received = caller.receives(4).await;
    queue.holds("jobs-callbacks", 0).await;

    // By the specification of Standard Webhooks, what has an id that was seen before is dropped.
    let events: Vec<_> = received.iter().map(|request| request.header("webhook-id")).collect();
    let [dead, dead_again, done, done_again] = events[..] else { panic!("{events:?}") };
    assert_eq!((dead, done), (dead_again, done_again));
    assert!(dead.starts_with(&format!("{id}_")) && dead.ends_with("_dead"), "{dead}");
    assert!(done.starts_with(&format!("{id}_")) && done.ends_with("_done"), "{done}");
    let statuses: Vec<_> =
        received.iter().map(|request| request.header("x-function-status")).collect();
    assert_eq!(statuses, ["500", "500", "200", "200"]);
}
