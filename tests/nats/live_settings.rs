//! Settings of a queue that change in the directory while its worker runs calls.

use std::{collections::HashSet, time::Duration};

use async_nats::jetstream::kv;
use asyncqueue::{
    buckets,
    directory::{MARKER, store::DirectoryStore},
    stats::{WorkerStats, stats_subject},
};
use futures::StreamExt;
use test_support::{
    http::{HttpServer, respond, respond_after},
    loopback::free_port,
    raw,
    wait::{WAIT_TIMEOUT, until},
};
use tokio::time::{Instant, sleep, timeout};

use crate::support::Queue;

/// Between two looks at the function.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A queue with a directory.
struct Stage {
    queue: Queue,
    bucket: kv::Store,
}

impl Stage {
    async fn set() -> Self {
        let queue = Queue::start().await;
        DirectoryStore::open(&queue.js, 1).await.unwrap();
        let bucket = queue.js.get_key_value(buckets::DIRECTORY.name).await.unwrap();
        bucket.put(MARKER, "{}".into()).await.unwrap();
        Self { queue, bucket }
    }

    /// Writes the entry of the queue as an operator does, with these settings in JSON.
    async fn write(&self, settings: &str) {
        let entry = format!(r#"{{"stream":"jobs","subject":"jobs","settings":{settings}}}"#);
        self.bucket.put("queue.jobs", entry.into()).await.unwrap();
    }
}

#[tokio::test]
async fn max_inflight_changes_while_calls_run() {
    const CALLS: usize = 60;
    let stage = Stage::set().await;
    stage.write(r#"{"maxInflight":1}"#).await;
    let takes = Duration::from_millis(500);
    let function = HttpServer::answering(move |_| respond_after(takes, 200, "ok")).await;
    // The directory wins over the worker's own setting.
    let worker = stage.queue.worker(&function, &[("max_inflight", "9")]);
    let client = stage.queue.js.client();
    let mut statistics = client.subscribe(stats_subject(&stage.queue.spec.queue)).await.unwrap();
    for _ in 0..CALLS {
        stage.queue.submit(|_| {}).await;
    }
    function.receives(4).await;
    assert_eq!(function.most_running(), 1);

    stage.write(r#"{"maxInflight":5}"#).await;
    until("five calls run", async || (function.running() == 5).then_some(())).await;
    let log = worker.logged("settings changed: maxInflight 1 -> 5").await;
    assert!(log.contains("jobs"), "{log}");
    let reported = async {
        loop {
            let message = statistics.next().await.unwrap();
            let stats: WorkerStats = serde_json::from_slice(&message.payload).unwrap();
            if stats.max_inflight == 5 {
                break;
            }
        }
    };
    timeout(WAIT_TIMEOUT, reported).await.expect("the statistics have the new limit");
    function.receives(20).await;

    stage.write(r#"{"maxInflight":2}"#).await;
    worker.logged("settings changed: maxInflight 5 -> 2").await;
    sleep(Duration::from_millis(100)).await;
    let mut before = function.running();
    until("all calls have run", async || {
        let running = function.running();
        assert!(running <= before.max(2), "{running} run after {before}: no room for another");
        before = running;
        sleep(LOOK_EVERY).await;
        (function.received().len() == CALLS && running == 0).then_some(())
    })
    .await;
    stage.queue.empties().await;
    assert_eq!(function.most_running(), 5);
    // No running call was disturbed: each ran once, and none was handed back.
    let calls = function.received();
    let ids: HashSet<_> = calls.iter().map(|call| call.header("x-call-id").to_owned()).collect();
    assert_eq!((ids.len(), calls.len()), (CALLS, CALLS));
    assert!(calls.iter().all(|call| call.header("x-retry") == "1"));
    assert!(worker.log().iter().all(|line| !line.contains("redelivered")));
}

#[tokio::test]
async fn a_lower_limit_voids_requests_of_an_idle_worker() {
    let stage = Stage::set().await;
    stage.write(r#"{"maxInflight":5}"#).await;
    let takes = Duration::from_millis(300);
    let function = HttpServer::answering(move |_| respond_after(takes, 200, "ok")).await;
    let worker = stage.queue.worker(&function, &[]);
    until("messages are requested", async || {
        (stage.queue.consumer().await.cached_info().num_waiting > 0).then_some(())
    })
    .await;
    stage.write(r#"{"maxInflight":2}"#).await;
    worker.logged("the number of slots was lowered").await;
    for _ in 0..10 {
        stage.queue.submit(|_| {}).await;
    }
    function.receives(10).await;
    stage.queue.empties().await;
    assert_eq!(function.most_running(), 2);
    assert!(function.received().iter().all(|call| call.header("x-retry") == "1"));
}

#[tokio::test]
async fn a_time_limit_applies_to_invocations_that_start_later() {
    let stage = Stage::set().await;
    stage.write(r#"{"timeout":"30s","retry":{"maxAttempts":1}}"#).await;
    let takes = Duration::from_millis(2500);
    let function = HttpServer::answering(move |_| respond_after(takes, 200, "ok")).await;
    let worker = stage.queue.worker(&function, &[("max_inflight", "3")]);
    let first = stage.queue.submit(|_| {}).await;
    function.receives(1).await;
    stage.write(r#"{"timeout":"1s","retry":{"maxAttempts":1}}"#).await;
    worker.logged("settings changed: timeout 30s -> 1s").await;
    stage.queue.submit(|_| {}).await;
    // The second one reaches its limit before the first one ends.
    stage.queue.holds("jobs-dead", 1).await;
    worker.logged("the time limit was reached").await;
    let line = worker.logged("Invoked figlet [200]").await;
    assert!(line.contains(first.as_str()), "{line}");
    stage.write(r#"{"timeout":"5s","retry":{"maxAttempts":1}}"#).await;
    worker.logged("settings changed: timeout 1s -> 5s").await;
    stage.queue.submit(|_| {}).await;
    stage.queue.empties().await;
    assert_eq!(function.received().len(), 3);
    stage.queue.holds("jobs-dead", 1).await;
}

#[tokio::test]
async fn a_retry_policy_applies_to_the_next_decision() {
    let stage = Stage::set().await;
    let retry = |attempts| {
        format!(r#"{{"retry":{{"maxAttempts":{attempts},"minBackoff":"50ms","jitter":"None"}}}}"#)
    };
    stage.write(&retry(10)).await;
    let takes = Duration::from_millis(1500);
    let function = HttpServer::answering(move |_| respond_after(takes, 500, "no")).await;
    let worker = stage.queue.worker(&function, &[]);
    stage.queue.submit(|_| {}).await;
    function.receives(1).await;
    // It runs, and ends under the new policy.
    stage.write(&retry(2)).await;
    worker.logged("settings changed: retry.maxAttempts 10 -> 2").await;
    assert_eq!(function.running(), 1);
    stage.queue.holds("jobs-dead", 1).await;
    assert_eq!(function.received().len(), 2);
    worker.logged("attempt 2 of 2").await;
}

#[tokio::test]
async fn invalid_settings_are_refused_and_the_last_ones_stay() {
    let stage = Stage::set().await;
    let function = HttpServer::answering(|_| respond(200, "ok")).await;
    let admin = format!("127.0.0.1:{}", free_port());
    let settings = [("wait_for_settings", "true"), ("http_addr", &*admin)];
    let worker = stage.queue.worker(&function, &settings);
    let ready = async || {
        let answer = raw::try_request(admin.parse().unwrap(), "GET", "/readyz", &[], b"").await;
        answer.ok().map(|answer| (answer.status, answer.text()))
    };
    // A worker that gets its settings from nowhere else takes no call without them.
    stage.queue.submit(|_| {}).await;
    until("the worker says what it waits for", async || {
        let (status, text) = ready().await?;
        (status == 503 && text.contains("waiting for the settings of the queue")).then_some(())
    })
    .await;
    stage.write(r#"{"maxInflight":0}"#).await;
    let refused = "settings in the directory refused, the last valid ones still apply: \
                   maxInflight `0` is not valid: use 1 to 10000";
    worker.logged(refused).await;
    sleep(Duration::from_secs(1)).await;
    assert!(function.received().is_empty());

    stage.write(r#"{"maxInflight":3}"#).await;
    function.receives(1).await;
    until("the worker is ready", async || (ready().await?.0 == 200).then_some(())).await;
    stage.write(r#"{"maxInflight":3,"timeout":"0s"}"#).await;
    worker.logged("timeout `0s` is not valid").await;
    // An operator of an earlier version writes no settings.
    stage.bucket.put("queue.jobs", r#"{"stream":"jobs","subject":"jobs"}"#.into()).await.unwrap();
    stage.write(r#"{"maxInflight":4}"#).await;
    worker.logged("settings changed: maxInflight 3 -> 4").await;
    let changes = worker.log().iter().filter(|line| line.contains("settings changed")).count();
    assert_eq!(changes, 2);
}

#[tokio::test]
async fn a_directory_without_settings_leaves_the_workers_own() {
    let stage = Stage::set().await;
    stage.bucket.put("queue.jobs", r#"{"stream":"jobs","subject":"jobs"}"#.into()).await.unwrap();
    let takes = Duration::from_millis(300);
    let function = HttpServer::answering(move |_| respond_after(takes, 200, "ok")).await;
    let _worker = stage.queue.worker(&function, &[("max_inflight", "3")]);
    let begun = Instant::now();
    for _ in 0..6 {
        stage.queue.submit(|_| {}).await;
    }
    function.receives(6).await;
    assert_eq!(function.most_running(), 3, "after {:?}", begun.elapsed());
}
