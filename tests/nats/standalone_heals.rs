//! Without an operator: programs with `ensure_stream` create again what somebody deleted, or what a
//! server lost that came back with an empty store. No program is started again.

use std::time::{Duration, Instant};

use asyncqueue::{directory, kv::Bucket};
use test_support::{
    http::{HttpServer, respond_after},
    program::Program,
    raw,
    wait::{until, until_in},
};

use crate::{
    gateway::Gateway,
    support::{Queue, start_worker},
};

/// Within this, all is there again and calls run: the worker waits up to 7 s for a server that it
/// does not notice, and a busy machine takes longer.
const HEALED: Duration = Duration::from_secs(60);

/// A queue with a gateway, a worker and a function, all running.
struct Stage {
    queue: Queue,
    gateway: Gateway,
    worker: Program,
    admin: String,
    function: HttpServer,
}

/// Which of the two programs creates what is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Worker,
    Gateway,
    Both,
}

impl Stage {
    async fn start(by: By) -> Self {
        let queue = Queue::standalone().await;
        let function = HttpServer::start().await;
        let has = |program| if by == By::Both || by == program { "true" } else { "false" };
        let directory = format!(
            "queues: {{jobs: }}\nfunctions: {{figlet: {{queue: jobs, url: \"{}\"}}}}",
            function.url()
        );
        let gateway =
            Gateway::start(&queue.nats, &directory, &[("ensure_stream", has(By::Gateway))]).await;
        let admin = format!("127.0.0.1:{}", test_support::loopback::free_port());
        let settings = [("ensure_stream", has(By::Worker)), ("http_addr", &admin)];
        let worker = start_worker(&queue.nats, &function, &settings);
        let stage = Self { queue, gateway, worker, admin, function };
        stage.is_ready().await;
        stage.a_call_runs("before").await;
        stage
    }

    /// Waits until both programs are ready.
    async fn is_ready(&self) {
        self.gateway.is_ready().await;
        until("the worker is ready", async || self.readiness().await.is_empty().then_some(()))
            .await;
    }

    /// What the worker says that it waits for; nothing if it is ready.
    async fn readiness(&self) -> String {
        let addr = self.admin.parse().unwrap();
        match raw::try_request(addr, "GET", "/readyz", &[], b"").await {
            Ok(answer) if answer.status == 200 => String::new(),
            Ok(answer) => answer.text(),
            Err(error) => error.to_string(),
        }
    }

    /// Submits calls until one is taken, and waits until that has run: in time, and without a
    /// restart of a program.
    async fn a_call_runs(&self, body: &str) {
        let begun = Instant::now();
        until_in(HEALED, "a call is taken", async || {
            let answer = self.gateway.call("POST", "/async-function/figlet", &[], body).await;
            (answer.status == 202).then_some(())
        })
        .await;
        until_in(HEALED, "the call runs", async || {
            self.function.received().iter().any(|received| received.body == body).then_some(())
        })
        .await;
        println!("`{body}` ran after {:?}", begun.elapsed());
    }

    async fn consumer_is_there(&self) {
        until_in(HEALED, "the consumer is there", async || {
            self.queue
                .js
                .get_consumer_from_stream::<async_nats::jetstream::consumer::pull::Config, _, _>(
                    "jobs-workers",
                    "jobs",
                )
                .await
                .ok()
        })
        .await;
    }
}

async fn survives_a_deleted_consumer(by: By) {
    let stage = Stage::start(by).await;
    let stream = stage.queue.js.get_stream("jobs").await.unwrap();
    stream.delete_consumer("jobs-workers").await.unwrap();
    stage.a_call_runs("after").await;
    stage.consumer_is_there().await;
    stage.is_ready().await;
}

#[tokio::test]
async fn a_worker_creates_a_deleted_consumer_again() {
    survives_a_deleted_consumer(By::Worker).await;
}

#[tokio::test]
async fn a_gateway_creates_a_deleted_consumer_again() {
    survives_a_deleted_consumer(By::Gateway).await;
}

async fn survives_deleted_streams(by: By) {
    let stage = Stage::start(by).await;
    for stream in ["jobs", "jobs-callbacks", "jobs-dead"] {
        stage.queue.js.delete_stream(stream).await.unwrap();
    }
    stage.a_call_runs("after").await;
    for stream in ["jobs-callbacks", "jobs-dead"] {
        until(stream, async || stage.queue.js.get_stream(stream).await.ok()).await;
    }
    stage.is_ready().await;
}

#[tokio::test]
async fn a_worker_creates_deleted_streams_again() {
    survives_deleted_streams(By::Worker).await;
}

#[tokio::test]
async fn a_gateway_creates_deleted_streams_again() {
    survives_deleted_streams(By::Gateway).await;
}

/// The server is killed, loses its store, and comes back at its port.
async fn survives_an_empty_store(by: By) {
    let mut stage = Stage::start(by).await;
    stage.queue.nats.kill();
    let line = "nats: disconnected from NATS at 127.0.0.1:";
    until("the worker says that NATS is away", async || {
        stage.readiness().await.contains(line).then_some(())
    })
    .await;
    std::fs::remove_dir_all(stage.queue.nats.store()).unwrap();
    stage.queue.nats.run().await;
    stage.a_call_runs("after").await;
    stage.is_ready().await;
    // Beyond the first call.
    stage.a_call_runs("again").await;
    let begun = Instant::now();
    for bucket in asyncqueue::buckets::OF_WORKERS {
        until_in(HEALED, bucket.name, async || bucket.open(&stage.queue.js).await.ok()).await;
    }
    println!("the buckets were there after {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_worker_fills_an_empty_store() {
    survives_an_empty_store(By::Worker).await;
}

#[tokio::test]
async fn a_gateway_fills_an_empty_store() {
    survives_an_empty_store(By::Gateway).await;
}

#[tokio::test]
async fn both_at_once_fill_an_empty_store() {
    survives_an_empty_store(By::Both).await;
}

/// Deletes buckets, and waits until they are there again.
async fn buckets_return(stage: &Stage, buckets: &[Bucket]) {
    for bucket in buckets {
        stage.queue.js.delete_key_value(bucket.name).await.unwrap();
    }
    for bucket in buckets {
        until_in(HEALED, bucket.name, async || bucket.open(&stage.queue.js).await.ok()).await;
    }
}

/// A call that runs is cancelled, and ends so.
async fn a_call_is_cancelled(stage: &Stage) {
    let slow = HttpServer::answering(|_| respond_after(Duration::from_secs(20), 200, "late")).await;
    let directory = format!(
        "queues: {{jobs: }}\nfunctions: {{figlet: {{queue: jobs, url: \"{}\"}}}}",
        slow.url()
    );
    std::fs::write(stage.gateway.directory.path(), directory).unwrap();
    let id = until("a call runs at the slow function", async || {
        let answer = stage.gateway.call("POST", "/async-function/figlet", &[], "slow").await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let id = answer.header("x-call-id").to_owned();
        (!slow.received().is_empty()).then_some(id)
    })
    .await;
    let answer = stage.gateway.call("DELETE", &format!("/async-function/{id}"), &[], "").await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    until("the slow call was cut off", async || (slow.running() == 0).then_some(())).await;
}

#[tokio::test]
async fn a_worker_creates_deleted_buckets_again() {
    let stage = Stage::start(By::Worker).await;
    buckets_return(&stage, &asyncqueue::buckets::OF_WORKERS).await;
    stage.a_call_runs("after").await;
    stage.is_ready().await;
}

#[tokio::test]
async fn a_gateway_creates_deleted_buckets_again_and_writes_the_directory() {
    let stage = Stage::start(By::Gateway).await;
    buckets_return(
        &stage,
        &[&[asyncqueue::buckets::DIRECTORY][..], &asyncqueue::buckets::OF_WORKERS[..]].concat(),
    )
    .await;
    stage.a_call_runs("after").await;
    until("the directory is whole again", async || {
        let bucket = asyncqueue::buckets::DIRECTORY.open(&stage.queue.js).await.ok()?;
        bucket.get(directory::MARKER).await.ok()??;
        bucket.get("function.openfaas-fn.figlet").await.ok()?.map(drop)
    })
    .await;
    stage.is_ready().await;
    a_call_is_cancelled(&stage).await;
}

#[tokio::test]
async fn a_worker_that_may_not_create_says_what_is_missing_now() {
    let stage = Stage::start(By::Both).await;
    let Stage { queue, gateway, worker, function, .. } = stage;
    drop((gateway, worker));
    let admin = format!("127.0.0.1:{}", test_support::loopback::free_port());
    let stage_of = |settings: &[(&str, &str)]| start_worker(&queue.nats, &function, settings);
    let stream = queue.js.get_stream("jobs").await.unwrap();
    stream.delete_consumer("jobs-workers").await.unwrap();
    let _worker = stage_of(&[("http_addr", &admin)]);
    let says = async |text: &str| {
        until(text, async || {
            let answer =
                raw::try_request(admin.parse().unwrap(), "GET", "/readyz", &[], b"").await.ok()?;
            answer
                .text()
                .lines()
                .any(|line| line.starts_with("consumer: ") && line.contains(text))
                .then_some(())
        })
        .await;
    };
    says("consumer not found").await;
    queue.js.delete_stream("jobs").await.unwrap();
    says("stream not found").await;
}
