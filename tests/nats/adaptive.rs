//! Limits of functions that workers learn from refused calls.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use async_nats::jetstream::kv;
use asyncqueue::{
    buckets,
    directory::{MARKER, store::DirectoryStore},
};
use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use serde_json::{Value, json};
use test_support::{
    http::{Answer, HttpServer, respond, respond_after},
    loopback::free_port,
    program::run,
    raw,
    wait::{WAIT_TIMEOUT, until, until_in},
};

use crate::{
    lane_limits::Operated,
    lanes::{laned, worker},
    support::Queue,
};

/// How long an accepted call takes.
const TAKES: Duration = Duration::from_millis(200);

/// A function that answers 429 beyond its capacity, which changes.
#[derive(Clone, Default)]
struct Capacity {
    max: Arc<AtomicUsize>,
    running: Arc<AtomicUsize>,
    done: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
}

impl Capacity {
    fn new(max: usize) -> Self {
        let capacity = Self::default();
        capacity.set(max);
        capacity
    }

    fn set(&self, max: usize) {
        self.max.store(max, Ordering::SeqCst);
    }

    fn done(&self) -> usize {
        self.done.load(Ordering::SeqCst)
    }

    fn refused(&self) -> usize {
        self.refused.load(Ordering::SeqCst)
    }

    fn answer(self) -> Answer {
        if self.running.fetch_add(1, Ordering::SeqCst) >= self.max.load(Ordering::SeqCst) {
            self.running.fetch_sub(1, Ordering::SeqCst);
            self.refused.fetch_add(1, Ordering::SeqCst);
            return respond(429, "too many");
        }
        Box::pin(async move {
            let response = respond_after(TAKES, 200, "ok").await;
            self.running.fetch_sub(1, Ordering::SeqCst);
            self.done.fetch_add(1, Ordering::SeqCst);
            response
        })
    }

    /// Waits until so many calls are done.
    async fn has_done(&self, calls: usize) {
        until_in(WAIT_TIMEOUT * 4, &format!("{calls} calls are done"), async || {
            (self.done() >= calls).then_some(())
        })
        .await;
    }
}

async fn directory_with(queue: &Queue, function: &str) -> kv::Store {
    DirectoryStore::open(&queue.js, 1).await.unwrap();
    let directory = queue.js.get_key_value(buckets::DIRECTORY.name).await.unwrap();
    let key = format!("function.openfaas-fn.{function}");
    directory.put(key, r#"{"queue":"jobs"}"#.into()).await.unwrap();
    directory.put(MARKER, "{}".into()).await.unwrap();
    directory
}

/// Runs a backlog at workers while the capacity falls from 50 to 5 and rises again.
async fn capacity_falls_and_rises(workers: usize) {
    const CALLS: usize = 1200;
    let queue = laned().await;
    directory_with(&queue, "burst").await;
    let capacity = Capacity::new(50);
    let function = {
        let capacity = capacity.clone();
        HttpServer::answering(move |_| capacity.clone().answer()).await
    };
    for number in 0..CALLS {
        queue.submit_to("burst", &number.to_string()).await;
    }
    let admin = format!("127.0.0.1:{}", free_port());
    let settings = [("function_adaptive", "true"), ("max_inflight", "100")];
    let first = worker(&queue, &function, &[settings[0], settings[1], ("http_addr", &admin)]);
    let _others: Vec<_> = (1..workers).map(|_| worker(&queue, &function, &settings)).collect();
    let begun = Instant::now();
    for (max, done) in [(50, 500), (5, 600), (50, CALLS)] {
        capacity.set(max);
        let refused = capacity.refused();
        capacity.has_done(done).await;
        let refused = capacity.refused() - refused;
        println!("capacity {max}: {done} done after {:?}, {refused} refused", begun.elapsed());
    }
    queue.empties().await;
    assert_eq!(capacity.done(), CALLS);
    assert!(capacity.refused() < CALLS / 2, "{}", capacity.refused());
    assert!(function.received().iter().all(|call| call.header("x-retry") == "1"));
    assert_eq!(queue.info("jobs-dead").await.state.messages, 0);
    let log = first.logged("burst refuses calls").await;
    assert!(log.contains("no attempt"), "{log}");
    let function = r#"{queue_name="jobs",function_name="burst.openfaas-fn""#;
    let series = [
        format!(r#"queue_worker_function_limit{function},kind="learned"}} "#),
        format!("queue_worker_function_refuses_all{function}}} 0"),
        format!(r#"queue_worker_calls_refused_total{function},reason="status_429"}} "#),
    ];
    until("the metrics show it", async || {
        let answer = raw::request(admin.parse().unwrap(), "GET", "/metrics", &[], b"").await;
        let text = answer.text();
        series.iter().all(|series| text.contains(series)).then_some(())
    })
    .await;
    let nats = queue.nats.url();
    let arguments = ["queues", "--functions", "-o", "json"];
    let ended = run("kubectl-aq", &arguments, &[("nats_url", &nats)]).await;
    let functions: Value = serde_json::from_str(&ended.text()).unwrap();
    let burst = &functions[0];
    assert_eq!(
        (&burst["queue"], &burst["function"], &burst["pending"]),
        (&"jobs".into(), &"burst.openfaas-fn".into(), &0.into()),
        "{functions}"
    );
    assert_eq!(burst["refused"], capacity.refused(), "{functions}");
    assert!((1..=300).contains(&burst["limit"].as_u64().unwrap()), "{functions}");
}

#[tokio::test]
async fn one_worker_follows_a_capacity() {
    capacity_falls_and_rises(1).await;
}

#[tokio::test]
async fn three_workers_follow_a_capacity() {
    capacity_falls_and_rises(3).await;
}

/// Returns 503 with `Retry-After`.
fn closed(seconds: u64) -> Answer {
    let response = Response::builder().status(503).header("retry-after", seconds);
    Box::pin(std::future::ready(response.body(Full::new(Bytes::new())).unwrap()))
}

#[tokio::test]
async fn a_retry_after_holds_the_lane_of_its_function() {
    const CLOSED: u64 = 4;
    let queue = laned().await;
    let refused = Arc::new(AtomicUsize::new(0));
    let function = HttpServer::answering(move |request| {
        let is_first = || refused.fetch_add(1, Ordering::SeqCst) == 0;
        if request.target.starts_with("/closed") && is_first() {
            closed(CLOSED)
        } else {
            respond(200, "ok")
        }
    })
    .await;
    for number in 0..10 {
        queue.submit_to("closed", &number.to_string()).await;
        queue.submit_to("open", &number.to_string()).await;
    }
    let settings = [("function_adaptive", "true"), ("max_inflight", "4")];
    let worker = worker(&queue, &function, &settings);
    until("the other function has run", async || {
        let calls = function.received();
        (calls.iter().filter(|call| call.target.starts_with("/open")).count() == 10).then_some(())
    })
    .await;
    queue.empties().await;
    let mut starts: Vec<_> = function
        .received()
        .iter()
        .filter(|call| call.target.starts_with("/closed"))
        .map(|call| call.at)
        .collect();
    starts.sort();
    assert_eq!(starts.len(), 11);
    let pause = starts[1] - starts[0];
    assert!(pause > Duration::from_secs(CLOSED - 1), "{pause:?}");
    assert!(function.received().iter().all(|call| call.header("x-retry") == "1"));
    worker.logged("closed refuses calls").await;
}

#[tokio::test]
async fn a_refusal_is_an_attempt_without_adaptive_limits() {
    let queue = laned().await;
    let function = HttpServer::answering(|_| respond(429, "too many")).await;
    queue.submit_to("refusing", "hi").await;
    let settings = [("max_retry_attempts", "2"), ("initial_retry_wait", "100ms")];
    let _worker = worker(&queue, &function, &settings);
    queue.empties().await;
    assert_eq!(function.received().len(), 2);
    assert_eq!(queue.info("jobs-dead").await.state.messages, 1);
}

#[tokio::test]
async fn a_function_that_refuses_is_in_the_status_of_its_queue() {
    let spec = json!({ "fairness": "Function", "perFunction": { "adaptive": true } });
    let operated = Operated::with_spec(spec, ("max_lanes_per_queue", "9")).await;
    let function = HttpServer::answering(|_| respond(429, "too many")).await;
    operated.queue.submit_to("busy", "hi").await;
    let _worker = worker(&operated.queue, &function, &[]);
    let limited = until_in(WAIT_TIMEOUT, "it is in the status", async || {
        let mut statuses = operated.api.statuses().into_iter();
        statuses
            .find_map(|mut status| Some(status["limitedFunctions"].take()).filter(Value::is_array))
    })
    .await;
    assert_eq!(limited, json!([{ "function": "busy.openfaas-fn", "limit": 1 }]));
}
