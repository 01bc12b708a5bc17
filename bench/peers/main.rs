//! `make bench-peers`: AsyncQueue next to other queues, in the same run: how many jobs 64 clients
//! store in a second, how many a worker takes from a backlog and posts to a function, and how long
//! a job takes from the one to the other.
//!
//! `AsyncQueue` is measured from end to end: calls over HTTP to the gateway, stored by nats-server,
//! made by the worker. Its peers are [Faktory](https://github.com/contribsys/faktory), a server
//! with a Redis of its own, and two libraries whose clients store jobs themselves, with no server
//! before the store: [Asynq](https://github.com/hibiken/asynq) on Redis and
//! [River](https://riverqueue.com) on PostgreSQL. `program/` is that client and that worker. Each
//! queue is measured as it is recommended, and once more as near to the other kind as its settings
//! go.
//!
//! Everything runs on this machine and shares its processors. Runs of all alternate.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use asyncqueue_bench::{load::Error, median, per_second, percentile};
use asyncqueue_runtime::server;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use test_support::{process::unless_ended, program::Program, wait::until_in};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::systems::{Kind, System};

mod programs;
mod servers;
mod systems;

/// Runs of each.
const RUNS: usize = 3;
/// Clients that store jobs, and jobs that a worker runs at once.
const CLIENTS: usize = 64;
const IN_FLIGHT: usize = 64;
/// Bytes of a job.
const BYTES: usize = 256;
/// How long jobs are stored, where the rate is measured.
const SUBMIT: Duration = Duration::from_secs(3);
/// Jobs that wait for a worker, and how long it has for them.
const BACKLOG: usize = 20_000;
const DISPATCH: Duration = Duration::from_secs(15);
/// Jobs a second where the time from submit to arrival is measured, and how long. Of a queue that
/// takes less than twice as many, half of what it takes, so that no time is one of a growing
/// backlog.
const RATE: f64 = 1000.0;
const PACE: Duration = Duration::from_secs(5);
/// Longer than anything here should take.
const WAIT_TIMEOUT: Duration = Duration::from_secs(120);

#[tokio::main]
async fn main() -> Result<(), Error> {
    unless_ended(measure()).await
}

async fn measure() -> Result<(), Error> {
    let function = Function::start().await?;
    let mut measured = Vec::new();
    for kind in Kind::ALL {
        measured.push((System::start(kind).await?, Vec::new()));
    }
    for number in 1..=RUNS {
        for (system, runs) in &mut measured {
            // It takes minutes, and prints nothing before the end.
            eprintln!("run {number} of {RUNS}: {}", system.kind.name());
            runs.push(function.run(system).await?);
        }
    }
    println!(
        "medians of {RUNS} runs of each, interleaved, and least to most in parentheses; \
         jobs of {BYTES} bytes, {CLIENTS} clients, {IN_FLIGHT} jobs at once, \
         a backlog of {BACKLOG}\n"
    );
    println!(
        "| | a job is stored when | jobs stored/s | jobs run/s | p50 from submit to arrival, ms \
         | p99, ms | at jobs/s |\n\
         |---|---|---|---|---|---|---|"
    );
    for (system, runs) in &measured {
        let kind = system.kind;
        let cells = [
            spread(runs, 0, |run| run.stored),
            spread(runs, 0, |run| run.dispatched),
            spread(runs, 2, |run| run.p50),
            spread(runs, 2, |run| run.p99),
            spread(runs, 0, |run| run.rate),
        ];
        println!("| {} | {} | {} |", kind.name(), kind.durability(), cells.join(" | "));
    }
    Ok(())
}

/// What one run comes to.
struct Run {
    /// Jobs a second.
    stored: f64,
    dispatched: f64,
    /// Milliseconds from submit to arrival.
    p50: f64,
    p99: f64,
    /// At so many jobs a second.
    rate: f64,
}

/// The median of a figure, and its range.
fn spread(runs: &[Run], digits: usize, of: fn(&Run) -> f64) -> String {
    let mut values: Vec<_> = runs.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    let (least, most) = (values[0], values[values.len() - 1]);
    format!("{:.digits$} ({least:.digits$} to {most:.digits$})", median(&values))
}

/// The function: counts, and takes down how long each job was under way that says when it was
/// submitted.
struct Function {
    url: String,
    received: Arc<Received>,
}

#[derive(Default)]
struct Received {
    jobs: AtomicUsize,
    times: Mutex<Vec<Duration>>,
}

impl Function {
    async fn start() -> Result<Self, Error> {
        let received = Arc::new(Received::default());
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let answering = received.clone();
        let handler = move |_, request| answer(request, answering.clone());
        tokio::spawn(server::serve(
            listener,
            server::Config::default(),
            handler,
            CancellationToken::new(),
            Duration::ZERO,
        ));
        Ok(Self { url, received })
    }

    /// All three, one after the other.
    async fn run(&self, system: &mut System) -> Result<Run, Error> {
        let stored = system.submit(CLIENTS, SUBMIT, BYTES).await?;
        system.purge().await?;
        system.fill(BACKLOG, BYTES).await?;
        let dispatched = self.dispatch(system).await;
        system.purge().await?;
        // Tens, so that each is asked for the same in each run.
        let rate = (stored.min(dispatched) / 2.0 / 10.0).floor() * 10.0;
        let rate = rate.clamp(10.0, RATE);
        let mut times = self.times(system, rate).await?;
        system.purge().await?;
        Ok(Run {
            stored,
            dispatched,
            p50: percentile(&mut times, 50),
            p99: percentile(&mut times, 99),
            rate,
        })
    }

    /// Jobs a second, from the first that arrives.
    async fn dispatch(&self, system: &System) -> f64 {
        let before = self.jobs();
        let worker = system.work(&self.url, IN_FLIGHT);
        self.begins(system, before).await;
        let (begun, first) = (Instant::now(), self.jobs());
        while self.jobs() < before + BACKLOG && begun.elapsed() < DISPATCH {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let rate = per_second(self.jobs() - first, begun.elapsed());
        end(worker).await;
        rate
    }

    /// How long jobs are under way.
    async fn times(&self, system: &mut System, rate: f64) -> Result<Vec<Duration>, Error> {
        let worker = system.work(&self.url, IN_FLIGHT);
        let before = self.jobs();
        system.fill(1, BYTES).await?;
        self.begins(system, before).await;
        self.received.times.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let before = self.jobs();
        let submitted = system.pace(rate, PACE, BYTES).await?;
        self.receives(before + submitted).await;
        end(worker).await;
        Ok(std::mem::take(&mut *self.received.times.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// The worker is there when a first job has come through, with all of its slots soon after.
    async fn begins(&self, system: &System, before: usize) {
        self.receives(before + 1).await;
        tokio::time::sleep(system.kind.begins_within()).await;
    }

    fn jobs(&self) -> usize {
        self.received.jobs.load(Ordering::SeqCst)
    }

    async fn receives(&self, jobs: usize) {
        until_in(WAIT_TIMEOUT, &format!("{jobs} jobs received"), async || {
            (self.jobs() >= jobs).then_some(())
        })
        .await;
    }
}

/// Ends a worker in its own time. Killed, it would leave requests behind, to which the queue might
/// give jobs of the next.
async fn end(mut worker: Program) {
    worker.signal("TERM");
    worker.ended().await;
}

/// A job's body, as `program/` makes it: with the time at its beginning.
fn body(bytes: usize) -> Bytes {
    let mut body = format!("{} ", now().as_nanos()).into_bytes();
    body.resize(bytes.max(body.len()), b'x');
    body.into()
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

async fn answer(
    request: Request<hyper::body::Incoming>,
    received: Arc<Received>,
) -> Response<Full<Bytes>> {
    let at = now();
    if let Ok(body) = request.into_body().collect().await {
        let body = body.to_bytes();
        let sent =
            body.split(|byte| *byte == b' ').next().and_then(|sent| std::str::from_utf8(sent).ok());
        if let Some(sent) = sent.and_then(|sent| sent.parse().ok()) {
            let time = at.saturating_sub(Duration::from_nanos(sent));
            received.times.lock().unwrap_or_else(PoisonError::into_inner).push(time);
        }
    }
    received.jobs.fetch_add(1, Ordering::SeqCst);
    Response::new(Full::new(Bytes::from_static(b"ok")))
}
