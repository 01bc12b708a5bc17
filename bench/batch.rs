//! `bench/run batch`: how long the gateway takes to accept batches of calls, by their size.
//!
//! `bench_batches=50` sets how many of each size are measured.

use std::{env, time::Instant};

use asyncqueue_bench::{FUNCTION, Queue, percentile};
use serde_json::json;
use test_support::{process::unless_ended, raw};

/// Sizes of batches.
const SIZES: [usize; 4] = [1, 10, 100, 1_000];

/// Batches of each size, unless the environment says otherwise.
const BATCHES: usize = 50;

/// The body of each call, in bytes.
const BODY_BYTES: usize = 256;

type Error = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    unless_ended(measure()).await
}

async fn measure() -> Result<(), Error> {
    let batches = env::var("bench_batches").ok().and_then(|text| text.parse().ok());
    let batches = batches.unwrap_or(BATCHES);
    let queue = Queue::start().await;
    queue.fill_directory(1).await;
    let (addr, _gateway) = queue.gateway().await;
    println!(
        "One gateway, one nats-server, {batches} batches of each size, {BODY_BYTES} bytes each\n"
    );
    println!("| calls | p50, ms | p99, ms |\n|---|---|---|");
    for size in SIZES {
        let line = json!({"function": FUNCTION, "body": "x".repeat(BODY_BYTES)}).to_string();
        let body = vec![line; size].join("\n");
        let mut times = Vec::new();
        for _ in 0..batches {
            let started = Instant::now();
            let answer =
                raw::try_request(addr, "POST", "/async-batch", &[], body.as_bytes()).await?;
            times.push(started.elapsed());
            assert_eq!(answer.status, 202, "{}", answer.text());
        }
        let [p50, p99] = [50, 99].map(|percent| percentile(&mut times, percent));
        println!("| {size} | {p50:.1} | {p99:.1} |");
    }
    Ok(())
}
