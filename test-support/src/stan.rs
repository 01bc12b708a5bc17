//! A real NATS Streaming server, the queue of OpenFaaS Community Edition, and its client library.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::{loopback::free_port, tools, wait::until};

/// What OpenFaaS calls all of it.
pub const CLUSTER: &str = "faas-cluster";
/// The channel.
pub const CHANNEL: &str = "faas-request";
/// The queue group of its workers.
pub const GROUP: &str = "faas";
/// Their durable name.
pub const DURABLE: &str = "faas-request";

/// A server that keeps its messages in memory, as OpenFaaS installs it. Ended when it is dropped.
#[derive(Debug)]
pub struct StanServer {
    port: u16,
    process: Child,
}

/// OpenFaaS's queue-worker, as its server sees it. Killed when it is dropped.
#[derive(Debug)]
pub struct OldWorker {
    process: Child,
}

impl StanServer {
    /// Starts a server, waits until it answers, and makes the durable queue group known as a worker
    /// does.
    pub async fn start() -> Self {
        let server = Self::start_alone().await;
        server.join().await;
        server
    }

    /// Starts a server and waits until it answers. No worker was ever there.
    pub async fn start_alone() -> Self {
        let port = free_port();
        let server = Self { port, process: launch(port) };
        server.answers().await;
        server
    }

    /// Ends the server and starts another one on its port, with none of its messages.
    pub async fn restart(&mut self) {
        end(&mut self.process);
        self.process = launch(self.port);
        self.answers().await;
        self.join().await;
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Publishes messages, each without a line break, and returns when they are stored.
    pub async fn publish(&self, messages: impl IntoIterator<Item = String>) {
        let mut client = client(&["publish", &self.url(), CLUSTER, CHANNEL]);
        let mut input = client.stdin.take().expect("stdin is piped");
        let lines: String = messages.into_iter().map(|message| message + "\n").collect();
        let published = tokio::task::spawn_blocking(move || {
            input.write_all(lines.as_bytes()).expect("the client reads");
            drop(input);
            client.wait().expect("the client ends")
        });
        assert!(published.await.expect("no panic").success(), "the messages are not published");
    }

    /// Starts a worker that acknowledges so many messages and keeps the next one in hand; returns
    /// it, and what it acknowledged.
    pub async fn work(&self, acks: usize, ack_wait: Duration) -> (OldWorker, Vec<String>) {
        let (acks, ack_wait) = (acks.to_string(), format!("{}ms", ack_wait.as_millis()));
        let mut process =
            client(&["work", &self.url(), CLUSTER, CHANNEL, GROUP, DURABLE, &ack_wait, &acks]);
        let output = BufReader::new(process.stdout.take().expect("stdout is piped"));
        let worker = OldWorker { process };
        let acknowledged = tokio::task::spawn_blocking(|| {
            let lines = output.lines().map_while(Result::ok);
            lines.take_while(|line| line != "in hand").collect()
        });
        (worker, acknowledged.await.expect("no panic"))
    }

    async fn join(&self) {
        let client = client(&["join", &self.url(), CLUSTER, CHANNEL, GROUP, DURABLE]);
        let joined = tokio::task::spawn_blocking(|| client.wait_with_output());
        let output = joined.await.expect("no panic").expect("the client ends");
        assert!(output.status.success(), "the queue group is not joined");
    }

    async fn answers(&self) {
        let url = self.url();
        let discover = format!("_STAN.discover.{CLUSTER}");
        until("NATS Streaming answers", async || {
            let client = async_nats::connect(&url).await.ok()?;
            // Refused, but answered.
            client.request(discover.clone(), "".into()).await.ok()
        })
        .await;
    }
}

impl Drop for StanServer {
    fn drop(&mut self) {
        end(&mut self.process);
    }
}

impl OldWorker {
    /// Ends it at once, as a crash does.
    pub fn kill(self) {
        drop(self);
    }
}

impl Drop for OldWorker {
    fn drop(&mut self) {
        end(&mut self.process);
    }
}

fn launch(port: u16) -> Child {
    Command::new(tools::program("stan", "nats-streaming-server"))
        .args(["-a", "127.0.0.1", "-p", &port.to_string(), "-cid", CLUSTER, "-store", "memory"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("nats-streaming-server starts")
}

fn client(arguments: &[&str]) -> Child {
    Command::new(tools::program("stan", "stan-client"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("stan-client starts")
}

fn end(process: &mut Child) {
    // It may have ended already.
    let _ = process.kill();
    let _ = process.wait();
}
