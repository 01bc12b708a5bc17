//! Delayed calls: they run in time and never before, whatever is killed.

use std::time::{Duration, Instant};

use asyncqueue::{
    lanes::Fairness,
    stats::request_stats,
    stream::{QueueSpec, ensure_buckets, ensure_queue},
};
use jiff::{SignedDuration, Timestamp};
use test_support::{
    http::{HttpServer, Received, respond, respond_after},
    nats::cluster::{NODES, NatsCluster},
    program::{Program, run},
    wait::{until, until_in},
};
use tokio::time::sleep;

use crate::{
    gateway::{Gateway, calls},
    support::{LEASE, Queue, callback_at, spec, start_worker},
};

/// For three servers to choose leaders, and for what waited for them.
const ELECTION: Duration = Duration::from_secs(60);

/// How late a call may be on a busy machine, if nothing fails.
const LATE: Duration = Duration::from_secs(10);

/// When a request came.
fn arrived_at(received: &Received) -> Timestamp {
    Timestamp::now() - received.at.elapsed()
}

/// Time in seconds, as `X-Delay` has it.
fn seconds(time: Duration) -> String {
    format!("{}s", time.as_secs())
}

/// The JSON of a call's status.
async fn status(gateway: &Gateway, call: &str) -> serde_json::Value {
    let answer = gateway.call("GET", &format!("/async-function/{call}"), &[], "").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// The time before which a call does not run, as its status says.
async fn not_before(gateway: &Gateway, call: &str) -> Timestamp {
    let status = status(gateway, call).await;
    assert_eq!(status["state"], "scheduled", "{status}");
    status["notBefore"].as_str().unwrap().parse().unwrap()
}

/// Waits until workers have delivered all calls of the stream.
async fn delivered(queue: &Queue) {
    until("the calls are delivered", async || {
        let info = queue.consumer().await.cached_info().clone();
        (info.num_pending == 0 && info.num_ack_pending > 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn delayed_call_runs_when_it_is_due() {
    let (queue, function) = (Queue::start().await, HttpServer::start().await);
    let gateway = Gateway::before(&queue, &[]).await;
    let worker = queue.worker(&function, &[("max_inflight", "1")]);
    let by_duration = gateway.submit(&[("x-delay", "4s")], "duration").await;
    let at = (Timestamp::now() + Duration::from_secs(3)).to_string();
    let by_time = gateway.submit(&[("x-not-before", &at)], "time").await;
    let due = [not_before(&gateway, &by_time).await, not_before(&gateway, &by_duration).await];
    worker.logged("scheduled: handed back").await;
    delivered(&queue).await;
    // It takes no slot, though the worker has one.
    gateway.submit(&[("x-not-before", "2020-01-01T00:00:00Z")], "past").await;
    gateway.submit(&[("x-delay", "0s")], "now").await;
    let first = function.receives(2).await;
    assert!(first.iter().all(|call| arrived_at(call) < due[0]), "{first:?}");

    let received = function.receives(4).await;
    for (call, due) in received[2..].iter().zip(due) {
        let late = arrived_at(call).duration_since(due);
        assert!(!late.is_negative(), "{late:?} early: {call:?}");
        assert!(late < SignedDuration::try_from(LATE).unwrap(), "{late:?} late");
        assert_eq!((call.header("x-retry"), call.header("x-delay")), ("1", ""));
        assert_eq!(call.header("x-not-before"), "");
    }
    assert_eq!(received[2].body, "time");
    queue.empties().await;
}

#[tokio::test]
async fn delay_that_is_not_valid_is_refused() {
    let queue = Queue::start().await;
    let directory = "queues: {jobs: {maxDelay: 2h, maxAge: 1h}}";
    let gateway = Gateway::start(&queue.nats, directory, &[]).await;
    gateway.is_ready().await;
    let refused = |headers: Vec<(&'static str, &'static str)>| {
        let gateway = &gateway;
        async move {
            let answer = gateway.call("POST", "/async-function/figlet", &headers, "").await;
            assert_eq!(answer.status, 400, "{headers:?}");
            answer.text()
        }
    };
    for (headers, says) in [
        (vec![("x-delay", "soon")], "X-Delay: `soon` is not a duration"),
        (vec![("x-not-before", "1795514400")], "X-Not-Before `1795514400` is not valid"),
        (vec![("x-delay", "1s"), ("x-not-before", "2036-01-01T00:00:00Z")], "send one of them"),
        (vec![("x-delay", "121m")], "limits.maxDelay of the queue is 2h"),
        (vec![("x-not-before", "2036-01-01T00:00:00Z")], "limits.maxDelay of the queue is 2h"),
        (vec![("x-delay", "61m")], "limits.maxAge of the queue is 1h"),
    ] {
        let text = refused(headers).await;
        assert!(text.contains(says), "{text}");
    }
    assert_eq!(gateway.metric("gateway_submissions_total{outcome=\"delay\"}").await, 6);
    // A header of the client with the name of the internal one is a header of the call.
    let own = [("async-not-before", "2036-01-01T00:00:00Z")];
    let call = gateway.submit(&own, "").await;
    assert_eq!(status(&gateway, &call).await["state"], "queued");
    gateway.submit(&[("x-delay", "59m")], "").await;
    let stored = calls(&queue).await;
    assert_eq!(stored[0].not_before, None);
    assert!(stored[1].not_before.unwrap() > Timestamp::now() + Duration::from_secs(3000));
}

#[tokio::test]
async fn repeat_of_a_delayed_call_keeps_its_time() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    let call = gateway.submit(&[("x-call-id", "order-7"), ("x-delay", "1h")], "hi").await;
    let due = not_before(&gateway, &call).await;
    let repeat = [("x-call-id", "order-7"), ("x-delay", "2h")];
    let answer = gateway.call("POST", "/async-function/figlet", &repeat, "hi").await;
    assert_eq!((answer.status, answer.header("x-call-duplicate")), (202, "true"));
    assert_eq!(not_before(&gateway, &call).await, due);
}

#[tokio::test]
async fn delayed_call_is_cancelled_at_once() {
    let (queue, receiver) = (Queue::start().await, HttpServer::start().await);
    let function = HttpServer::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    let mut worker = queue.worker(&function, &[]);
    let url = callback_at(&receiver).as_url().to_string();
    let call = gateway.submit(&[("x-delay", "5s"), ("x-callback-url", &url)], "").await;
    delivered(&queue).await;
    // No worker says that it does not start.
    worker.kill();
    let answer = gateway.call("DELETE", &format!("/async-function/{call}"), &[], "").await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert_eq!(status(&gateway, &call).await["state"], "cancelled");
    let _worker = queue.worker(&function, &[]);
    let result = receiver.receives(1).await.remove(0);
    assert_eq!(result.header("x-function-status"), "499");
    sleep(Duration::from_secs(6)).await;
    assert_eq!((function.received().len(), receiver.received().len()), (0, 1));
    queue.empties().await;
}

#[tokio::test]
async fn attempts_of_a_delayed_call_begin_when_it_is_due() {
    let queue = Queue::start().await;
    let function = HttpServer::answering(|_| respond(503, "no")).await;
    let gateway = Gateway::before(&queue, &[]).await;
    let settings = [("max_retry_attempts", "3"), ("RUST_LOG", "info,asyncqueue_worker=debug")];
    let mut first = queue.worker(&function, &settings);
    let delay = LEASE * 2 + Duration::from_secs(2);
    let call = gateway.submit(&[("x-delay", &seconds(delay))], "").await;
    let due = not_before(&gateway, &call).await;
    delivered(&queue).await;
    // The next ones get it when it is due, from its stream alone.
    first.kill();
    let _workers = [queue.worker(&function, &settings), queue.worker(&function, &settings)];
    queue.holds("jobs-dead", 1).await;
    let received = function.received();
    let attempts: Vec<_> = received.iter().map(|call| call.header("x-retry")).collect();
    assert_eq!(attempts, ["1", "2", "3"]);
    assert!(arrived_at(&received[0]) >= due);
    queue.empties().await;
}

#[tokio::test]
async fn crash_of_a_worker_in_a_delayed_call_is_an_attempt() {
    let queue = Queue::start().await;
    let function = HttpServer::answering(|_| respond_after(LEASE * 20, 200, "")).await;
    let gateway = Gateway::before(&queue, &[]).await;
    let settings = [("max_retry_attempts", "2")];
    gateway.submit(&[("x-delay", "2s")], "").await;
    for number in 1..=2 {
        let mut worker = queue.worker(&function, &settings);
        let received = function.receives(number).await;
        assert_eq!(received[number - 1].header("x-retry"), number.to_string());
        worker.kill();
    }
    let _worker = queue.worker(&function, &settings);
    queue.holds("jobs-dead", 1).await;
    assert_eq!(function.received().len(), 2);
}

#[tokio::test]
async fn no_call_is_early_after_kills_of_workers_and_server() {
    let (mut queue, function) = (Queue::start().await, HttpServer::start().await);
    let gateway = Gateway::before(&queue, &[]).await;
    let settings = [("max_inflight", "4")];
    let mut worker = queue.worker(&function, &settings);
    let mut due = Vec::new();
    for number in 0..20 {
        let delay = format!("{}ms", 12_000 + number * 50);
        let call = gateway.submit(&[("x-delay", &delay)], &number.to_string()).await;
        due.push(not_before(&gateway, &call).await);
    }
    delivered(&queue).await;
    worker.kill();
    queue.nats.restart().await;
    let _workers = [queue.worker(&function, &settings), queue.worker(&function, &settings)];
    let received = until_in(ELECTION, "all calls run", async || {
        Some(function.received()).filter(|received| received.len() >= due.len())
    })
    .await;
    for call in &received {
        let number: usize = std::str::from_utf8(&call.body).unwrap().parse().unwrap();
        let late = arrived_at(call).duration_since(due[number]);
        assert!(!late.is_negative(), "{number}: {late:?}");
        assert_eq!(call.header("x-retry"), "1");
    }
    queue.empties().await;
    assert_eq!(function.received().len(), due.len());
}

#[tokio::test]
async fn no_call_is_early_after_the_loss_of_a_leader() {
    let mut cluster = NatsCluster::start().await;
    let js = cluster.jetstream().await;
    let spec = QueueSpec { replicas: NODES, ..spec() };
    until_in(ELECTION, "the queue is there", async || {
        ensure_buckets(&js, NODES).await.ok()?;
        ensure_queue(&js, &spec, false).await.ok()
    })
    .await;
    let url = cluster.url();
    let gateway = Gateway::start_at(&url, "queues: {jobs: }", &[]).await;
    gateway.is_ready().await;
    let function = HttpServer::start().await;
    let settings = [("nats_url", url.as_str()), ("max_inflight", "4")];
    let worker: Program = start_worker(cluster.node(0), &function, &settings);
    worker.logged("taking calls").await;
    let started = Instant::now();
    let mut due = Vec::new();
    for number in 0..20 {
        let call = gateway.submit(&[("x-delay", "15s")], &number.to_string()).await;
        due.push(not_before(&gateway, &call).await);
    }
    until("the calls are delivered", async || {
        let info = js.get_stream("jobs").await.ok()?.consumer_info("jobs-workers").await.ok()?;
        (info.num_pending == 0).then_some(())
    })
    .await;
    let leader = cluster.stream_leader(&js, "jobs").await;
    cluster.node(leader).kill();
    assert!(started.elapsed() < Duration::from_secs(15), "the machine is too busy");
    let received = until_in(ELECTION * 2, "all calls run", async || {
        Some(function.received()).filter(|received| received.len() >= due.len())
    })
    .await;
    for call in &received {
        let number: usize = std::str::from_utf8(&call.body).unwrap().parse().unwrap();
        assert!(arrived_at(call) >= due[number], "{number} is early");
    }
}

#[tokio::test]
async fn delayed_call_keeps_its_time_when_the_fairness_changes() {
    let (queue, function) = (Queue::start().await, HttpServer::start().await);
    let gateway = Gateway::before(&queue, &[]).await;
    let worker = queue.worker(&function, &[]);
    let call = gateway.submit(&[("x-delay", "12s")], "later").await;
    let due = not_before(&gateway, &call).await;
    delivered(&queue).await;
    let (forgotten, _) = queue.change_fairness(Fairness::Function).await;
    assert_eq!(forgotten, 0, "it has no attempts");
    drop(worker);
    let functions = format!("{}/{{function}}", function.url());
    let _worker = queue.worker(&function, &[("function_url", &functions)]);
    let received = until_in(ELECTION, "the call runs", async || {
        Some(function.received()).filter(|received| !received.is_empty())
    })
    .await;
    assert!(arrived_at(&received[0]) >= due);
    assert_eq!(received[0].header("x-retry"), "1");
    queue.empties().await;
}

#[tokio::test]
async fn due_call_of_a_suspended_queue_runs_when_it_is_resumed() {
    let (queue, function) = (Queue::start().await, HttpServer::start().await);
    let gateway = Gateway::before(&queue, &[]).await;
    let _worker = queue.worker(&function, &[]);
    gateway.submit(&[("x-delay", "3s")], "").await;
    delivered(&queue).await;
    let suspend = async |suspended| {
        let spec = QueueSpec { suspended, ..queue.spec.clone() };
        ensure_queue(&queue.js, &spec, false).await.unwrap();
    };
    suspend(true).await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(function.received().len(), 0);
    suspend(false).await;
    assert_eq!(function.receives(1).await[0].header("x-retry"), "1");
    queue.empties().await;
}

#[tokio::test]
async fn scheduled_calls_are_counted_apart() {
    let (queue, function) = (Queue::start().await, HttpServer::start().await);
    let gateway = Gateway::before(&queue, &[]).await;
    let _worker = queue.worker(&function, &[]);
    let mut calls = Vec::new();
    for number in 0..3 {
        calls.push(gateway.submit(&[("x-delay", "1h")], &number.to_string()).await);
    }
    let scheduled = async |wanted: u64| {
        until("the worker reports its scheduled calls", async || {
            let name = queue.spec.queue.clone();
            let mut workers =
                request_stats(&queue.js.client(), std::slice::from_ref(&name)).await.ok()?;
            (workers.remove(&name)?.scheduled() == wanted).then_some(())
        })
        .await;
    };
    scheduled(3).await;
    let listed =
        run("kubectl-aq", &["queues", "-o", "json"], &[("nats_url", &queue.nats.url())]).await;
    let listed: serde_json::Value = serde_json::from_str(&listed.text()).unwrap();
    let of = |field: &str| listed[0][field].as_u64().unwrap();
    assert_eq!((of("scheduled"), of("pending"), of("retrying")), (3, 0, 0), "{listed}");
    let answer = gateway.call("DELETE", &format!("/async-function/{}", calls[0]), &[], "").await;
    assert_eq!(answer.status, 202);
    scheduled(2).await;
}
