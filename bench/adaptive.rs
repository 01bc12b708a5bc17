//! `bench/run adaptive`: a function that is scaled up while it is busy, and refuses what is too
//! much. It is the test that OpenFaaS describes for its adaptive concurrency: 500 calls, five at
//! once in each replica, from 1 to 10 replicas, one more every 5 seconds while all are busy.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use asyncqueue::{FunctionName, lanes::Fairness};
use asyncqueue_bench::{FUNCTION, QUEUE, Queue, call, free_addr, start_functions};
use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use test_support::{process::unless_ended, program::Program, wait::until_in};
use tokio::time::sleep;

/// Number of calls, and how long each takes.
const CALLS: usize = 500;
const TAKES: Duration = Duration::from_secs(1);
/// Number of calls that a replica takes at once.
const PLACES: usize = 5;
const MAX_REPLICAS: usize = 10;
/// How long all replicas are busy before there is another one.
const SCALE_INTERVAL: Duration = Duration::from_secs(5);
/// Interval of the checks whether they are.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// Maximum number of calls that a worker runs at once.
const SLOTS: usize = 100;
const WAIT_TIMEOUT: Duration = Duration::from_secs(300);

type Error = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    unless_ended(measure()).await
}

async fn measure() -> Result<(), Error> {
    println!(
        "{CALLS} calls of {} s, {PLACES} at once in each replica, 1 to {MAX_REPLICAS} replicas, \
         one more after {} s in which all are busy\n",
        TAKES.as_secs(),
        SCALE_INTERVAL.as_secs()
    );
    println!("| workers | all calls done after, s | calls refused with 429 |\n|---|---|---|");
    for workers in [1, 3] {
        let (took, refused) = run(workers).await?;
        println!("| {workers} | {:.1} | {refused} |", took.as_secs_f64());
    }
    Ok(())
}

/// Runs all calls with so many workers. Returns how long that took, and how many were refused.
async fn run(workers: usize) -> Result<(Duration, usize), Error> {
    let queue = Queue::start_with(Fairness::Function).await;
    queue.ensure_lane(&FunctionName::new(FUNCTION, "openfaas-fn")?).await;
    queue.fill_with(CALLS, || call(Bytes::new())).await;
    let function = Arc::new(Function::new());
    let served = function.clone();
    let url = start_functions(move |_| {
        let function = served.clone();
        async move { function.answer().await }
    })
    .await?;
    let _autoscaler = tokio::spawn(scale_up(function.clone()));
    let _workers: Vec<_> = (0..workers).map(|_| worker(&queue, &url)).collect();
    let begun = Instant::now();
    until_in(WAIT_TIMEOUT, "all calls are done", async || {
        (function.done.load(Ordering::SeqCst) >= CALLS).then_some(())
    })
    .await;
    Ok((begun.elapsed(), function.refused.load(Ordering::SeqCst)))
}

fn worker(queue: &Queue, function_url: &str) -> Program {
    let (nats, admin, slots) = (queue.nats.url(), free_addr().to_string(), SLOTS.to_string());
    let settings = [
        ("nats_url", &nats[..]),
        ("queue_name", QUEUE),
        ("function_url", function_url),
        ("http_addr", &admin),
        ("max_inflight", &slots),
        ("function_adaptive", "true"),
        ("log_encoding", "json"),
    ];
    Program::start_unheard("asyncqueue-worker", &settings)
}

/// The replicas of a function.
struct Function {
    /// Number of calls that they take at once.
    places: AtomicUsize,
    running: AtomicUsize,
    done: AtomicUsize,
    refused: AtomicUsize,
}

impl Function {
    fn new() -> Self {
        let [running, done, refused] = [(); 3].map(|()| AtomicUsize::new(0));
        Self { places: AtomicUsize::new(PLACES), running, done, refused }
    }

    async fn answer(&self) -> Response<Full<Bytes>> {
        if self.running.fetch_add(1, Ordering::SeqCst) >= self.places.load(Ordering::SeqCst) {
            self.running.fetch_sub(1, Ordering::SeqCst);
            self.refused.fetch_add(1, Ordering::SeqCst);
            let mut response = Response::new(Full::new(Bytes::new()));
            *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
            return response;
        }
        sleep(TAKES).await;
        self.running.fetch_sub(1, Ordering::SeqCst);
        self.done.fetch_add(1, Ordering::SeqCst);
        Response::new(Full::new(Bytes::new()))
    }
}

/// Adds a replica while the last one is in use.
async fn scale_up(function: Arc<Function>) {
    let mut busy_since: Option<Instant> = None;
    loop {
        sleep(CHECK_INTERVAL).await;
        let places = function.places.load(Ordering::SeqCst);
        let is_busy = function.running.load(Ordering::SeqCst) + PLACES > places;
        let since = busy_since.filter(|_| is_busy).or(is_busy.then(Instant::now));
        busy_since = since.filter(|since| since.elapsed() < SCALE_INTERVAL);
        if since.is_some() && busy_since.is_none() && places < PLACES * MAX_REPLICAS {
            function.places.store(places + PLACES, Ordering::SeqCst);
        }
    }
}
