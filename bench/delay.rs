//! `bench/run delay`: what delayed calls cost the other calls, and how late they run. One
//! worker and one nats-server, with and without delayed calls that are not due.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use asyncqueue::{Invocation, jiff::Timestamp};
use asyncqueue_bench::{Queue, call, dispatch::Received, per_second, percentile, start_functions};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Collected, Full};
use test_support::{
    process::{resident_bytes, unless_ended},
    wait::until_in,
};
use tokio::time::sleep;

/// Delayed calls.
const DELAYED: usize = 200_000;
/// Calls without a delay, of one run.
const CALLS: usize = 100_000;
/// Calls that one worker runs at once.
const IN_FLIGHT: usize = 64;
/// Delayed calls that become due while nothing else runs, and the time over which they do.
const DUE: u32 = 5_000;
const DUE_WITHIN: Duration = Duration::from_secs(20);
const WAIT_TIMEOUT: Duration = Duration::from_secs(300);

type Error = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    unless_ended(measure()).await
}

async fn measure() -> Result<(), Error> {
    println!(
        "One worker, {CALLS} calls without a delay, {IN_FLIGHT} at once; then {DUE} delayed calls \
         that become due within {} s\n",
        DUE_WITHIN.as_secs()
    );
    println!(
        "| delayed calls that are not due | stored, calls/s | run, calls/s | broker, MB | worker, \
         MB | lateness p50, ms | p99, ms |\n|---|---|---|---|---|---|---|"
    );
    let mut rates = Vec::new();
    for delayed in [0, DELAYED] {
        rates.push(next_to(delayed).await?);
    }
    let ratio = |of: fn(&Rates) -> f64| of(&rates[1]) / of(&rates[0]);
    println!(
        "| ratio | {:.2} | {:.2} | | | | |",
        ratio(|rates| rates.stored),
        ratio(|rates| rates.run)
    );
    Ok(())
}

/// Calls in a second.
struct Rates {
    stored: f64,
    run: f64,
}

/// The function: it records how late delayed calls are.
#[derive(Default)]
struct Server {
    received: Received,
    late: Mutex<Vec<Duration>>,
    /// Calls that came before their time.
    early: AtomicUsize,
}

/// Measures calls next to so many delayed ones.
async fn next_to(delayed: usize) -> Result<Rates, Error> {
    let (queue, server) = (Queue::start().await, Arc::new(Server::default()));
    let function = server.clone();
    let url = start_functions(move |request| answer(request, function.clone())).await?;
    let worker = queue.worker(&url, IN_FLIGHT);
    let far = Timestamp::now() + Duration::from_secs(6 * 3600);
    queue.fill_with(delayed, || delayed_call(far)).await;
    until_in(WAIT_TIMEOUT, "the delayed calls are handed back", async || {
        (unacknowledged(&queue).await? == delayed as u64).then_some(())
    })
    .await;
    // Until nothing is handed back any more.
    sleep(Duration::from_secs(2)).await;

    let begun = Instant::now();
    queue.fill_with(CALLS, || call(Bytes::from_static(b"x"))).await;
    let stored = per_second(CALLS, begun.elapsed());
    server.received.reaches(CALLS).await;
    let run = per_second(CALLS, begun.elapsed());

    let now = Timestamp::now();
    let next = AtomicU32::new(0);
    queue
        .fill_with(DUE as usize, || {
            let number = next.fetch_add(1, Ordering::Relaxed);
            delayed_call(now + Duration::from_secs(5) + DUE_WITHIN * number / DUE)
        })
        .await;
    server.received.reaches(CALLS + DUE as usize).await;
    if server.early.load(Ordering::SeqCst) > 0 {
        return Err("a call ran before its time".into());
    }
    let mut late = server.late.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let memory = |id| resident_bytes(id) / (1 << 20);
    println!(
        "| {delayed} | {stored:.0} | {run:.0} | {} | {} | {:.0} | {:.0} |",
        memory(queue.nats.id()),
        memory(worker.id()),
        percentile(&mut late, 50),
        percentile(&mut late, 99),
    );
    Ok(Rates { stored, run })
}

/// A call that does not run before this time, which is its body.
fn delayed_call(not_before: Timestamp) -> Invocation {
    let body = Bytes::from(not_before.to_string());
    Invocation { not_before: Some(not_before), ..call(body) }
}

async fn answer(
    request: Request<hyper::body::Incoming>,
    server: Arc<Server>,
) -> Response<Full<Bytes>> {
    let now = Timestamp::now();
    let body = request.into_body().collect().await.map(Collected::to_bytes).unwrap_or_default();
    let due = std::str::from_utf8(&body).ok().and_then(|text| text.parse::<Timestamp>().ok());
    if let Some(due) = due {
        match Duration::try_from(now.duration_since(due)) {
            Ok(late) => server.late.lock().unwrap_or_else(PoisonError::into_inner).push(late),
            Err(_) => {
                server.early.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
    server.received.record();
    Response::new(Full::new(Bytes::new()))
}

/// Calls that were delivered and are not acknowledged, if all were delivered.
async fn unacknowledged(queue: &Queue) -> Option<u64> {
    let stream = queue.js.get_stream(&queue.spec.stream).await.ok()?;
    let info = stream.consumer_info(&queue.spec.durable).await.ok()?;
    (info.num_pending == 0).then_some(info.num_ack_pending as u64)
}
