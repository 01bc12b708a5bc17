//! `bench/run results`: how long a client waits for the result of its call, next to the same
//! function called synchronously; how long it takes to read a kept result; what results cost the
//! dispatch; and how much memory they take.
//!
//! Everything runs on this machine and shares its processors: nats-server with file storage, the
//! load, the gateway, a worker and the function.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use asyncqueue::{
    CallId, EndState, Invocation,
    directory::{Directory, QueueEntry, ResultsSettings, store::DirectoryStore},
    kept_results,
    message::kept_result::KeptResult,
};
use asyncqueue_bench::{
    FUNCTION, QUEUE, Queue, call,
    dispatch::{self, Costs, Received},
    load::{Client, Error, Load, Request},
    median, percentile, start_functions,
};
use bytes::Bytes;
use futures::StreamExt;
use http::Response;
use http_body_util::Full;
use test_support::process::{resident_bytes, unless_ended};
use tokio::time::sleep;

/// How long the function takes.
const TAKES: Duration = Duration::from_millis(1);
/// Requests that are sent one at a time.
const ALONE: usize = 2_000;
/// Requests in a second, over so many connections.
const RATE: u32 = 500;
const CONNECTIONS: usize = 32;
/// How long they are sent.
const RUN: Duration = Duration::from_secs(10);

/// Calls that a worker runs at once.
const IN_FLIGHT: usize = 64;
/// Calls of one run of the dispatch, runs of each kind, and the body of a call.
const CALLS: usize = 40_000;
const RUNS: usize = 5;
const BODY: Bytes = Bytes::from_static(&[b'x'; 256]);

/// How long a result is kept: longer than any run.
const KEPT: Duration = Duration::from_secs(3600);
/// Kept results that are read, one after the other.
const READ: usize = 2_000;
/// Kept results whose memory is measured, after the first ones, which take memory that stays.
const STORED: usize = 200_000;
const STORED_FIRST: usize = 2_000;
const STORING: usize = 256;

#[tokio::main]
async fn main() -> Result<(), Error> {
    unless_ended(measure()).await
}

async fn measure() -> Result<(), Error> {
    report_latencies().await?;
    println!();
    report_dispatch().await?;
    println!();
    report_memory().await
}

/// How long a client waits for a result, and to read one.
async fn report_latencies() -> Result<(), Error> {
    println!(
        "A function of {} ms; {ALONE} requests one at a time, and {RATE}/s over {CONNECTIONS} \
         connections for {} s\n",
        TAKES.as_millis(),
        RUN.as_secs()
    );
    println!("| | p50, ms | p99, ms |\n|---|---|---|");
    let queue = Queue::start().await;
    queue.fill_directory(1).await;
    let took = Arc::new(Mutex::new(Vec::new()));
    let times = took.clone();
    let url = start_functions(move |_| take_time(times.clone())).await?;
    let (addr, _gateway) = queue.gateway_with(&[("function_url", &url)]).await;
    let worker = queue.worker(&url, IN_FLIGHT);

    let path = format!("/async-function/{FUNCTION}");
    let waited = Request::new("POST", &path, &[("Prefer", "wait=5")], BODY.len(), 200);
    let path = format!("/function/{FUNCTION}");
    let synchronous = Request::new("POST", &path, &[], BODY.len(), 200);
    let both =
        [("submit to result, Prefer: wait=5", waited), ("synchronous, /function", synchronous)];
    // The worker is there once it has run a call.
    Client::connect(addr).await?.send(&both[0].1).await?;
    for (what, request) in &both {
        let mut times = one_at_a_time(addr, std::iter::repeat_n(request.clone(), ALONE)).await?;
        print_times(&format!("{what}, one at a time"), &mut times);
    }
    for (what, request) in &both {
        let load = Load { addr, connections: CONNECTIONS, request: request.clone() };
        let mut times = load.latencies(RATE, RUN).await?;
        print_times(&format!("{what}, {RATE}/s"), &mut times);
    }
    let mut times = std::mem::take(&mut *took.lock().unwrap_or_else(PoisonError::into_inner));
    print_times("the function itself", &mut times);
    print_times("a kept result is read", &mut read_results(&queue, addr).await?);
    dispatch::end(&queue, worker, 0).await;
    Ok(())
}

fn print_times(what: &str, times: &mut [Duration]) {
    let [p50, p99] = [50, 99].map(|percent| percentile(times, percent));
    println!("| {what} | {p50:.2} | {p99:.2} |");
}

/// The function. It sleeps on a thread of its own: timers of the runtime are late by up to 1 ms.
async fn take_time(times: Arc<Mutex<Vec<Duration>>>) -> Response<Full<Bytes>> {
    let begun = Instant::now();
    let _ = tokio::task::spawn_blocking(|| std::thread::sleep(TAKES)).await;
    times.lock().unwrap_or_else(PoisonError::into_inner).push(begun.elapsed());
    Response::new(Full::new(Bytes::from_static(b"ok")))
}

/// How long it takes to read each of many results, which a worker has kept.
async fn read_results(queue: &Queue, addr: std::net::SocketAddr) -> Result<Vec<Duration>, Error> {
    let ids: Vec<_> = (0..READ).map(|_| CallId::generate(&queue.spec.queue)).collect();
    let next = Mutex::new(ids.iter());
    let next_call = || {
        let id = next.lock().unwrap_or_else(PoisonError::into_inner).next();
        Invocation { call_id: id.cloned().unwrap_or_else(|| unreachable!()), ..kept_call() }
    };
    queue.fill_with(READ, next_call).await;
    queue.empties(0).await;
    let read = |id| Request::new("GET", &format!("/async-function/{id}/result"), &[], 0, 200);
    one_at_a_time(addr, ids.iter().map(read)).await
}

/// How long the answer to each request takes, over one connection.
async fn one_at_a_time(
    addr: SocketAddr,
    requests: impl Iterator<Item = Request>,
) -> Result<Vec<Duration>, Error> {
    let mut client = Client::connect(addr).await?;
    let mut times = Vec::new();
    for request in requests {
        let begun = Instant::now();
        client.send(&request).await?;
        times.push(begun.elapsed());
    }
    Ok(times)
}

/// A call whose result is kept.
fn kept_call() -> Invocation {
    Invocation { keep_result: Some(KEPT), ..call(BODY) }
}

/// Calls whose dispatch is measured.
struct Kind {
    what: &'static str,
    /// What the entry of the queue says of results.
    results: Option<ResultsSettings>,
    next: fn() -> Invocation,
}

/// What results cost the dispatch.
async fn report_dispatch() -> Result<(), Error> {
    println!(
        "{CALLS} calls of {} bytes, {IN_FLIGHT} at once, {RUNS} runs of each, in turn\n",
        BODY.len()
    );
    println!(
        "| calls, and their queue | calls/s, median | of those without | worker, µs of processor \
         time a call | broker, µs |\n|---|---|---|---|---|"
    );
    let kind = |what, results, next| Kind { what, results, next };
    let kinds = [
        kind("no results", None, || call(BODY)),
        kind("no results, spec.results set", Some(ResultsSettings::default()), || call(BODY)),
        kind("results kept", Some(ResultsSettings::default()), kept_call),
    ];
    let received = Arc::new(Received::default());
    let counting = received.clone();
    let url = start_functions(move |_| {
        counting.record();
        std::future::ready(Response::new(Full::new(Bytes::from_static(b"ok"))))
    })
    .await?;
    let queue = Queue::start().await;
    let mut runs = [const { Vec::new() }; 3];
    for _ in 0..RUNS {
        for (Kind { results, next, .. }, runs) in kinds.iter().zip(&mut runs) {
            write_directory(&queue, results.clone()).await?;
            queue.fill_with(CALLS, next).await;
            let worker = queue.worker(&url, IN_FLIGHT);
            runs.push(dispatch::costs(&queue, &worker, &received, CALLS).await);
            dispatch::end(&queue, worker, 0).await;
            // No run drops the results of the one before.
            if let Ok(results) = queue.js.get_stream(queue.spec.queue.results_stream()).await {
                results.purge().await?;
            }
        }
    }
    let without = median(&runs[0].iter().map(|run| run.rate).collect::<Vec<_>>());
    for (Kind { what, .. }, runs) in kinds.iter().zip(&runs) {
        let Costs { rate, dispatcher, broker } = Costs::median(runs);
        let ratio = rate / without;
        println!("| {what} | {rate:.0} | {ratio:.2} | {dispatcher:.1} | {broker:.1} |");
    }
    Ok(())
}

/// Writes the entry of the queue, with these settings of results.
async fn write_directory(queue: &Queue, results: Option<ResultsSettings>) -> Result<(), Error> {
    let mut directory = Directory::default();
    let entry = QueueEntry { results, ..QueueEntry::new(QUEUE, QUEUE) };
    directory.queues.insert(queue.spec.queue.clone(), entry);
    DirectoryStore::open(&queue.js, 1).await?.sync(&directory).await?;
    Ok(())
}

/// How much memory of nats-server kept results take, and how many bytes of its store.
async fn report_memory() -> Result<(), Error> {
    let queue = Queue::start().await;
    let max_messages = i64::try_from(STORED_FIRST + STORED)?;
    let settings = ResultsSettings { max_messages, ..ResultsSettings::default() };
    kept_results::ensure_stream(&queue.js, &queue.spec.queue, &queue.spec.stream, &settings)
        .await?;
    let before = stored(&queue, 0..STORED_FIRST).await?;
    let after = stored(&queue, STORED_FIRST..STORED_FIRST + STORED).await?;
    let of_one = |before: u64, after: u64| {
        let bytes = u32::try_from(after.saturating_sub(before) / STORED as u64);
        f64::from(bytes.unwrap_or(u32::MAX)) / 1e3
    };
    println!("{STORED} kept results with a body of {} bytes\n", BODY.len());
    println!("| | memory of nats-server, KB | bytes of the stream, KB |\n|---|---|---|");
    println!(
        "| a kept result | {:.2} | {:.2} |",
        of_one(before.0, after.0),
        of_one(before.1, after.1)
    );
    Ok(())
}

/// Stores the results of calls with these sequences. Returns the resident memory of nats-server and
/// the bytes of the stream.
async fn stored(queue: &Queue, sequences: std::ops::Range<usize>) -> Result<(u64, u64), Error> {
    let name = &queue.spec.queue;
    let mut storing = futures::stream::iter(sequences)
        .map(async |sequence| {
            let call = Invocation { call_id: CallId::generate(name), ..kept_call() };
            let sequence = u64::try_from(sequence)? + 1;
            let result = KeptResult::new(&call, sequence, EndState::Done, 200);
            let result = KeptResult { body: BODY, ..result };
            kept_results::store(&queue.js, name, &result, KEPT).await.map_err(Error::from)
        })
        .buffer_unordered(STORING);
    while let Some(stored) = storing.next().await {
        stored?;
    }
    // What is not used any more is freed.
    sleep(Duration::from_secs(3)).await;
    let info = queue.js.get_stream(name.results_stream()).await?.cached_info().clone();
    Ok((resident_bytes(queue.nats.id()), info.state.bytes))
}
