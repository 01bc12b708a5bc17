//! The gateway under load and among failures: bounded, honest, and without a call lost.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use test_support::{raw, wait::until};

use crate::{
    gateway::{Gateway, calls},
    support::Queue,
};

const POST: &str = "POST /async-function/figlet HTTP/1.1\r\nHost: g\r\n";

/// Waits until as many calls are on their way to NATS.
async fn publishing(gateway: &Gateway, calls: u64) {
    until("the calls are on their way", async || {
        (gateway.metric("gateway_publishes_in_flight").await == calls).then_some(())
    })
    .await;
}

#[tokio::test]
async fn more_calls_than_may_be_on_their_way_are_refused_at_once() {
    let queue = Queue::start().await;
    let gateway =
        Gateway::before(&queue, &[("max_publishing", "2"), ("publish_timeout", "20s")]).await;
    queue.nats.pause().await;
    let mut waiting = [gateway.connect().await, gateway.connect().await];
    for connection in &mut waiting {
        connection.send(format!("{POST}Content-Length: 2\r\n\r\nhi")).await;
    }
    publishing(&gateway, 2).await;
    let answer = gateway.call("POST", "/async-function/figlet", &[], "hi").await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, "1"));
    assert!(
        answer.text().contains("limit of 2 concurrent publishes to NATS reached"),
        "{}",
        answer.text()
    );
    queue.nats.resume();
    // Nothing was said before the word of the stream, and now it is.
    for connection in &mut waiting {
        assert_eq!(connection.response().await.status, 202);
    }
    gateway.submit(&[], "hi").await;
    assert_eq!(gateway.metric(r#"gateway_submissions_total{outcome="busy"}"#).await, 1);
    assert_eq!(calls(&queue).await.len(), 3);
}

#[tokio::test]
async fn bodies_take_no_more_memory_than_they_may() {
    const BODY: usize = 900 << 10;
    let queue = Queue::start().await;
    // Half of it is for connections.
    let gateway = Gateway::before(&queue, &[("memory_budget", "16Mi")]).await;
    let used = || gateway.metric(r#"gateway_memory_used_bytes{use="calls"}"#);
    let mut slow = Vec::new();
    for _ in 0..8 {
        let before = used().await;
        let mut connection = gateway.connect().await;
        connection
            .send(format!("{POST}Content-Length: {}\r\n\r\n{}", BODY + 1, "x".repeat(BODY)))
            .await;
        slow.push(connection);
        until("the slow body is held", async || {
            (used().await >= before + BODY as u64).then_some(())
        })
        .await;
    }
    let refused = gateway.call("POST", "/async-function/figlet", &[], "x".repeat(BODY)).await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, "1"));
    assert!(refused.text().contains("memory_budget is 16Mi"), "{}", refused.text());
    assert!(gateway.metric(r#"gateway_memory_refusals_total{use="calls"}"#).await > 0);
    gateway.program.logged("no memory for calls: raise memory_budget").await;
    // What fits is accepted at the same time, and the slow ones too once they are whole.
    gateway.submit(&[], "small").await;
    for connection in &mut slow {
        connection.send("y").await;
        assert_eq!(connection.response().await.status, 202);
    }
    until("the memory is free again", async || (used().await == 0).then_some(())).await;
    gateway.submit(&[], &"x".repeat(BODY)).await;
}

#[tokio::test]
async fn calls_that_wait_in_the_client_of_nats_hold_their_memory() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[("publish_timeout", "100ms")]).await;
    let used = || gateway.metric(r#"gateway_memory_used_bytes{use="calls"}"#);
    queue.nats.pause().await;
    for _ in 0..10 {
        let answer =
            gateway.call("POST", "/async-function/figlet", &[], "x".repeat(900 << 10)).await;
        assert_eq!(answer.status, 503, "{}", answer.text());
    }
    // Their requests have ended, but the messages have not.
    assert!(used().await > 1 << 20, "{}", used().await);
    queue.nats.resume();
    until("the memory is free again", async || (used().await == 0).then_some(())).await;
}

#[tokio::test]
async fn call_without_nats_is_refused_at_once_until_it_returns() {
    let mut queue = Queue::start().await;
    // The answer is not the one after the timeout.
    let gateway = Gateway::before(&queue, &[("publish_timeout", "1h")]).await;
    queue.nats.kill();
    gateway.program.logged("disconnected from NATS").await;
    // Before the body: a client that asked need not send it.
    let mut connection = gateway.connect().await;
    connection.send(format!("{POST}Content-Length: 2\r\nExpect: 100-continue\r\n\r\n")).await;
    let answer = connection.response().await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, "5"));
    assert!(answer.text().contains("NATS is not available"), "{}", answer.text());
    assert!(!answer.header("x-call-id").is_empty());
    assert_eq!(gateway.call("GET", "/readyz", &[], "").await.status, 503);
    assert_eq!(gateway.call("GET", "/healthz", &[], "").await.status, 200);
    queue.nats.run().await;
    until("it takes calls again", async || {
        let answer = gateway.call("POST", "/async-function/figlet", &[], "hi").await;
        (answer.status == 202).then_some(())
    })
    .await;
    assert_eq!(gateway.metric("gateway_nats_reconnect_total").await, 1);
}

#[tokio::test]
async fn accepted_calls_survive_repeated_kills_of_nats_at_full_rate() {
    const RESTARTS: usize = 5;
    const CLIENTS: usize = 32;
    const CALLS_BETWEEN: usize = 500;
    let mut queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[("publish_timeout", "2s")]).await;
    let stop = Arc::new(AtomicBool::new(false));
    let accepted = Arc::new(Mutex::new(HashSet::new()));
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        let (stop, accepted, mut connection) =
            (stop.clone(), accepted.clone(), gateway.connect().await);
        clients.spawn(async move {
            for call in 0.. {
                // Some with ids of their own, which are repeated until they are taken.
                let id = format!("client-{client}-{call}");
                let own =
                    if client % 2 == 0 { format!("X-Call-Id: {id}\r\n") } else { String::new() };
                let request = format!("{POST}{own}Content-Length: {}\r\n\r\n{id}", id.len());
                while !stop.load(Ordering::SeqCst) {
                    connection.send(&request).await;
                    let answer = connection.response().await;
                    match answer.status {
                        202 => {
                            accepted.lock().unwrap().insert(answer.header("x-call-id").to_owned());
                            break;
                        }
                        503 => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
                        other => panic!("{other}: {}", answer.text()),
                    }
                }
                if stop.load(Ordering::SeqCst) {
                    return;
                }
            }
        });
    }
    let taken = || accepted.lock().unwrap().len();
    for _ in 0..RESTARTS {
        let before = taken();
        until("more calls are taken", async || (taken() >= before + CALLS_BETWEEN).then_some(()))
            .await;
        queue.nats.restart().await;
    }
    let before = taken();
    until("calls are taken again", async || (taken() >= before + CALLS_BETWEEN).then_some(()))
        .await;
    stop.store(true, Ordering::SeqCst);
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    let stored: Vec<String> =
        calls(&queue).await.into_iter().map(|call| call.call_id.to_string()).collect();
    let distinct: HashSet<String> = stored.iter().cloned().collect();
    assert_eq!(stored.len(), distinct.len(), "a call is stored twice");
    let lost: Vec<_> = accepted.lock().unwrap().difference(&distinct).cloned().collect();
    assert!(lost.is_empty(), "{} of {} are lost: {lost:?}", lost.len(), taken());
}

#[tokio::test]
async fn sigterm_finishes_open_requests_and_ends_readiness() {
    let queue = Queue::start().await;
    let mut gateway = Gateway::before(&queue, &[("publish_timeout", "20s")]).await;
    queue.nats.pause().await;
    let mut begun = gateway.connect().await;
    begun.send(format!("{POST}Content-Length: 2\r\n\r\nhi")).await;
    publishing(&gateway, 1).await;
    gateway.program.signal("TERM");
    let readiness = until("it is not ready any more", async || {
        let answer = raw::request(gateway.metrics_addr, "GET", "/readyz", &[], b"").await;
        (answer.status == 503).then_some(answer)
    })
    .await;
    assert!(readiness.text().contains("serving: shutting down"), "{}", readiness.text());
    queue.nats.resume();
    let answer = begun.response().await;
    assert_eq!((answer.status, answer.header("connection")), (202, "close"));
    assert!(gateway.program.ended().await.success());
    assert_eq!(calls(&queue).await.len(), 1);
}

#[tokio::test]
async fn requests_are_logged_if_asked_for_and_without_anything_secret() {
    let queue = Queue::start().await;
    let secrets =
        [("authorization", "Bearer s3cret"), ("x-callback-url", "http://u:s3cret@h/?s3cret")];
    let target = "/async-function/figlet/p?token=s3cret";
    let silent = Gateway::before(&queue, &[("RUST_LOG", "debug")]).await;
    let answer = silent.call("POST", target, &secrets, "s3cret").await;
    silent.program.logged(answer.header("x-call-id")).await;
    assert!(!silent.program.log().iter().any(|line| line.contains("/async-function/figlet/p")));

    let gateway = Gateway::before(&queue, &[("RUST_LOG", "debug"), ("access_log", "true")]).await;
    let answer = gateway.call("POST", target, &secrets, "s3cret").await;
    let line = gateway.program.logged(" request ").await;
    for part in [
        "method=POST",
        r#"path="/async-function/figlet/p""#,
        "status=202",
        answer.header("x-call-id"),
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
    for program in [&silent.program, &gateway.program] {
        assert!(!program.log().iter().any(|line| line.contains("s3cret")));
    }
}

#[tokio::test]
async fn the_gateway_counts_its_requests() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    gateway.submit(&[], "hi").await;
    gateway.call("POST", "/async-function/figlet", &[("x-call-id", "a.b")], "hi").await;
    gateway.call("GET", "/async-function/unknown", &[], "").await;
    for (name, expected) in [
        (r#"http_requests_total{method="POST",path="/async-function",status="202"}"#, 1),
        (r#"http_requests_total{method="POST",path="/async-function",status="400"}"#, 1),
        (r#"gateway_submissions_total{outcome="stored"}"#, 1),
        (r#"gateway_submissions_total{outcome="call_id"}"#, 1),
        (r#"gateway_lookups_total{operation="status",outcome="unknown_call"}"#, 1),
        ("gateway_submit_duration_seconds_count", 1),
        ("gateway_publishes_in_flight", 0),
        ("gateway_nats_reconnect_total", 0),
    ] {
        assert_eq!(gateway.metric(name).await, expected, "{name}");
    }
}
