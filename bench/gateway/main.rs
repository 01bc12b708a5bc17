//! `make bench-gateway`: how fast the gateway stores calls, next to the limit of HTTP and broker
//! measured in the same run; how long a call takes; how much memory the gateway does; and how that
//! changes with the size of the directory and of the queue.
//!
//! Everything runs on this machine and shares its processors: nats-server with file storage, the
//! load, and the gateway or the limit, each a process of its own. Runs of gateway and limit
//! alternate, and the medians are compared, since machines are noisy.
//!
//! `cargo bench --bench=gateway -- PART...` measures these parts alone: `rates`, `latency`,
//! `memory`, `directory`, `backlog`.

use std::{net::SocketAddr, time::Duration};

use asyncqueue_bench::{
    Queue, free_addr,
    load::{Error, Load, Request},
    median, megabytes, per_second, percentile,
};
use bytes::Bytes;
use test_support::{
    process::{processor_time, resident_bytes, unless_ended},
    program::Program,
    wait::until,
};

use crate::limit::{BARE, WITH_HEADERS};

mod limit;

/// Runs of each rate, and how long one is.
const RUNS: usize = 3;
const RUN: Duration = Duration::from_millis(2500);

/// Of a run that measures how long a call takes.
const RATE: u32 = 1000;
const RATE_RUN: Duration = Duration::from_secs(8);

/// Connections of the usual load, and bytes of a body.
const CONNECTIONS: usize = 64;
const BODY: usize = 256;

/// Connections at once, for memory.
const HELD: usize = 1000;
/// Calls that wait already.
const BACKLOG: usize = 1_000_000;
/// Queues in the directory, each with a function.
const QUEUES: [usize; 2] = [100, 10_000];

#[tokio::main]
async fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [form, nats, addr] = &arguments[..]
        && [BARE, WITH_HEADERS].contains(&&form[..])
    {
        return limit::serve(form, nats, addr).await;
    }
    unless_ended(measure(&arguments)).await
}

async fn measure(arguments: &[String]) -> Result<(), Error> {
    // `cargo bench` passes flags of its own.
    let parts: Vec<_> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let asks_for = |part: &str| parts.is_empty() || parts.iter().any(|asked| *asked == part);
    let mut bench = Bench { queue: Queue::start().await, with: String::new(), keeps_calls: false };
    bench.queue.fill_directory(1).await;
    println!("medians of {RUNS} runs of each, interleaved; file storage\n");
    println!(
        "| | gateway | limit | ratio | limit with headers | ratio |\n|---|---|---|---|---|---|"
    );
    if asks_for("rates") {
        for (connections, body) in [(64, 256), (64, 1024), (256, 256), (256, 1024)] {
            bench.rates(connections, body).await?;
        }
    }
    if asks_for("latency") {
        bench.latencies().await?;
    }
    if asks_for("memory") {
        bench.memory().await?;
    }
    if asks_for("directory") {
        for queues in QUEUES {
            bench.queue.fill_directory(queues).await;
            bench.with = format!(", {queues} queues in the directory");
            bench.rates(CONNECTIONS, BODY).await?;
            bench.latencies().await?;
            bench.memory().await?;
        }
        bench.queue.fill_directory(1).await;
    }
    if asks_for("backlog") {
        bench.queue.fill(BACKLOG, &Bytes::from_static(&[b'x'; BODY])).await;
        bench.with = format!(", {BACKLOG} calls waiting");
        bench.keeps_calls = true;
        bench.rates(CONNECTIONS, BODY).await?;
        bench.latencies().await?;
    }
    Ok(())
}

/// A queue, before which gateway and limit stand in turn.
struct Bench {
    queue: Queue,
    /// What is unusual, for the lines of the table.
    with: String,
    /// Whether calls stay on the queue after a run.
    keeps_calls: bool,
}

/// What takes calls.
struct Server {
    addr: SocketAddr,
    program: Program,
}

/// What a run comes to.
struct Run {
    /// Calls a second.
    rate: f64,
    /// Processor time of a call, in microseconds: of what takes it, and of the broker.
    server: f64,
    broker: f64,
}

// === impl Bench ===

impl Bench {
    /// Calls a second.
    async fn rates(&self, connections: usize, body: usize) -> Result<(), Error> {
        let (mut gateways, mut limits, mut with_headers) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..RUNS {
            limits.push(self.rate(&self.limit(BARE).await, connections, body).await?);
            with_headers.push(self.rate(&self.limit(WITH_HEADERS).await, connections, body).await?);
            gateways.push(self.rate(&self.gateway().await, connections, body).await?);
        }
        let (what, with) = (format!("{connections} connections, {body} bytes"), &self.with);
        for (figure, of) in [
            ("calls/s", (|run| run.rate) as fn(&Run) -> f64),
            ("its processor time of a call, µs", |run| run.server),
            ("the broker's, µs", |run| run.broker),
        ] {
            let median = |runs: &[Run]| median(&runs.iter().map(of).collect::<Vec<_>>());
            let (gateway, limits) = (median(&gateways), [median(&limits), median(&with_headers)]);
            let [bare, with_headers] =
                limits.map(|limit| format!("{limit:.0} | {:.2}", gateway / limit));
            println!("| {figure}, {what}{with} | {gateway:.0} | {bare} | {with_headers} |");
        }
        Ok(())
    }

    async fn rate(&self, server: &Server, connections: usize, body: usize) -> Result<Run, Error> {
        let used = || [server.program.id(), self.queue.nats.id()].map(processor_time);
        let before = used();
        let load = Load { addr: server.addr, connections, request: Request::of_call(body) };
        let answered = load.answers(RUN).await?;
        let after = used();
        self.run_ended().await;
        let [server, broker] = std::array::from_fn(|at| {
            1e6 / per_second(answered.all, after[at].saturating_sub(before[at]))
        });
        Ok(Run { rate: per_second(answered.measured, answered.elapsed), server, broker })
    }

    /// From a request to its answer.
    async fn latencies(&self) -> Result<(), Error> {
        let mut limit = self.times(&self.limit(BARE).await).await?;
        let mut gateway = self.times(&self.gateway().await).await?;
        for percent in [50, 99] {
            let (gateway, limit) =
                (percentile(&mut gateway, percent), percentile(&mut limit, percent));
            let (ratio, with) = (gateway / limit, &self.with);
            println!(
                "| p{percent}, ms, {RATE} calls/s{with} | {gateway:.2} | {limit:.2} | {ratio:.2} \
                 | | |"
            );
        }
        Ok(())
    }

    async fn times(&self, server: &Server) -> Result<Vec<Duration>, Error> {
        let load =
            Load { addr: server.addr, connections: CONNECTIONS, request: Request::of_call(BODY) };
        let times = load.latencies(RATE, RATE_RUN).await?;
        self.run_ended().await;
        Ok(times)
    }

    /// Resident memory: idle, and with many connections that send one call after the other.
    async fn memory(&self) -> Result<(), Error> {
        let (limit_idle, limit_busy) = self.resident(&self.limit(BARE).await).await?;
        let (idle, busy) = self.resident(&self.gateway().await).await?;
        let with = &self.with;
        println!(
            "| resident MB, idle{with} | {idle:.1} | {limit_idle:.1} | {:.2} | | |",
            idle / limit_idle
        );
        println!(
            "| resident MB, {HELD} busy connections{with} | {busy:.1} | {limit_busy:.1} | {:.2} \
             | | |",
            busy / limit_busy
        );
        Ok(())
    }

    async fn resident(&self, server: &Server) -> Result<(f64, f64), Error> {
        let resident = || megabytes(resident_bytes(server.program.id()));
        let idle = resident();
        let load = Load { addr: server.addr, connections: HELD, request: Request::of_call(BODY) };
        // The load goes on for longer, by its warm-up.
        let (answered, busy) = tokio::join!(load.answers(RUN), async {
            tokio::time::sleep(RUN).await;
            resident()
        });
        answered?;
        self.run_ended().await;
        Ok((idle, busy))
    }

    async fn gateway(&self) -> Server {
        let (addr, program) = self.queue.gateway().await;
        Server { addr, program }
    }

    async fn limit(&self, form: &str) -> Server {
        let addr = free_addr();
        let program = Program::start_again(&[form, &self.queue.nats.url(), &addr.to_string()]);
        until("the limit listens", async || tokio::net::TcpStream::connect(addr).await.ok()).await;
        Server { addr, program }
    }

    async fn run_ended(&self) {
        if !self.keeps_calls {
            self.queue.purge().await;
        }
    }
}
