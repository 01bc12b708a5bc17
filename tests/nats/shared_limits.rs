//! The total concurrency and the rate of a queue with several workers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_nats::jetstream::kv;
use asyncqueue::{
    buckets,
    directory::{MARKER, store::DirectoryStore},
    shares,
};
use futures::StreamExt;
use test_support::{
    http::{HttpServer, respond, respond_after},
    loopback::free_port,
    program::Program,
    raw,
    wait::{WAIT_TIMEOUT, until, until_in},
};
use tokio::time::{Instant, sleep};

use crate::support::Queue;

/// The lease of a share, and a bit more.
pub(crate) const SHARE_LEASE: Duration = Duration::from_secs(20);

/// A function that takes this long.
async fn slow_function(takes: Duration) -> HttpServer {
    HttpServer::answering(move |_| respond_after(takes, 200, "ok")).await
}

/// Stores calls, many at once: workers are not to run them as soon as they are stored.
async fn submit(queue: &Queue, calls: usize) {
    let calls = futures::stream::iter(0..calls);
    calls.for_each_concurrent(64, async |_| drop(queue.submit(|_| {}).await)).await;
}

/// The slots of the workers, in the order of their ids.
async fn slots(queue: &Queue) -> Vec<u32> {
    let stored = shares::read(&queue.js, "jobs").await.unwrap();
    stored.shares.workers.values().map(|share| share.slots).collect()
}

/// Waits until the workers have these shares, in any order.
async fn have_shares(queue: &Queue, expected: &[u32]) {
    until_in(SHARE_LEASE * 2, &format!("shares of {expected:?}"), async || {
        let mut slots = slots(queue).await;
        slots.sort_unstable();
        (slots == expected).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_total_is_kept_whatever_happens_to_workers() {
    const TOTAL: usize = 20;
    const CALLS: usize = 1500;
    let queue = Queue::start().await;
    let function = slow_function(Duration::from_millis(600)).await;
    let settings = [("concurrency", "20"), ("max_inflight", "10")];
    let mut workers: Vec<_> = (0..6).map(|_| queue.worker(&function, &settings)).collect();
    submit(&queue, CALLS).await;
    have_shares(&queue, &[3, 3, 3, 3, 4, 4]).await;
    until("all slots are used", async || (function.running() == TOTAL).then_some(())).await;
    // Stopped for a third of the lease.
    workers[0].signal("STOP");
    sleep(Duration::from_secs(5)).await;
    workers[0].signal("CONT");
    workers[1].signal("KILL");
    workers[1].ended().await;
    have_shares(&queue, &[4, 4, 4, 4, 4]).await;
    workers.push(queue.worker(&function, &settings));
    workers[2].signal("TERM");
    workers[2].ended().await;
    // It has given up its share without a lease.
    have_shares(&queue, &[4, 4, 4, 4, 4]).await;
    until_in(WAIT_TIMEOUT * 4, "all calls have run", async || {
        (queue.info("jobs").await.state.messages == 0).then_some(())
    })
    .await;
    assert_eq!(function.most_running(), TOTAL);
}

/// Whether three workers with a backlog keep within 5 % of a rate for so long.
async fn a_rate_holds_for(seconds: usize) {
    const PER_SECOND: usize = 50;
    let queue = Queue::start().await;
    let function = HttpServer::answering(|_| respond(200, "ok")).await;
    // With some burst, a worker that stood still for a moment catches up.
    let settings = [("rate_per_second", "50"), ("rate_burst", "15"), ("max_inflight", "10")];
    let workers: Vec<_> = (0..3).map(|_| queue.worker(&function, &settings)).collect();
    until("the rate is divided", async || {
        let stored = shares::read(&queue.js, "jobs").await.unwrap();
        let rates: Vec<_> = stored.shares.workers.values().map(|share| share.rate).collect();
        (rates.len() == 3 && rates.iter().all(|rate| rate.abs_diff(333_333) <= 1)).then_some(())
    })
    .await;
    submit(&queue, PER_SECOND * (seconds + 4)).await;
    let (before, begun) = (function.received().len(), Instant::now());
    sleep(Duration::from_secs(seconds as u64)).await;
    let (started, elapsed) = (function.received().len() - before, begun.elapsed());
    let expected = elapsed.as_secs_f64() * 50.0;
    let share = f64::from(u32::try_from(started).unwrap()) / expected;
    assert!(queue.info("jobs").await.state.messages > 0, "{started} of {expected}: no backlog");
    assert!((0.95..=1.05).contains(&share), "{started} of {expected}");
    // None was handed back, and none had to wait for long with its slot.
    assert!(function.received().iter().all(|call| call.header("x-retry") == "1"));
    drop(workers);
}

#[tokio::test]
async fn workers_share_a_rate() {
    a_rate_holds_for(30).await;
}

#[tokio::test]
#[ignore = "takes more than a minute: make test-limits"]
async fn workers_hold_a_rate_for_a_minute() {
    a_rate_holds_for(60).await;
}

#[tokio::test]
async fn a_worker_that_stands_still_exceeds_a_total_by_its_share() {
    const TOTAL: usize = 20;
    const CALLS: usize = 400;
    let queue = Queue::start().await;
    let received = Arc::new(AtomicUsize::new(0));
    let function = HttpServer::answering(move |_| {
        let is_long = received.fetch_add(1, Ordering::SeqCst) < TOTAL;
        let takes = if is_long { SHARE_LEASE * 2 } else { Duration::from_millis(200) };
        respond_after(takes, 200, "ok")
    })
    .await;
    let settings = [("concurrency", "20"), ("max_inflight", "10")];
    let workers: Vec<_> = (0..4).map(|_| queue.worker(&function, &settings)).collect();
    have_shares(&queue, &[5, 5, 5, 5]).await;
    submit(&queue, CALLS).await;
    until("all slots are used", async || (function.running() == TOTAL).then_some(())).await;
    workers[0].signal("STOP");
    // Its invocations are still open, and its share goes to the others after the lease.
    have_shares(&queue, &[6, 7, 7]).await;
    until("the share of the worker is used", async || (function.running() > TOTAL).then_some(()))
        .await;
    workers[0].signal("CONT");
    have_shares(&queue, &[5, 5, 5, 5]).await;
    until_in(WAIT_TIMEOUT * 4, "all calls have run", async || {
        (queue.info("jobs").await.state.messages == 0).then_some(())
    })
    .await;
    let most = function.most_running();
    assert!((TOTAL + 1..=TOTAL + 5).contains(&most), "{most}");
    assert!(function.received().len() >= CALLS);
    assert_eq!(queue.info("jobs-dead").await.state.messages, 0);
}

#[tokio::test]
async fn a_burst_is_no_larger_than_it_may_be() {
    const BURST: usize = 4;
    let queue = Queue::start().await;
    let function = HttpServer::answering(|_| respond(200, "ok")).await;
    let settings = [("rate_per_second", "1"), ("rate_burst", "4"), ("max_inflight", "10")];
    let worker = queue.worker(&function, &settings);
    worker.logged("share of the rate: 1000000 of 1000000").await;
    // Tokens for the whole burst.
    sleep(Duration::from_secs(6)).await;
    submit(&queue, 20).await;
    function.receives(BURST).await;
    sleep(Duration::from_millis(2500)).await;
    let started = function.received().len();
    assert!((BURST..=BURST + 4).contains(&started), "{started}");
    // The others wait in the queue, and not in the worker.
    let consumer = queue.consumer().await;
    let in_worker = consumer.cached_info().num_ack_pending;
    assert!(in_worker <= 3, "{in_worker}");
}

/// A queue with a directory that has these settings of it.
async fn queue_with_directory(settings: &str) -> (Queue, kv::Store) {
    let queue = Queue::start().await;
    DirectoryStore::open(&queue.js, 1).await.unwrap();
    let bucket = queue.js.get_key_value(buckets::DIRECTORY.name).await.unwrap();
    write(&bucket, settings).await;
    bucket.put(MARKER, "{}".into()).await.unwrap();
    (queue, bucket)
}

/// Writes the settings of the queue as an operator does.
async fn write(directory: &kv::Store, settings: &str) {
    let entry = format!(r#"{{"stream":"jobs","subject":"jobs","settings":{settings}}}"#);
    directory.put("queue.jobs", entry.into()).await.unwrap();
}

#[tokio::test]
async fn a_total_changes_while_calls_run() {
    let (queue, directory) = queue_with_directory(r#"{"maxInflight":4}"#).await;
    let function = slow_function(Duration::from_millis(300)).await;
    let admin = format!("127.0.0.1:{}", free_port());
    let workers = [queue.worker(&function, &[("http_addr", &admin)]), queue.worker(&function, &[])];
    submit(&queue, 400).await;
    until("all slots are used", async || (function.running() == 8).then_some(())).await;
    assert_eq!(slots(&queue).await, [0; 0], "nothing is written without a limit");

    write(&directory, r#"{"maxInflight":4,"concurrency":3}"#).await;
    for worker in &workers {
        worker.logged("settings changed: concurrency unset -> 3").await;
    }
    have_shares(&queue, &[1, 2]).await;
    let text = raw::request(admin.parse().unwrap(), "GET", "/metrics", &[], b"").await.text();
    assert!(text.contains(r#"queue_worker_concurrency{queue_name="jobs"} 3"#), "{text}");
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        let running = function.running();
        assert!(running <= 3, "{running} run");
        sleep(Duration::from_millis(10)).await;
    }

    write(&directory, r#"{"maxInflight":4}"#).await;
    until("the total is gone", async || (function.running() == 8).then_some(())).await;
    queue.empties().await;
    assert!(function.received().iter().all(|call| call.header("x-retry") == "1"));
    have_shares(&queue, &[]).await;
}

#[tokio::test]
async fn a_worker_that_cannot_renew_its_share_starts_nothing() {
    let queue = Queue::start().await;
    let function = slow_function(Duration::from_millis(100)).await;
    let worker: Program = queue.worker(&function, &[("concurrency", "2"), ("max_inflight", "2")]);
    submit(&queue, 1).await;
    function.receives(1).await;
    // Of a later version, so that it can't be read.
    let bucket = queue.js.get_key_value(buckets::SLOTS.name).await.unwrap();
    bucket.put("jobs", "of the future".into()).await.unwrap();
    worker.logged("failed to renew the share of concurrency and rate").await;
    worker.logged_in(WAIT_TIMEOUT, "the number of slots was lowered").await;
    submit(&queue, 3).await;
    sleep(Duration::from_secs(2)).await;
    assert_eq!(function.received().len(), 1);
    bucket.delete("jobs").await.unwrap();
    function.receives(4).await;
    queue.empties().await;
    assert!(function.received().iter().all(|call| call.header("x-retry") == "1"));
}
