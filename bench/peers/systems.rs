//! The queues that are compared, and how each is configured.

use std::{net::SocketAddr, process::Command, time::Duration};

use asyncqueue_bench::{
    FUNCTION, Queue,
    load::{self, Error, Load},
    per_second,
};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use test_support::{nats::NatsServer, program::Program, wait::until};
use tokio::{task::JoinSet, task::spawn_blocking};

use crate::{body, programs, servers::Server};

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// As `manifests/nats` has it.
    AsyncQueue,
    AsyncQueueSynced,
    Asynq,
    AsynqEager,
    Faktory,
    River,
    RiverEager,
}

/// One of them, running.
pub(crate) struct System {
    pub(crate) kind: Kind,
    runs: Runs,
}

enum Runs {
    Ours { queue: Box<Queue>, gateway: SocketAddr, _program: Program },
    Other { queue: &'static str, server: Server },
}

impl Kind {
    pub(crate) const ALL: [Self; 7] = [
        Self::AsyncQueue,
        Self::AsyncQueueSynced,
        Self::Asynq,
        Self::AsynqEager,
        Self::Faktory,
        Self::River,
        Self::RiverEager,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::AsyncQueue => "AsyncQueue",
            Self::AsyncQueueSynced => "AsyncQueue, synced",
            Self::Asynq => "Asynq on Redis",
            Self::AsynqEager => "Asynq on Redis, eager",
            Self::Faktory => "Faktory",
            Self::River => "River on PostgreSQL",
            Self::RiverEager => "River on PostgreSQL, eager, not synced",
        }
    }

    pub(crate) fn durability(self) -> &'static str {
        match self {
            Self::AsyncQueue => "written to a file, which is synced every 5 s",
            Self::AsyncQueueSynced => "written and synced (sync_interval: always)",
            Self::Asynq | Self::AsynqEager => {
                "written to a file, which is synced every second (appendfsync everysec)"
            }
            Self::Faktory => "in memory; all is written every 30 s",
            Self::River => "written and synced (synchronous_commit on)",
            Self::RiverEager => {
                "in memory; written and synced within 0.6 s (synchronous_commit off)"
            }
        }
    }

    /// Whether its worker looks for jobs more often than it does as it comes.
    fn is_eager(self) -> bool {
        matches!(self, Self::AsynqEager | Self::RiverEager)
    }

    /// How long its worker takes from its first job until it has begun in all of its slots: they
    /// begin at random in Faktory's, each within 2^31 ns.
    pub(crate) fn begins_within(self) -> Duration {
        if self == Self::Faktory { Duration::from_millis(2200) } else { Duration::ZERO }
    }
}

impl System {
    pub(crate) async fn start(kind: Kind) -> Result<Self, Error> {
        let runs = match kind {
            Kind::AsyncQueue => Runs::ours("5s").await,
            Kind::AsyncQueueSynced => Runs::ours("always").await,
            Kind::Asynq | Kind::AsynqEager => {
                Runs::Other { queue: "asynq", server: Server::redis()? }
            }
            Kind::Faktory => Runs::Other { queue: "faktory", server: Server::faktory()? },
            Kind::River => Runs::Other { queue: "river", server: Server::postgres("on")? },
            Kind::RiverEager => Runs::Other { queue: "river", server: Server::postgres("off")? },
        };
        let system = Self { kind, runs };
        until("the store answers", async || system.purge().await.ok()).await;
        Ok(system)
    }

    /// Jobs a second that so many clients store.
    pub(crate) async fn submit(
        &self,
        clients: usize,
        time: Duration,
        bytes: usize,
    ) -> Result<f64, Error> {
        match &self.runs {
            Runs::Ours { gateway, .. } => {
                let load = Load {
                    addr: *gateway,
                    connections: clients,
                    request: load::Request::of_call(bytes),
                };
                let answers = load.answers(time).await?;
                Ok(per_second(answers.measured, answers.elapsed))
            }
            Runs::Other { .. } => {
                let arguments =
                    [clients.to_string(), time.as_secs().to_string(), bytes.to_string()];
                Ok(self.tell("submit", &arguments).await?.trim().parse()?)
            }
        }
    }

    /// Stores jobs at a rate, each with the time in it; returns how many.
    pub(crate) async fn pace(
        &self,
        rate: f64,
        time: Duration,
        bytes: usize,
    ) -> Result<usize, Error> {
        match &self.runs {
            Runs::Ours { gateway, .. } => pace(*gateway, rate, time, bytes).await,
            Runs::Other { .. } => {
                let arguments =
                    [format!("{rate:.0}"), time.as_secs().to_string(), bytes.to_string()];
                Ok(self.tell("pace", &arguments).await?.trim().parse()?)
            }
        }
    }

    /// Stores so many jobs.
    pub(crate) async fn fill(&self, jobs: usize, bytes: usize) -> Result<(), Error> {
        match &self.runs {
            Runs::Ours { queue, .. } => queue.fill(jobs, &body(bytes)).await,
            Runs::Other { .. } => {
                self.tell("fill", &[jobs.to_string(), bytes.to_string()]).await?;
            }
        }
        Ok(())
    }

    /// Takes all jobs away.
    pub(crate) async fn purge(&self) -> Result<(), Error> {
        match &self.runs {
            Runs::Ours { queue, .. } => queue.purge().await,
            Runs::Other { .. } => {
                self.tell("purge", &[]).await?;
            }
        }
        Ok(())
    }

    /// A worker that posts each job to a URL, so many at once.
    pub(crate) fn work(&self, url: &str, in_flight: usize) -> Program {
        match &self.runs {
            Runs::Ours { queue, .. } => queue.worker(url, in_flight),
            Runs::Other { queue, server } => {
                let mut command = Command::new(&*programs::PEERS);
                command.args([queue, &server.store[..], "work", url, &in_flight.to_string()]);
                Program::start_other("peers", command.arg(self.kind.is_eager().to_string()))
            }
        }
    }

    /// Has the program of the peers do something, and returns what it prints.
    async fn tell(&self, command: &'static str, arguments: &[String]) -> Result<String, Error> {
        let Runs::Other { queue, server } = &self.runs else { return Err("it is no peer".into()) };
        let mut peer = Command::new(&*programs::PEERS);
        peer.args([queue, &server.store[..], command]).args(arguments);
        let output = spawn_blocking(move || peer.output()).await??;
        if output.status.success() {
            Ok(String::from_utf8(output.stdout)?)
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into())
        }
    }
}

impl Runs {
    async fn ours(sync_interval: &str) -> Self {
        let mut nats = NatsServer::prepare().syncing(sync_interval);
        nats.run().await;
        let queue = Queue::start_on(nats).await;
        queue.fill_directory(1).await;
        let (gateway, program) = queue.gateway().await;
        Self::Ours { queue: Box::new(queue), gateway, _program: program }
    }
}

/// Calls at a rate, by as many clients as it takes.
async fn pace(
    gateway: SocketAddr,
    rate: f64,
    time: Duration,
    bytes: usize,
) -> Result<usize, Error> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let url = format!("http://{gateway}/async-function/{FUNCTION}");
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / rate));
    let (mut calls, begun) = (JoinSet::new(), tokio::time::Instant::now());
    while begun.elapsed() < time {
        ticks.tick().await;
        let request = Request::post(&url).body(Full::new(body(bytes)))?;
        let client = client.clone();
        calls.spawn(async move {
            let answer = client.request(request).await?;
            let status = answer.status();
            answer.into_body().collect().await?;
            match status {
                StatusCode::ACCEPTED => Ok(()),
                status => Err(Error::from(format!("the gateway answered {status}"))),
            }
        });
    }
    let submitted = calls.len();
    while let Some(called) = calls.join_next().await {
        called??;
    }
    Ok(submitted)
}
