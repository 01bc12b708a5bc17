//! `bench/run fairness`: how long calls of other functions wait next to the backlog of one
//! function, and what lanes cost: with `fairness: Fifo` and with `fairness: Function`, in one run.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use asyncqueue::{FunctionName, Invocation, lanes::Fairness};
use asyncqueue_bench::{
    Queue, call,
    dispatch::{self, Costs, Received},
    per_second, percentile, start_functions,
};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use test_support::process::{processor_time, unless_ended};
use tokio::time::{interval, sleep};

/// Calls in the backlog of one function, and how long each takes.
const BACKLOG: usize = 20_000;
const HEAVY: Duration = Duration::from_millis(20);
/// Calls that one worker runs at once.
const SLOTS: usize = 10;
/// The other functions, how many calls of all of them come in a second, and for how long.
const LIGHT_FUNCTIONS: usize = 19;
const LIGHT_RATE: u32 = 20;
const LIGHT_SECONDS: u32 = 15;
/// Calls of a run that measures the dispatch, its functions and how many run at once.
const CALLS: usize = 40_000;
const FUNCTIONS: usize = 20;
const IN_FLIGHT: usize = 64;
const RUNS: usize = 5;

const BOTH: [Fairness; 2] = [Fairness::Fifo, Fairness::Function];

type Error = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    unless_ended(measure()).await
}

async fn measure() -> Result<(), Error> {
    println!(
        "One worker with {SLOTS} slots, {BACKLOG} calls of {} ms of one function; {LIGHT_RATE} \
         calls/s of {LIGHT_FUNCTIONS} others for {LIGHT_SECONDS} s\n",
        HEAVY.as_millis()
    );
    println!(
        "| fairness | light calls that ran | p50, ms | p99, ms | heavy calls/s | broker, \
         processor seconds |\n|---|---|---|---|---|---|"
    );
    for fairness in BOTH {
        next_to_a_backlog(fairness).await?;
    }
    println!(
        "\n{CALLS} calls of {FUNCTIONS} functions, {IN_FLIGHT} at once, {RUNS} runs of each, in \
         turn\n"
    );
    println!(
        "| fairness | calls/s, median | worker, µs of processor time a call | broker, µs |\n\
         |---|---|---|---|"
    );
    let benches = [Bench::start(Fairness::Fifo).await?, Bench::start(Fairness::Function).await?];
    let mut runs = [Vec::new(), Vec::new()];
    for _ in 0..RUNS {
        for (bench, runs) in benches.iter().zip(&mut runs) {
            runs.push(bench.dispatch().await);
        }
    }
    let mut rates = Vec::new();
    for (fairness, runs) in BOTH.iter().zip(&runs) {
        let Costs { rate, dispatcher, broker } = Costs::median(runs);
        rates.push(rate);
        println!("| {fairness} | {rate:.0} | {dispatcher:.1} | {broker:.1} |");
    }
    println!("| ratio | {:.2} | | |", rates[1] / rates[0]);
    Ok(())
}

/// A queue and the server of its functions.
struct Bench {
    queue: Queue,
    server: Arc<Server>,
    url: String,
}

/// The server: the heavy function takes its time, and others answer at once.
#[derive(Default)]
struct Server {
    received: Received,
    heavy: AtomicUsize,
    /// When a light call arrived, by its number.
    arrived: Mutex<Vec<(usize, Instant)>>,
    is_over: AtomicBool,
}

impl Bench {
    async fn start(fairness: Fairness) -> Result<Self, Error> {
        let queue = Queue::start_with(fairness).await;
        let server = Arc::new(Server::default());
        let functions = server.clone();
        let url = start_functions(move |request| answer(request, functions.clone())).await?;
        Ok(Self { queue, server, url: format!("{url}/{{function}}") })
    }

    /// Stores a call, and ensures its lane, as producers do.
    async fn submit(&self, call: &Invocation) -> Result<(), Error> {
        self.queue.publish(call).await.await?;
        self.queue.ensure_lane(&call.function).await;
        Ok(())
    }

    /// How fast calls of many functions are dispatched.
    async fn dispatch(&self) -> Costs {
        let next = AtomicUsize::new(0);
        let call_of_next = || {
            let number = next.fetch_add(1, Ordering::Relaxed) % FUNCTIONS;
            Invocation { function: function(number), ..call(Bytes::from_static(b"x")) }
        };
        for number in 0..FUNCTIONS {
            self.queue.ensure_lane(&function(number)).await;
        }
        self.queue.fill_with(CALLS, call_of_next).await;
        let worker = self.queue.worker(&self.url, IN_FLIGHT);
        let costs = dispatch::costs(&self.queue, &worker, &self.server.received, CALLS).await;
        dispatch::end(&self.queue, worker, 0).await;
        costs
    }
}

/// Measures how long light calls wait next to a backlog of another function.
async fn next_to_a_backlog(fairness: Fairness) -> Result<(), Error> {
    let bench = Bench::start(fairness).await?;
    let heavy = FunctionName::new("heavy", "openfaas-fn")?;
    let call_of_heavy = || Invocation { function: heavy.clone(), ..call(Bytes::from_static(b"x")) };
    bench.queue.fill_with(BACKLOG, call_of_heavy).await;
    bench.submit(&call_of_heavy()).await?;
    let mut worker = bench.queue.worker(&bench.url, SLOTS);
    bench.server.received.reaches(100).await;
    let count = || bench.server.heavy.load(Ordering::SeqCst);
    let broker = || processor_time(bench.queue.nats.id());
    let (begun, heavy_before, broker_before) = (Instant::now(), count(), broker());
    let mut sent = Vec::new();
    let mut ticks = interval(Duration::from_secs(1) / LIGHT_RATE);
    for number in 0..usize::try_from(LIGHT_RATE * LIGHT_SECONDS)? {
        ticks.tick().await;
        let light = function(number % LIGHT_FUNCTIONS);
        let light = Invocation { function: light, ..call(number.to_string().into()) };
        sent.push(Instant::now());
        bench.submit(&light).await?;
    }
    // Those that were stored last.
    sleep(Duration::from_millis(500)).await;
    let (elapsed, heavy_calls) = (begun.elapsed(), count() - heavy_before);
    let broker_time = broker().saturating_sub(broker_before);
    let mut times: Vec<_> = bench
        .server
        .arrived()
        .iter()
        .map(|(number, at)| at.duration_since(sent[*number]))
        .collect();
    let ran = format!("{} of {}", times.len(), sent.len());
    let [p50, p99] = [50, 99].map(|percent| {
        if times.is_empty() {
            return "none ran".to_owned();
        }
        format!("{:.1}", percentile(&mut times, percent))
    });
    println!(
        "| {fairness} | {ran} | {p50} | {p99} | {:.0} | {:.2} |",
        per_second(heavy_calls, elapsed),
        broker_time.as_secs_f64()
    );
    bench.server.is_over.store(true, Ordering::SeqCst);
    bench.queue.purge().await;
    worker.signal("TERM");
    worker.ended().await;
    Ok(())
}

fn function(number: usize) -> FunctionName {
    FunctionName::new(&format!("light-{number}"), "openfaas-fn").unwrap_or_else(|_| unreachable!())
}

impl Server {
    fn arrived(&self) -> MutexGuard<'_, Vec<(usize, Instant)>> {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn answer(
    request: Request<hyper::body::Incoming>,
    server: Arc<Server>,
) -> Response<Full<Bytes>> {
    let (at, is_heavy) = (Instant::now(), request.uri().path().contains("heavy"));
    let body = request.into_body().collect().await;
    let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    server.received.record();
    if is_heavy {
        if !server.is_over.load(Ordering::SeqCst) {
            sleep(HEAVY).await;
        }
        server.heavy.fetch_add(1, Ordering::SeqCst);
    } else if let Some(number) = std::str::from_utf8(&body).ok().and_then(|body| body.parse().ok())
    {
        server.arrived().push((number, at));
    }
    Response::new(Full::default())
}
