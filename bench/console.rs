//! `bench/run console`: how long the pages of the console take with many queues and dead letters.
//!
//! `bench_queues=10000` sets how many queues there are, `bench_letters=100000` how many dead
//! letters one of them has, and `bench_requests=50` how often each page is requested.

use std::{
    env,
    net::SocketAddr,
    time::{Duration, Instant},
};

use asyncqueue::{
    CallId, FunctionName, Invocation,
    message::{
        dead_letter::{self, DeathInfo},
        native,
    },
    stream::{Owner, QueueSpec, ensure_queue},
};
use asyncqueue_bench::{QUEUE, Queue, call, free_addr, megabytes, percentile};
use bytes::Bytes;
use futures::TryStreamExt;
use jiff::Timestamp;
use test_support::{
    process::{resident_bytes, unless_ended},
    program::Program,
    raw,
    wait::until_in,
};

/// Functions and reasons of the dead letters.
const FUNCTIONS: usize = 20;
const REASONS: [&str; 5] = [
    "the function answered 500",
    "the function answered 503",
    "no answer within 1m0s",
    "connection refused",
    "the platform answered 502",
];

/// The body of each dead letter, in bytes.
const BODY_BYTES: usize = 256;

/// Requests to NATS at the same time, while it is filled.
const FILLING: usize = 64;

/// Maximum time until the console has read the queues for the first time.
const START_TIMEOUT: Duration = Duration::from_secs(120);

type Error = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    unless_ended(measure()).await
}

async fn measure() -> Result<(), Error> {
    let queues = number("bench_queues", 10_000);
    let letters = number("bench_letters", 100_000);
    let requests = number("bench_requests", 50);
    let queue = Queue::start().await;
    create_queues(&queue, queues).await?;
    let last = fill_dead_letters(&queue, letters).await?;
    let (addr, console) = start_console(&queue).await;
    println!(
        "{queues} queues (three streams each), {letters} dead letters of {FUNCTIONS} functions and \
         {} reasons in one of them, {requests} requests of each page, one after the other\n",
        REASONS.len()
    );
    let dead = format!("/queues/{QUEUE}/dead");
    println!("Memory before the dead letters were read: {}", memory(&console));
    println!("Until all dead letters are read: {:.1} s", read_all(addr, &dead).await.as_secs_f64());
    println!("Memory after that: {}\n", memory(&console));
    println!("| page | p50, ms | p99, ms | size, KB |\n|---|---|---|---|");
    let call = format!("/calls/{last}");
    for (name, target) in [
        ("queues", "/"),
        ("queues, sorted by dead letters", "/?sort=dead"),
        ("queues, searched", "/?filter=queue-99"),
        ("a queue", &*format!("/queues/{QUEUE}")),
        ("its dead letters", &dead),
        (
            "a group of them",
            &format!("{dead}?function=f-1.openfaas-fn&reason=connection%20refused"),
        ),
        ("a call that is dead", &call),
        ("batches", "/batches"),
    ] {
        let (mut times, mut bytes) = (Vec::new(), 0);
        for _ in 0..requests {
            let started = Instant::now();
            let answer = raw::try_request(addr, "GET", target, &[], b"").await?;
            times.push(started.elapsed());
            assert_eq!(answer.status, 200, "{target}: {}", answer.text());
            bytes = answer.body.len();
        }
        let [p50, p99] = [50, 99].map(|percent| percentile(&mut times, percent));
        println!("| {name} | {p50:.1} | {p99:.1} | {} |", bytes / 1_000);
    }
    println!("\nMemory at the end: {}", memory(&console));
    Ok(())
}

fn memory(console: &Program) -> String {
    format!("{:.0} MB", megabytes(resident_bytes(console.id())))
}

/// Opens the page of the dead letters until it groups all of them.
async fn read_all(addr: SocketAddr, page: &str) -> Duration {
    let started = Instant::now();
    until_in(START_TIMEOUT, "all dead letters are read", async || {
        let answer = raw::try_request(addr, "GET", page, &[], b"").await.ok()?;
        (answer.status == 200 && !answer.text().contains("Still reading")).then_some(())
    })
    .await;
    started.elapsed()
}

fn number(variable: &str, otherwise: usize) -> usize {
    env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

async fn create_queues(queue: &Queue, queues: usize) -> Result<(), Error> {
    queue.fill_directory(queues).await;
    futures::stream::iter((1..queues).map(Ok))
        .try_for_each_concurrent(FILLING, async |number| {
            let name = format!("queue-{number}");
            let owner = Owner { name: format!("bench/{name}"), uid: number.to_string() };
            ensure_queue(&queue.js, &QueueSpec::new(name.parse()?, owner), false).await?;
            Ok(())
        })
        .await
}

/// Stores dead letters, and returns the call of the last one.
async fn fill_dead_letters(queue: &Queue, letters: usize) -> Result<CallId, Error> {
    let body = Bytes::from("x".repeat(BODY_BYTES));
    // As a gateway names them, so that an id names its queue.
    let name =
        |call: Invocation| Invocation { call_id: CallId::generate(&queue.spec.queue), ..call };
    let calls: Vec<_> = (0..letters).map(|_| name(call(body.clone()))).collect();
    let last = calls.last().map(|call| call.call_id.clone()).ok_or("bench_letters is 0")?;
    futures::stream::iter(calls.into_iter().enumerate().map(Ok::<_, Error>))
        .try_for_each_concurrent(FILLING, async |(number, mut call)| {
            let name = format!("f-{}", number % FUNCTIONS);
            call.function = FunctionName::new(&name, "openfaas-fn")?;
            let reason = REASONS[number / FUNCTIONS % REASONS.len()];
            let death = DeathInfo { reason: reason.to_owned(), attempts: 3, status: Some(500) };
            let place = format!("openfaas-fn.{name}.{}", call.call_id);
            let (original, at) = (native::encode(&call), Timestamp::now());
            let subject = format!("{QUEUE}.{place}");
            let headers = dead_letter::headers(Some(&original), &subject, &death, "w-1", at);
            let subject = format!("{QUEUE}-dead.{place}");
            let _ = queue.js.publish_with_headers(subject, headers, call.body).await?.await?;
            Ok(())
        })
        .await?;
    Ok(last)
}

/// Starts a console and waits until it has read the queues.
async fn start_console(queue: &Queue) -> (SocketAddr, Program) {
    let (addr, url) = (free_addr(), queue.nats.url());
    let (http, metrics) = (addr.to_string(), free_addr().to_string());
    let settings = [("nats_url", &*url), ("http_addr", &http), ("metrics_addr", &metrics)];
    let program = Program::start_unheard("asyncqueue-console", &settings);
    until_in(START_TIMEOUT, "the console has read the queues", async || {
        let answer = raw::try_request(addr, "GET", "/", &[], b"").await.ok()?;
        (answer.status == 200).then_some(())
    })
    .await;
    (addr, program)
}
