//! `bench/run lanes`: what lanes cost nats-server, by their number, on one server and with three
//! copies on three; and how long the sweep takes where many calls have no lane.
//!
//! `bench_lanes=1,20,100`, `bench_calls=20000` and `bench_waiting=100000` set the sizes.

use std::{
    env,
    time::{Duration, Instant},
};

use async_nats::jetstream::{Context, consumer::PullConsumer};
use asyncqueue::{
    CallId, FunctionName, Invocation,
    directory::{QueueEntry, QueueRoute},
    lanes::{Fairness, Sweeper, ensure_lane, lane_name},
    message::native,
    stream::{Owner, QueueSpec, ensure_queue},
    subject::call_subject,
};
use asyncqueue_bench::QUEUE;
use futures::{StreamExt, TryStreamExt, future::try_join_all};
use test_support::{
    nats::{
        ANSWER_TIMEOUT, NatsServer,
        cluster::{NODES, NatsCluster},
    },
    process::{peak_resident_bytes, processor_time, resident_bytes, unless_ended},
    wait::until_in,
};

/// Publishes on their way at once.
const FILLING: usize = 512;
/// Leaders of the stream that step down, one after the other.
const LEADER_CHANGES: usize = 5;
/// Functions that have calls and no lane, where the sweep is measured.
const FUNCTIONS_WITHOUT_LANE: usize = 200;
/// For three servers to choose leaders, and for a sweep of many calls.
const PATIENT: Duration = Duration::from_secs(300);

type Error = Box<dyn std::error::Error + Send + Sync>;

/// One server, or three.
enum Servers {
    One(NatsServer),
    Three(NatsCluster),
}

/// A queue with lanes.
struct Lanes {
    servers: Servers,
    js: Context,
    spec: QueueSpec,
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    unless_ended(measure()).await
}

async fn measure() -> Result<(), Error> {
    let (calls, waiting) = (number("bench_calls", 20_000)?, number("bench_waiting", 100_000)?);
    let lanes = env::var("bench_lanes").unwrap_or_else(|_| "1,20,100".to_owned());
    println!(
        "{calls} calls, delivered and acknowledged; processor time and memory of all servers \
         together\n\n\
         | copies | lanes | processor time of a call, µs | memory of a lane, KiB | a call is \
         stored after a change of the leader, ms, median |\n|---|---|---|---|---|"
    );
    for copies in [1, NODES] {
        for lanes in lanes.split(',') {
            row(copies, lanes.trim().parse()?, calls).await?;
        }
    }
    without_lanes(waiting).await
}

fn number(name: &str, default: usize) -> Result<usize, Error> {
    Ok(env::var(name).map_or(Ok(default), |text| text.parse())?)
}

async fn row(copies: usize, lanes: usize, calls: usize) -> Result<(), Error> {
    let mut queue = Lanes::start(copies).await;
    // What the first lane takes is no cost of each.
    queue.ensure(0).await?;
    let before = queue.memory();
    for lane in 1..lanes {
        queue.ensure(lane).await?;
    }
    let memory = queue.memory().saturating_sub(before) / u64::try_from(lanes.max(2) - 1)?;
    queue.fill(calls, lanes).await?;
    let used = queue.processor_time();
    queue.take_all(lanes, calls).await?;
    let used = queue.processor_time().saturating_sub(used);
    let of_call = used.as_secs_f64() * 1e6 / f64::from(u32::try_from(calls)?);
    let memory = if lanes > 1 { (memory / 1024).to_string() } else { "-".to_owned() };
    let change = queue.leader_change().await?;
    let change = change.map_or_else(|| "-".to_owned(), |change| change.as_millis().to_string());
    println!("| {copies} | {lanes} | {of_call:.1} | {memory} | {change} |");
    Ok(())
}

/// Measures the sweep, and the first call of a shared lane, where so many calls have no lane.
async fn without_lanes(waiting: usize) -> Result<(), Error> {
    let queue = Lanes::start(1).await;
    queue.fill(waiting, FUNCTIONS_WITHOUT_LANE).await?;
    let mut sweeper = Sweeper::new(queue.js.clone(), &queue.spec);
    let mut longest = Duration::ZERO;
    let (begun, mut sweeps) = (Instant::now(), 0);
    while sweeper.lanes().own + sweeper.lanes().sharing < FUNCTIONS_WITHOUT_LANE {
        let at = Instant::now();
        sweeper.sweep().await?;
        longest = longest.max(at.elapsed());
        sweeps += 1;
        if begun.elapsed() > PATIENT {
            return Err("the sweeps found not all functions".into());
        }
    }
    let at = Instant::now();
    let stream = queue.js.get_stream(QUEUE).await?;
    let shared: PullConsumer =
        stream.get_consumer(&format!("{QUEUE}-fn-=1")).await.map_err(|error| error.to_string())?;
    let mut messages = shared.fetch().max_messages(1).messages().await?;
    messages.next().await.ok_or("the shared lane has no call")??;
    let first = at.elapsed();
    println!(
        "\n{waiting} calls of {FUNCTIONS_WITHOUT_LANE} functions without a lane\n\n\
         | sweeps until all have one | longest sweep, ms | first call of the shared lane after its \
         creation, ms | largest memory of nats-server, MiB |\n|---|---|---|---|\n\
         | {sweeps} | {} | {} | {} |",
        longest.as_millis(),
        first.as_millis(),
        queue.peak_memory() >> 20
    );
    Ok(())
}

fn function(number: usize) -> FunctionName {
    FunctionName::new(&format!("f{number}"), "openfaas-fn").unwrap_or_else(|_| unreachable!())
}

impl Lanes {
    async fn start(copies: usize) -> Self {
        let servers = if copies == 1 {
            Servers::One(NatsServer::start().await)
        } else {
            Servers::Three(NatsCluster::start().await)
        };
        let mut js = match &servers {
            Servers::One(server) => server.jetstream().await,
            Servers::Three(cluster) => cluster.jetstream().await,
        };
        js.set_timeout(ANSWER_TIMEOUT);
        let owner = Owner { name: format!("bench/{QUEUE}"), uid: "1".to_owned() };
        let name = QUEUE.parse().unwrap_or_else(|_| unreachable!());
        let spec = QueueSpec {
            fairness: Fairness::Function,
            replicas: copies,
            ..QueueSpec::new(name, owner)
        };
        until_in(PATIENT, "the queue is there", async || {
            ensure_queue(&js, &spec, false).await.ok()
        })
        .await;
        let mut config = spec.stream_config();
        config.max_messages = -1;
        until_in(PATIENT, "the stream takes more", async || {
            js.update_stream(config.clone()).await.ok()
        })
        .await;
        Self { servers, js, spec }
    }

    fn route(&self) -> QueueRoute {
        let entry = QueueEntry::new(&*self.spec.stream, &*self.spec.subject);
        // More than an installation may have.
        QueueRoute { max_lanes: 1_000, ..entry.route_of_unknown_fairness(self.spec.queue.clone()) }
    }

    async fn ensure(&self, lane: usize) -> Result<(), Error> {
        ensure_lane(&self.js, &self.route(), &function(lane)).await?;
        Ok(())
    }

    /// Stores calls of so many functions, in turn.
    async fn fill(&self, calls: usize, functions: usize) -> Result<(), Error> {
        futures::stream::iter(0..calls)
            .map(async |number| self.publish(&function(number % functions)).await)
            .buffer_unordered(FILLING)
            .try_collect::<()>()
            .await
    }

    async fn publish(&self, function: &FunctionName) -> Result<(), Error> {
        let call = Invocation::new(CallId::generate(&self.spec.queue), function.clone(), "hi");
        let subject = call_subject(&self.spec.subject, &call.function, &call.call_id);
        let headers = native::encode(&call);
        self.js.publish_with_headers(subject, headers, call.body).await?.await?;
        Ok(())
    }

    /// Delivers and acknowledges the calls of all lanes, which have as many each.
    async fn take_all(&self, lanes: usize, calls: usize) -> Result<(), Error> {
        let stream = self.js.get_stream(QUEUE).await?;
        let take = async |lane: usize| -> Result<(), Error> {
            let name = lane_name(&self.spec.queue, &function(lane));
            let consumer: PullConsumer =
                stream.get_consumer(&name).await.map_err(|error| error.to_string())?;
            let mut left = (calls + lanes - 1 - lane) / lanes;
            while left > 0 {
                let mut messages = consumer.batch().max_messages(left.min(100)).messages().await?;
                while let Some(message) = messages.next().await {
                    message?.ack().await?;
                    left -= 1;
                }
            }
            Ok(())
        };
        try_join_all((0..lanes).map(take)).await?;
        until_in(PATIENT, "all calls have ended", async || {
            let stream = self.js.get_stream(QUEUE).await.ok()?;
            (stream.cached_info().state.messages == 0).then_some(())
        })
        .await;
        Ok(())
    }

    /// Returns how long no call can be stored while the leader of the stream changes; `None` for
    /// one server.
    async fn leader_change(&self) -> Result<Option<Duration>, Error> {
        let Servers::Three(cluster) = &self.servers else { return Ok(None) };
        let mut changes = Vec::new();
        for _ in 0..LEADER_CHANGES {
            cluster.step_down(&self.js, "STREAM", QUEUE).await;
            let at = Instant::now();
            until_in(PATIENT, "a call is stored", async || {
                let function = function(0);
                let stored = self.publish(&function);
                tokio::time::timeout(Duration::from_millis(500), stored).await.ok()?.ok()
            })
            .await;
            changes.push(at.elapsed());
        }
        changes.sort();
        Ok(Some(changes[LEADER_CHANGES / 2]))
    }

    fn processes(&mut self) -> Vec<u32> {
        match &mut self.servers {
            Servers::One(server) => vec![server.id()],
            Servers::Three(cluster) => (0..NODES).map(|node| cluster.node(node).id()).collect(),
        }
    }

    fn memory(&mut self) -> u64 {
        self.processes().into_iter().map(resident_bytes).sum()
    }

    fn processor_time(&mut self) -> Duration {
        self.processes().into_iter().map(processor_time).sum()
    }

    /// Returns the largest memory of the one server.
    fn peak_memory(&self) -> u64 {
        match &self.servers {
            Servers::One(server) => peak_resident_bytes(server.id()),
            Servers::Three(_) => 0,
        }
    }
}
