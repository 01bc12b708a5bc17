//! `make bench-worker`: how fast the worker dispatches calls, next to the limit of broker and HTTP
//! measured in the same run; how long a call is under way; and how much memory a worker takes.
//!
//! Everything runs on this machine and shares its processors: nats-server with file storage, the
//! function, the worker. Runs of worker and limit alternate, and the medians are compared, since
//! machines are noisy.

use std::{
    future::IntoFuture,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_nats::jetstream::{AckKind, consumer::PullConsumer};
use asyncqueue::{FunctionName, Invocation};
use asyncqueue_bench::{
    QUEUE, Queue, call,
    dispatch::{self, Costs, Received},
    median, megabytes, percentile, start_functions,
};
use bytes::Bytes;
use futures::TryStreamExt;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use test_support::{
    process::{resident_bytes, unless_ended},
    program::Program,
};
use tokio::sync::Notify;

/// Calls of one run.
const CALLS: usize = 40_000;
/// Calls at once, of the worker and of the limit alike.
const IN_FLIGHT: usize = 64;
/// Runs of each.
const RUNS: usize = 5;
/// The body of a call.
const BODY: Bytes = Bytes::from_static(&[b'x'; 256]);
/// Of the run that measures how long a call is under way.
const RATE: u64 = 1000;
const RATE_SECONDS: u64 = 10;
/// Calls in flight at once, for memory.
const HELD: usize = 10_000;
/// So many of them begin together: each is a new connection, of which a listener keeps a thousand
/// that it has not accepted.
const AT_ONCE: usize = 500;
/// Calls of a function that is scaled to zero, next to which others run.
const AT_ZERO: usize = 20_000;
/// Until each of these waits for up to a minute.
const SETTLED: Duration = Duration::from_secs(100);

/// The first argument of the process that is the limit.
const LIMIT: &str = "limit";

type Error = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().collect();
    // `cargo bench` passes flags of its own.
    if let [_, mode, nats, function, in_flight] = &arguments[..]
        && mode == LIMIT
    {
        return limit(nats, function, in_flight.parse()?).await;
    }
    unless_ended(measure()).await
}

async fn measure() -> Result<(), Error> {
    let bench = Bench::start().await?;
    if std::env::var_os("bench_at_zero").is_some() {
        return bench.report_next_to_zero().await;
    }
    println!(
        "{CALLS} calls of {} bytes, {IN_FLIGHT} at once, file storage, {RUNS} runs of each\n",
        BODY.len()
    );
    println!(
        "| run | worker, calls/s | limit, calls/s | ratio | processor time of a call, \
         µs: worker + broker | limit + broker |\n\
         |---|---|---|---|---|---|"
    );
    let mut runs = Vec::new();
    for number in 1..=RUNS {
        let run = Run { limit: bench.limit().await?, worker: bench.worker().await? };
        println!("| {number} | {run} |");
        runs.push(run);
    }
    println!("| median | {} |\n", Run::median(&runs));

    println!("| | worker | limit | ratio |\n|---|---|---|---|");
    let mut limit = bench.latencies(bench.start_limit(IN_FLIGHT)).await?;
    let mut worker = bench.latencies(bench.start_worker(IN_FLIGHT)).await?;
    for percent in [50, 99, 100] {
        let times = [&mut worker, &mut limit].map(|times| percentile(times, percent));
        let what = format!("p{percent} from submit to arrival at the function, ms, {RATE} calls/s");
        print_pair(&what, times, 2);
    }
    let limit = bench.memory(bench.start_limit(HELD)).await?;
    let worker = bench.memory(bench.start_worker(HELD)).await?;
    print_pair("resident MB, idle", [worker.0, limit.0], 1);
    print_pair(&format!("resident MB, {HELD} calls in flight"), [worker.1, limit.1], 1);
    println!();
    bench.report_next_to_zero().await
}

/// The row of a figure that both have, with so many decimals.
fn print_pair(what: &str, [worker, limit]: [f64; 2], decimals: usize) {
    println!("| {what} | {worker:.decimals$} | {limit:.decimals$} | {:.2} |", worker / limit);
}

/// Both ways, one after the other.
struct Run {
    worker: Costs,
    limit: Costs,
}

impl Run {
    /// Each figure's own median.
    fn median(runs: &[Self]) -> Self {
        let costs =
            |of: fn(&Self) -> Costs| Costs::median(&runs.iter().map(of).collect::<Vec<_>>());
        Self { worker: costs(|run| run.worker), limit: costs(|run| run.limit) }
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { worker, limit } = self;
        let ratio = worker.rate / limit.rate;
        write!(f, "{:.0} | {:.0} | {ratio:.2}", worker.rate, limit.rate)?;
        for Costs { dispatcher, broker, .. } in [worker, limit] {
            write!(f, " | {dispatcher:.0} + {broker:.0}")?;
        }
        Ok(())
    }
}

/// A queue, a function, and what they count.
struct Bench {
    queue: Queue,
    function: Arc<Function>,
    url: String,
    /// Calls that stay in the queue.
    kept: AtomicU64,
}

/// The function: counts, and holds its answers back on demand.
#[derive(Default)]
struct Function {
    received: Received,
    arrived: std::sync::Mutex<Vec<(u64, Instant)>>,
    holds: std::sync::atomic::AtomicBool,
    released: Notify,
}

impl Bench {
    async fn start() -> Result<Self, Error> {
        let queue = Queue::start().await;
        let function = Arc::new(Function::default());
        let served = function.clone();
        let url = start_functions(move |request| answer(request, served.clone())).await?;
        Ok(Self { queue, function, url, kept: AtomicU64::new(0) })
    }

    /// The real worker.
    async fn worker(&self) -> Result<Costs, Error> {
        self.queue.fill(CALLS, &BODY).await;
        self.measure(self.start_worker(IN_FLIGHT)).await
    }

    /// How fast it is next to the calls of a function at zero, and without them: before and after.
    async fn report_next_to_zero(&self) -> Result<(), Error> {
        let mut without = Vec::new();
        for _ in 0..RUNS {
            without.push(self.worker().await?.rate);
        }
        let idle = FunctionName::new("idle", "openfaas-fn")?;
        self.queue.scale_to_zero(&idle).await;
        let call_of_idle = || Invocation { function: idle.clone(), ..call(BODY) };
        self.queue.fill_with(AT_ZERO, call_of_idle).await;
        self.kept.store(AT_ZERO as u64, Ordering::SeqCst);
        let worker = self.start_worker(IN_FLIGHT);
        tokio::time::sleep(SETTLED).await;
        self.ends(worker).await;
        let mut with = Vec::new();
        for _ in 0..RUNS {
            with.push(self.worker().await?.rate);
        }
        self.queue.purge().await;
        self.kept.store(0, Ordering::SeqCst);
        for _ in 0..RUNS {
            without.push(self.worker().await?.rate);
        }
        let (with, without) = (median(&with), median(&without));
        println!("| | next to them | without | ratio |\n|---|---|---|---|");
        println!(
            "| calls/s next to {AT_ZERO} calls of a function at zero | {with:.0} | {without:.0} | \
             {:.2} |",
            with / without
        );
        Ok(())
    }

    /// The least that does it.
    async fn limit(&self) -> Result<Costs, Error> {
        self.queue.fill(CALLS, &BODY).await;
        self.measure(self.start_limit(IN_FLIGHT)).await
    }

    async fn measure(&self, program: Program) -> Result<Costs, Error> {
        let costs = dispatch::costs(&self.queue, &program, &self.function.received, CALLS).await;
        self.ends(program).await;
        Ok(costs)
    }

    /// How long calls are under way that come one by one.
    async fn latencies(&self, program: Program) -> Result<Vec<Duration>, Error> {
        // It is there when a first call has come through.
        let before = self.function.received.count();
        self.queue.fill(1, &BODY).await;
        self.receives(before + 1).await;
        self.function.arrived.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clear();

        let mut sent = Vec::new();
        let mut ticks = tokio::time::interval(Duration::from_micros(1_000_000 / RATE));
        let mut acks = tokio::task::JoinSet::new();
        for number in 0..RATE * RATE_SECONDS {
            ticks.tick().await;
            // As long as all others, for a reader to tell its number from.
            let body = format!("{number:0>width$}", width = BODY.len());
            let call = call(body.into());
            sent.push(Instant::now());
            acks.spawn(self.queue.publish(&call).await.into_future());
        }
        while let Some(ack) = acks.join_next().await {
            ack??;
        }
        self.ends(program).await;
        let arrived =
            self.function.arrived.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Ok(arrived
            .iter()
            .filter_map(|(number, at)| {
                Some(at.duration_since(*sent.get(usize::try_from(*number).ok()?)?))
            })
            .collect())
    }

    /// Its resident memory in MB: idle, and with many calls in flight.
    async fn memory(&self, program: Program) -> Result<(f64, f64), Error> {
        // It is there, and idle again, when a first call has come through.
        let before = self.function.received.count();
        self.queue.fill(1, &BODY).await;
        self.receives(before + 1).await;
        self.empties().await;
        let idle = resident_bytes(program.id());
        self.function.holds.store(true, Ordering::SeqCst);
        let before = self.function.received.count();
        for begun in (AT_ONCE..=HELD).step_by(AT_ONCE) {
            self.queue.fill(AT_ONCE, &BODY).await;
            self.receives(before + begun).await;
        }
        let held = resident_bytes(program.id());
        self.function.holds.store(false, Ordering::SeqCst);
        self.function.released.notify_waiters();
        self.ends(program).await;
        Ok((megabytes(idle), megabytes(held)))
    }

    fn start_worker(&self, in_flight: usize) -> Program {
        self.queue.worker(&self.url, in_flight)
    }

    /// The least that does it, in a process of its own as the worker is.
    fn start_limit(&self, in_flight: usize) -> Program {
        Program::start_again(&[LIMIT, &self.queue.nats.url(), &self.url, &in_flight.to_string()])
    }

    /// Ends it when it has done all its calls.
    async fn ends(&self, program: Program) {
        dispatch::end(&self.queue, program, self.kept.load(Ordering::SeqCst)).await;
    }

    async fn receives(&self, calls: usize) {
        self.function.received.reaches(calls).await;
    }

    async fn empties(&self) {
        self.queue.empties(self.kept.load(Ordering::SeqCst)).await;
    }
}

/// The least that does it: a pull in batches, a pooled HTTP client, an acknowledgement that no one
/// waits for. No lease, no retry, no callback, no log. It runs until it is ended.
async fn limit(nats: &str, function: &str, in_flight: usize) -> Result<(), Error> {
    let js = async_nats::jetstream::new(async_nats::connect(nats).await?);
    let consumer: PullConsumer =
        js.get_consumer_from_stream(format!("{QUEUE}-workers"), QUEUE).await?;
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let uri: http::Uri = format!("{function}/").parse()?;
    let messages = consumer.stream().max_messages_per_batch(in_flight * 4).messages().await?;
    messages
        .map_err(Error::from)
        .try_for_each_concurrent(in_flight, |message| {
            let (client, uri) = (client.clone(), uri.clone());
            async move {
                tokio::spawn(async move {
                    let mut request = Request::new(Full::new(message.payload.clone()));
                    *request.method_mut() = Method::POST;
                    *request.uri_mut() = uri;
                    client.request(request).await?.into_body().collect().await?;
                    message.ack_with(AckKind::Ack).await
                })
                .await?
            }
        })
        .await
}

async fn answer(
    request: Request<hyper::body::Incoming>,
    function: Arc<Function>,
) -> Response<Full<Bytes>> {
    let at = Instant::now();
    let body = request
        .into_body()
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes)
        .unwrap_or_default();
    if let Some(number) = std::str::from_utf8(&body).ok().and_then(|body| body.parse().ok()) {
        function
            .arrived
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .push((number, at));
    }
    let released = function.released.notified();
    function.received.record();
    if function.holds.load(Ordering::SeqCst) {
        released.await;
    }
    Response::new(Full::new(Bytes::from_static(b"ok")))
}
