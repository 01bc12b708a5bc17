//! Functions that are scaled to zero: their calls wait without an attempt, and others run.

use async_nats::jetstream::kv;
use asyncqueue::{
    CallId, FunctionName, buckets, directory::MARKER, directory::store::DirectoryStore,
};
use test_support::{
    http::HttpServer,
    loopback::free_port,
    program::Program,
    raw,
    wait::{WAIT_TIMEOUT, until},
};

use crate::{gateway::Gateway, support::Queue};

const AT_ZERO: &str = r#"{"scaledToZero":true}"#;
/// As an earlier operator writes it.
const HAS_PODS: &str = "{}";

/// A queue with a directory that has the function `figlet`.
struct Stage {
    queue: Queue,
    bucket: kv::Store,
}

impl Stage {
    async fn set(figlet: &str) -> Self {
        let queue = Queue::start().await;
        DirectoryStore::open(&queue.js, 1).await.unwrap();
        let bucket = queue.js.get_key_value(buckets::DIRECTORY.name).await.unwrap();
        let stage = Self { queue, bucket };
        stage.write(figlet).await;
        stage.bucket.put(MARKER, "{}".into()).await.unwrap();
        stage
    }

    /// Writes the entry of `figlet` as an operator does.
    async fn write(&self, figlet: &str) {
        self.bucket.put("function.openfaas-fn.figlet", figlet.to_owned().into()).await.unwrap();
    }

    /// Waits until the call was put off so many times.
    async fn put_off(&self, worker: &Program, call: &CallId, times: usize) {
        let what = format!("the call is put off {times} times");
        until(&what, async || {
            let log = worker.log();
            let lines = log.iter().filter(|line| {
                line.contains(call.as_str()) && line.contains("figlet is scaled to zero")
            });
            (lines.count() >= times).then_some(())
        })
        .await;
    }

    /// The number of writes to the record of attempts.
    async fn records(&self) -> u64 {
        let stream = buckets::ATTEMPT_OFFSETS.stream();
        self.queue.info(&stream).await.state.last_sequence
    }
}

#[tokio::test]
async fn a_function_at_zero_takes_no_attempt_until_it_is_scaled_up() {
    let stage = Stage::set(AT_ZERO).await;
    let function = HttpServer::start().await;
    let admin = format!("127.0.0.1:{}", free_port());
    let settings = [("http_addr", admin.as_str()), ("max_retry_attempts", "2")];
    let worker = stage.queue.worker(&function, &settings);
    let call = stage.queue.submit(|_| {}).await;
    stage.put_off(&worker, &call, 4).await;
    let text = raw::request(admin.parse().unwrap(), "GET", "/metrics", &[], b"").await.text();
    let counted = r#"queue_worker_calls_put_off_total{queue_name="jobs",reason="scaled_to_zero"} "#;
    let count = text.lines().find_map(|line| line.strip_prefix(counted)).unwrap();
    assert!(count.parse::<u64>().unwrap() >= 4, "{count}");
    assert_eq!(stage.records().await, 1, "one record, however often it is put off");

    // The next worker goes on where this one was.
    drop(worker);
    let worker = stage.queue.worker(&function, &settings);
    stage.put_off(&worker, &call, 1).await;
    assert_eq!(function.received().len(), 0);
    stage.write(HAS_PODS).await;
    let invoked = &function.receives(1).await[0];
    assert_eq!((invoked.header("x-retry"), invoked.header("x-retry-max")), ("1", "2"));
    stage.queue.empties().await;
    assert_eq!(stage.records().await, 2, "the record that attempts count again");
}

#[tokio::test]
async fn other_functions_run_while_one_is_at_zero() {
    const AT_ZERO_CALLS: usize = 200;
    const OTHER_CALLS: usize = 100;
    let stage = Stage::set(AT_ZERO).await;
    let function = HttpServer::start().await;
    let worker = stage.queue.worker(&function, &[("max_inflight", "2")]);
    for _ in 0..AT_ZERO_CALLS {
        stage.queue.submit(|_| {}).await;
    }
    for _ in 0..OTHER_CALLS {
        let other = FunctionName::new("other", "openfaas-fn").unwrap();
        stage.queue.submit(|call| call.function = other).await;
    }
    function.receives(OTHER_CALLS).await;
    stage.queue.holds("jobs", AT_ZERO_CALLS as u64).await;
    assert_eq!(function.received().len(), OTHER_CALLS);
    // At info level, the function is named once a minute.
    let named = worker.log().iter().filter(|line| line.contains("its calls are put off")).count();
    assert_eq!(named, 1);
}

#[tokio::test]
async fn a_call_that_is_put_off_says_why_and_is_cancelled() {
    let stage = Stage::set(AT_ZERO).await;
    let function = HttpServer::start().await;
    let _worker = stage.queue.worker(&function, &[]);
    let gateway = Gateway::before(&stage.queue, &[]).await;
    let id = gateway.submit(&[], "hi").await;
    let path = format!("/async-function/{id}");
    let status = until("the call waits", async || {
        let answer = gateway.call("GET", &path, &[], "").await;
        let status: serde_json::Value = serde_json::from_slice(&answer.body).ok()?;
        (status["state"] == "waiting").then_some(status)
    })
    .await;
    assert_eq!(status["lastError"], "the function is scaled to zero");
    assert!(status["notCountedUntil"].is_string(), "{status}");
    assert_eq!(gateway.call("DELETE", &path, &[], "").await.status, 202);
    stage.queue.empties().await;
    assert_eq!(function.received().len(), 0);
}

#[tokio::test]
async fn a_gateway_is_asked_for_a_function_at_zero() {
    let stage = Stage::set(AT_ZERO).await;
    // It scales the function up, and answers when that has a pod.
    let openfaas = HttpServer::start().await;
    let _worker = stage.queue.worker(&openfaas, &[("gateway_url", &openfaas.url())]);
    stage.queue.submit(|_| {}).await;
    openfaas.receives(1).await;
    stage.queue.empties().await;
}

#[tokio::test]
async fn a_function_that_fails_after_it_was_at_zero_has_all_its_attempts() {
    let stage = Stage::set(AT_ZERO).await;
    let function = HttpServer::answering(|_| test_support::http::respond(500, "no")).await;
    let worker = stage.queue.worker(&function, &[("max_retry_attempts", "3")]);
    let call = stage.queue.submit(|_| {}).await;
    stage.put_off(&worker, &call, 3).await;
    stage.write(HAS_PODS).await;
    function.receives(1).await;
    // And once more between two attempts.
    stage.write(AT_ZERO).await;
    stage.put_off(&worker, &call, 4).await;
    stage.write(HAS_PODS).await;
    stage.queue.holds("jobs-dead", 1).await;
    let attempts: Vec<_> =
        function.received().iter().map(|call| call.header("x-retry").to_owned()).collect();
    assert_eq!(attempts, ["1", "2", "3"]);
    worker.logged_in(WAIT_TIMEOUT, "(attempt 3 of 3)").await;
}
