//! Limits of single functions in a queue with lanes.

use std::time::{Duration, Instant};

use async_nats::jetstream::{consumer::pull, kv};
use asyncqueue::{
    buckets,
    directory::{MARKER, store::DirectoryStore},
    lanes::Fairness,
    shares,
    stream::QueueSpec,
};
use test_support::{
    http::{HttpServer, respond_after},
    loopback::{at, free_port},
    raw,
    wait::{WAIT_TIMEOUT, until, until_in},
};
use tokio::time::sleep;

use crate::{
    lanes::{laned, worker},
    shared_limits::SHARE_LEASE,
    support::{Queue, spec},
};

/// How long the functions of these tests take.
const TAKES: Duration = Duration::from_millis(200);

/// A queue with lanes and a directory.
async fn limited() -> (Queue, kv::Store) {
    let queue = laned().await;
    DirectoryStore::open(&queue.js, 1).await.unwrap();
    let directory = queue.js.get_key_value(buckets::DIRECTORY.name).await.unwrap();
    directory.put(MARKER, "{}".into()).await.unwrap();
    (queue, directory)
}

/// Writes the limits of a function as an operator does.
async fn limit(directory: &kv::Store, function: &str, limits: &str) {
    let entry = format!(r#"{{"queue":"jobs","limits":{limits}}}"#);
    directory.put(format!("function.openfaas-fn.{function}"), entry.into()).await.unwrap();
}

async fn slow_functions() -> HttpServer {
    HttpServer::answering(|_| respond_after(TAKES, 200, "ok")).await
}

/// When the calls of a function started.
fn starts_of(server: &HttpServer, function: &str) -> Vec<Instant> {
    let path = format!("/{function}");
    let calls = server.received().into_iter().filter(|call| call.target.starts_with(&path));
    let mut starts: Vec<_> = calls.map(|call| call.at).collect();
    starts.sort();
    starts
}

/// How many calls of a function ran at once.
fn most_at_once(server: &HttpServer, function: &str) -> usize {
    let starts = starts_of(server, function);
    starts.first().map_or(0, |first| most_at_once_since(server, function, *first))
}

/// How many calls of a function that started since then ran at once.
fn most_at_once_since(server: &HttpServer, function: &str, since: Instant) -> usize {
    let mut starts = starts_of(server, function);
    starts.retain(|start| *start >= since);
    let running =
        |at: &Instant| starts.iter().filter(|start| *start <= at && *at < **start + TAKES).count();
    starts.iter().map(running).max().unwrap_or_default()
}

/// Checks that each call was a first attempt: a call that is put off has made none.
fn assert_first_attempts(server: &HttpServer) {
    assert!(server.received().iter().all(|call| call.header("x-retry") == "1"));
}

#[tokio::test]
async fn a_total_of_a_function_holds_for_all_workers() {
    let (queue, directory) = limited().await;
    limit(&directory, "limited", r#"{"maxInflight":3}"#).await;
    let server = slow_functions().await;
    for number in 0..30 {
        queue.submit_to("limited", &number.to_string()).await;
        queue.submit_to("other", &number.to_string()).await;
    }
    let _workers = [(); 2].map(|()| worker(&queue, &server, &[("max_inflight", "6")]));
    // Calls above the limit take no slot.
    until("the others have run", async || (starts_of(&server, "other").len() == 30).then_some(()))
        .await;
    assert!(starts_of(&server, "limited").len() < 20);
    until("half have run", async || (starts_of(&server, "limited").len() >= 15).then_some(()))
        .await;
    assert_eq!(most_at_once(&server, "limited"), 3);
    // Without the limit, all slots are used.
    limit(&directory, "limited", "{}").await;
    queue.empties().await;
    assert!(most_at_once(&server, "limited") > 3);
    assert_eq!(server.received().len(), 60);
    assert_first_attempts(&server);
    let shares = shares::read(&queue.js, "jobs").await.unwrap().shares;
    assert!(shares.workers.is_empty(), "{shares:?}");
}

#[tokio::test]
async fn a_limit_of_each_function_holds_for_each() {
    let queue = laned().await;
    let server = slow_functions().await;
    let settings = [("max_inflight", "10"), ("function_max_inflight", "2")];
    let _workers = [(); 3].map(|()| worker(&queue, &server, &settings));
    for number in 0..15 {
        for function in ["a", "b", "c"] {
            queue.submit_to(function, &number.to_string()).await;
        }
    }
    queue.empties().await;
    for function in ["a", "b", "c"] {
        assert_eq!(most_at_once(&server, function), 2, "{function}");
    }
    assert_first_attempts(&server);
}

#[tokio::test]
async fn killed_workers_exceed_no_limit_of_a_function() {
    const CALLS: usize = 800;
    let queue = laned().await;
    let server = slow_functions().await;
    let settings = [("max_inflight", "8"), ("function_max_inflight", "4")];
    let mut workers: Vec<_> = (0..4).map(|_| worker(&queue, &server, &settings)).collect();
    let functions = ["a", "b"];
    for number in 0..CALLS {
        for function in functions {
            queue.submit_to(function, &number.to_string()).await;
        }
    }
    let at_limit = |since: Instant| {
        let uses_all = |function: &&str| most_at_once_since(&server, function, since) == 4;
        functions.iter().all(uses_all).then_some(())
    };
    let begun = Instant::now();
    until_in(WAIT_TIMEOUT, "the limits are used", async || at_limit(begun)).await;
    for _ in 0..2 {
        workers.remove(0).kill();
        workers.push(worker(&queue, &server, &settings));
        sleep(Duration::from_secs(2)).await;
    }
    // The shares of the killed workers return after their lease.
    sleep(SHARE_LEASE).await;
    let later = Instant::now();
    until_in(WAIT_TIMEOUT, "the limits are used again", async || at_limit(later)).await;
    until_in(WAIT_TIMEOUT * 4, "all calls have run", async || {
        (queue.info("jobs").await.state.messages == 0).then_some(())
    })
    .await;
    for function in functions {
        assert_eq!(most_at_once(&server, function), 4, "{function}");
        assert!(starts_of(&server, function).len() >= CALLS, "{function}");
    }
    assert_eq!(queue.info("jobs-dead").await.state.messages, 0);
}

#[tokio::test]
async fn a_worker_with_long_calls_leaves_limits_to_others() {
    let (queue, directory) = limited().await;
    let functions = ["f1", "f2", "f3", "f4", "f5", "f6"];
    for function in functions {
        limit(&directory, function, r#"{"maxInflight":1}"#).await;
    }
    let server = HttpServer::answering(|request| {
        let is_long = request.target.starts_with("/long");
        respond_after(if is_long { Duration::from_secs(60) } else { TAKES }, 200, "ok")
    })
    .await;
    let _workers = [worker(&queue, &server, &[]), worker(&queue, &server, &[])];
    queue.submit_to("long", "hi").await;
    until("the long call runs", async || (server.running() == 1).then_some(())).await;
    // Half of the limits were with the worker that has the long call.
    for function in functions {
        queue.submit_to(function, "hi").await;
        queue.submit_to(function, "hi").await;
    }
    until_in(WAIT_TIMEOUT, "the others have run", async || {
        (server.received().len() == 13).then_some(())
    })
    .await;
    until("the long call still runs", async || (server.running() == 1).then_some(())).await;
    assert_first_attempts(&server);
}

#[tokio::test]
async fn a_limit_holds_in_a_lane_that_functions_share() {
    let (queue, directory) = limited().await;
    limit(&directory, "limited", r#"{"maxInflight":1}"#).await;
    let stream = queue.js.get_stream("jobs").await.unwrap();
    let own = queue.consumer().await.cached_info().config.clone();
    let filters = ["limited", "other"].map(|name| format!("jobs.openfaas-fn.{name}.*"));
    let shared = pull::Config {
        durable_name: Some("jobs-fn-=1".to_owned()),
        filter_subjects: filters.into(),
        ack_wait: own.ack_wait,
        max_deliver: own.max_deliver,
        max_ack_pending: own.max_ack_pending,
        metadata: own.metadata,
        ..pull::Config::default()
    };
    stream.create_consumer(shared).await.unwrap();
    for number in 0..6 {
        queue.publish_to("limited").await;
        if number < 3 {
            queue.publish_to("other").await;
        }
    }
    let server = slow_functions().await;
    let worker = worker(&queue, &server, &[("max_inflight", "4")]);
    queue.empties().await;
    assert_eq!(most_at_once(&server, "limited"), 1);
    assert_eq!(server.received().len(), 9);
    assert_first_attempts(&server);
    let log = worker.logged("calls of limited are put off").await;
    assert!(log.contains("at its limit"), "{log}");
}

#[tokio::test]
async fn a_limit_holds_for_calls_of_the_openfaas_gateway() {
    let (queue, directory) = limited().await;
    limit(&directory, "limited", r#"{"maxInflight":1}"#).await;
    let server = slow_functions().await;
    let _worker = worker(&queue, &server, &[("max_inflight", "4")]);
    for _ in 0..4 {
        let message =
            r#"{"Function":"limited","Body":"aGk=","Header":{},"Host":"h","Method":"POST"}"#;
        queue.js.publish("jobs", message.into()).await.unwrap().await.unwrap();
    }
    queue.empties().await;
    assert_eq!(most_at_once(&server, "limited"), 1);
    assert_first_attempts(&server);
}

#[tokio::test]
async fn a_rate_of_a_function_holds_for_all_workers() {
    const PER_SECOND: u32 = 20;
    let (queue, directory) = limited().await;
    limit(&directory, "limited", r#"{"rate":{"perSecond":20,"burst":2}}"#).await;
    let server = HttpServer::answering(|_| respond_after(Duration::ZERO, 200, "ok")).await;
    let _workers = [(); 2].map(|()| worker(&queue, &server, &[("max_inflight", "5")]));
    for number in 0..120 {
        queue.submit_to("limited", &number.to_string()).await;
    }
    for number in 0..20 {
        queue.submit_to("other", &number.to_string()).await;
    }
    until("the others have run", async || (starts_of(&server, "other").len() == 20).then_some(()))
        .await;
    assert!(starts_of(&server, "limited").len() < 100);
    queue.empties().await;
    let starts = starts_of(&server, "limited");
    let took = *starts.last().unwrap() - starts[0];
    let allowed = took.as_secs_f64() * f64::from(PER_SECOND) + 4.0;
    assert!(
        f64::from(u32::try_from(starts.len()).unwrap()) <= allowed,
        "{} in {took:?}",
        starts.len()
    );
    assert_first_attempts(&server);
}

#[tokio::test]
async fn limits_are_in_the_metrics() {
    let (queue, directory) = limited().await;
    limit(&directory, "limited", r#"{"maxInflight":3,"rate":{"perSecond":4,"burst":1}}"#).await;
    let server = slow_functions().await;
    let addr = at(free_port());
    let (http_addr, rate) = (addr.to_string(), ("rate_per_second", "50"));
    let settings = [("http_addr", &*http_addr), ("concurrency", "6"), ("max_inflight", "8"), rate];
    let _worker = worker(&queue, &server, &settings);
    for number in 0..20 {
        queue.submit_to("limited", &number.to_string()).await;
    }
    let expected = [
        r#"concurrency{queue_name="jobs"} 6"#,
        r#"concurrency_share{queue_name="jobs"} 6"#,
        r#"rate{queue_name="jobs"} 50.0"#,
        r#"rate_share{queue_name="jobs"} 50.0"#,
        r#"rate_waits_total{queue_name="jobs",limit="queue"} "#,
        r#"function_limit{queue_name="jobs",function_name="limited.openfaas-fn",kind="total"} 3"#,
        r#"function_limit{queue_name="jobs",function_name="limited.openfaas-fn",kind="share"} 3"#,
        r#"function_rate{queue_name="jobs",function_name="limited.openfaas-fn",kind="total"} 4.0"#,
        r#"function_rate{queue_name="jobs",function_name="limited.openfaas-fn",kind="share"} 4.0"#,
    ];
    let waited = r#"queue_worker_rate_waits_total{queue_name="jobs",limit="function"} "#;
    until_in(WAIT_TIMEOUT, "the metrics show the limits", async || {
        let answer = raw::try_request(addr, "GET", "/metrics", &[], b"").await.ok()?;
        let text = answer.text();
        let has_waited = text.contains(waited) && !text.contains(&format!("{waited}0\n"));
        let is_shown = |series: &&str| text.contains(&format!("queue_worker_{series}"));
        (has_waited && expected.iter().all(is_shown)).then_some(())
    })
    .await;
    // Without limits, functions have no series.
    limit(&directory, "limited", "{}").await;
    until_in(WAIT_TIMEOUT, "the series of the function are gone", async || {
        let answer = raw::try_request(addr, "GET", "/metrics", &[], b"").await.ok()?;
        (!answer.text().contains("kind=\"total\"")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_weight_is_the_number_of_calls_of_a_turn() {
    let (queue, directory) = limited().await;
    limit(&directory, "heavy", r#"{"weight":3}"#).await;
    let server = HttpServer::answering(|_| respond_after(Duration::from_millis(20), 200, "")).await;
    for number in 0..60 {
        queue.submit_to("heavy", &number.to_string()).await;
        queue.submit_to("light", &number.to_string()).await;
    }
    let _worker = worker(&queue, &server, &[("max_inflight", "4")]);
    until("heavy calls have run", async || (starts_of(&server, "heavy").len() >= 45).then_some(()))
        .await;
    let light = starts_of(&server, "light").len();
    assert!((8..=25).contains(&light), "{light} light calls in the turns of 45 heavy ones");
    queue.empties().await;
}

#[tokio::test]
async fn limits_have_no_effect_without_lanes() {
    let queue = Queue::start_with(QueueSpec { fairness: Fairness::Fifo, ..spec() }).await;
    DirectoryStore::open(&queue.js, 1).await.unwrap();
    let directory = queue.js.get_key_value(buckets::DIRECTORY.name).await.unwrap();
    directory.put(MARKER, "{}".into()).await.unwrap();
    limit(&directory, "limited", r#"{"maxInflight":1}"#).await;
    let server = slow_functions().await;
    for number in 0..8 {
        queue.submit_to("limited", &number.to_string()).await;
    }
    let _worker = worker(&queue, &server, &[("max_inflight", "4")]);
    queue.empties().await;
    assert_eq!(most_at_once(&server, "limited"), 4);
}
