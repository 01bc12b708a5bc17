//! What the worker keeps when things around it fail.

use std::{net::SocketAddr, time::Duration};

use asyncqueue::{directory::QueueRoute, stream::ensure_queue};
use test_support::{
    http::{HttpServer, respond, respond_after},
    loopback::free_port,
    nats::{ANSWER_TIMEOUT, NatsServer},
    raw,
    wait::until,
};

use crate::support::{LEASE, Queue, call, callback_at, spec, start_worker};

#[tokio::test]
async fn a_killed_workers_call_runs_again_within_the_lease() {
    let (queue, caller) = (Queue::start().await, HttpServer::start().await);
    let function =
        HttpServer::answering(|_| respond_after(Duration::from_millis(500), 200, "ok")).await;
    let mut first = queue.worker(&function, &[]);
    let id = queue.submit(|call| call.callback_url = Some(callback_at(&caller))).await;
    let killed = function.receives(1).await[0].at;
    first.kill();
    let _second = queue.worker(&function, &[]);
    let again = function.receives(2).await.remove(1);
    assert!(again.at - killed < LEASE * 5, "{:?}", again.at - killed);
    assert_eq!(again.header("x-call-id"), id.as_str());
    caller.receives(1).await;
    queue.empties().await;
    assert_eq!(function.received().len(), 2);
}

#[tokio::test]
async fn a_call_under_which_its_workers_die_becomes_a_dead_letter() {
    let (queue, caller) = (Queue::start().await, HttpServer::start().await);
    let function =
        HttpServer::answering(|_| respond_after(Duration::from_secs(60), 200, "ok")).await;
    let settings = [("max_retry_attempts", "2")];
    queue.submit(|call| call.callback_url = Some(callback_at(&caller))).await;
    for attempt in 1..=2 {
        let mut worker = queue.worker(&function, &settings);
        function.receives(attempt).await;
        worker.kill();
    }
    let _worker = queue.worker(&function, &settings);
    queue.holds("jobs-dead", 1).await;
    assert_eq!(caller.receives(1).await[0].header("x-function-status"), "503");
    queue.empties().await;
    assert_eq!(function.received().len(), 2);
}

#[tokio::test]
async fn sigterm_finishes_running_calls_and_accepts_no_more() {
    let (queue, caller) = (Queue::start().await, HttpServer::start().await);
    let function =
        HttpServer::answering(|_| respond_after(Duration::from_secs(1), 200, "ok")).await;
    let mut worker = queue.worker(&function, &[]);
    queue.submit(|call| call.callback_url = Some(callback_at(&caller))).await;
    queue.submit(|_| {}).await;
    function.receives(1).await;
    worker.signal("TERM");
    assert!(worker.ended().await.success());
    // The first is done, the second is not delivered to a worker.
    queue.holds("jobs", 1).await;
    assert_eq!(queue.consumer().await.cached_info().num_ack_pending, 0);
    assert_eq!(function.received().len(), 1);
    // Its result is on its way, with whichever worker comes next.
    let _next = queue.worker(&function, &[]);
    caller.receives(1).await;
    queue.empties().await;
}

#[tokio::test]
async fn calls_longer_than_the_grace_period_are_handed_back() {
    let queue = Queue::start().await;
    let function =
        HttpServer::answering(|_| respond_after(Duration::from_secs(60), 200, "ok")).await;
    let mut worker = queue.worker(&function, &[("grace_period", "200ms")]);
    queue.submit(|_| {}).await;
    function.receives(1).await;
    worker.signal("TERM");
    assert!(worker.ended().await.success());
    until("the connection is closed", async || (function.running() == 0).then_some(())).await;
    let _next = queue.worker(&function, &[]);
    let again = function.receives(2).await.remove(1);
    // Without the hand-back, the attempt would count.
    assert_eq!(again.header("x-retry"), "1");
}

#[tokio::test]
async fn a_second_sigterm_hands_back_what_runs_without_waiting() {
    let queue = Queue::start().await;
    let function =
        HttpServer::answering(|_| respond_after(Duration::from_secs(60), 200, "ok")).await;
    let mut worker = queue.worker(&function, &[]);
    queue.submit(|_| {}).await;
    function.receives(1).await;
    worker.signal("TERM");
    worker.logged("draining").await;
    worker.signal("TERM");
    worker.ended().await;
    let _next = queue.worker(&function, &[]);
    let again = function.receives(2).await.remove(1);
    assert_eq!(again.header("x-retry"), "1");
}

#[tokio::test]
async fn a_worker_that_comes_before_nats_waits_visibly_and_then_works() {
    let function = HttpServer::start().await;
    let mut nats = NatsServer::prepare();
    let admin: SocketAddr = ([127, 0, 0, 1], free_port()).into();
    let get = async |path| raw::try_request(admin, "GET", path, &[], b"").await.ok();
    let settings = [("http_addr", &*admin.to_string()), ("ensure_stream", "true")];
    let mut worker = start_worker(&nats, &function, &settings);
    worker.logged("waiting for NATS").await;
    let readiness = until("it answers", async || get("/readyz").await).await;
    assert_eq!(readiness.status, 503);
    assert!(readiness.text().contains("waiting for NATS"), "{}", readiness.text());
    assert_eq!(get("/healthz").await.unwrap().status, 200);

    nats.run().await;
    until("it is ready", async || get("/readyz").await.filter(|answer| answer.status == 200)).await;
    let js = nats.jetstream().await;
    let submitter = asyncqueue::submit::Submitter::new(js, ANSWER_TIMEOUT);
    let route = QueueRoute::with_default_names("jobs".parse().unwrap());
    submitter.submit(&call(), &route).await.unwrap();
    function.receives(1).await;
    assert!(worker.is_running());
}

#[tokio::test]
async fn nats_restart_loses_no_call_and_restarts_no_worker() {
    let (mut queue, caller) = (Queue::start().await, HttpServer::start().await);
    let function =
        HttpServer::answering(|_| respond_after(Duration::from_millis(300), 200, "ok")).await;
    let mut worker = queue.worker(&function, &[("max_inflight", "2")]);
    let mut ids = Vec::new();
    for _ in 0..6 {
        ids.push(
            queue.submit(|call| call.callback_url = Some(callback_at(&caller))).await.to_string(),
        );
    }
    function.receives(2).await;
    queue.nats.restart().await;
    ids.push(queue.submit(|call| call.callback_url = Some(callback_at(&caller))).await.to_string());
    until("every call has called back", async || {
        let received = caller.received();
        ids.iter().all(|id| received.iter().any(|r| r.header("x-call-id") == id)).then_some(())
    })
    .await;
    queue.empties().await;
    assert_eq!(caller.received().len(), ids.len(), "a call called back twice");
    assert!(worker.is_running());
}

#[tokio::test]
async fn worker_uses_a_recreated_consumer_within_seconds() {
    let (queue, function) = (Queue::start().await, HttpServer::start().await);
    let worker = queue.worker(&function, &[]);
    queue.submit(|_| {}).await;
    function.receives(1).await;
    queue.empties().await;
    queue.js.delete_consumer_from_stream(&queue.spec.durable, &queue.spec.stream).await.unwrap();
    worker.logged("waiting for the stream and its consumer").await;
    ensure_queue(&queue.js, &spec(), false).await.unwrap();
    queue.submit(|_| {}).await;
    function.receives(2).await;
    queue.empties().await;
}

#[tokio::test]
async fn a_recreated_consumer_counts_attempts_from_one() {
    let (queue, function) =
        (Queue::start().await, HttpServer::answering(|_| respond(500, "no")).await);
    let settings =
        [("initial_retry_wait", "1h"), ("max_retry_wait", "1h"), ("max_retry_attempts", "2")];
    let worker = queue.worker(&function, &settings);
    queue.submit(|_| {}).await;
    // More often than there are attempts: each new consumer delivers the call at once, as a first
    // attempt.
    for delivery in 1..=3 {
        let received = function.receives(delivery).await;
        assert_eq!(received[delivery - 1].header("x-retry"), "1");
        until("it waits for its retry", async || {
            let log = worker.log();
            let waits = log.iter().filter(|line| line.contains("retrying in 1h")).count();
            (waits == delivery).then_some(())
        })
        .await;
        assert_eq!(queue.info("jobs").await.state.messages, 1);
        queue
            .js
            .delete_consumer_from_stream(&queue.spec.durable, &queue.spec.stream)
            .await
            .unwrap();
        ensure_queue(&queue.js, &spec(), false).await.unwrap();
    }
}

#[tokio::test]
async fn calls_of_a_deleted_consumer_do_not_keep_their_slots() {
    let queue = Queue::start().await;
    let function =
        HttpServer::answering(|_| respond_after(Duration::from_secs(1), 200, "ok")).await;
    let _worker = queue.worker(&function, &[("max_inflight", "2")]);
    for _ in 0..3 {
        queue.submit(|_| {}).await;
    }
    // All slots are in use, so that nothing is asked for, and the server does not say that the
    // consumer is another.
    function.receives(2).await;
    queue.js.delete_consumer_from_stream(&queue.spec.durable, &queue.spec.stream).await.unwrap();
    ensure_queue(&queue.js, &spec(), false).await.unwrap();
    // The worker asks for calls, gets those that it already runs, and acknowledges them when they
    // have ended.
    queue.empties().await;
    assert_eq!(function.received().len(), 3);
}

#[tokio::test]
async fn a_worker_that_is_stopped_past_its_lease_does_not_call_back_twice() {
    let (queue, caller) = (Queue::start().await, HttpServer::start().await);
    let function =
        HttpServer::answering(|_| respond_after(Duration::from_secs(1), 200, "ok")).await;
    let stopped = queue.worker(&function, &[]);
    queue.submit(|call| call.callback_url = Some(callback_at(&caller))).await;
    function.receives(1).await;
    stopped.signal("STOP");
    let _other = queue.worker(&function, &[]);
    function.receives(2).await;
    caller.receives(1).await;
    stopped.signal("CONT");
    stopped.logged("Invoked figlet").await;
    queue.empties().await;
    queue.holds("jobs-callbacks", 0).await;
    assert_eq!((function.received().len(), caller.received().len()), (2, 1));
}
