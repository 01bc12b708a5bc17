//! Three nats-servers that are one cluster, on loopback. Each route between two of them goes
//! through proxies, so that one server can be cut off from the others while its clients still reach
//! it.

use async_nats::jetstream::Context;
use serde_json::Value;

use super::NatsServer;
use crate::loopback::free_port;
use crate::{
    proxy::Proxy,
    wait::{WAIT_TIMEOUT, until_in},
};

/// How many servers.
pub const NODES: usize = 3;

/// For a cluster to choose a leader: election timeouts are up to nine seconds, and some elections
/// fail.
const ELECTION: std::time::Duration = WAIT_TIMEOUT.saturating_mul(2);

/// A cluster, ended when it is dropped.
#[derive(Debug)]
pub struct NatsCluster {
    nodes: Vec<NatsServer>,
    routes: Vec<Route>,
}

/// The way on which one server connects to another.
#[derive(Debug)]
struct Route {
    from: usize,
    to: usize,
    proxy: Proxy,
}

impl NatsCluster {
    /// Starts a cluster and waits until its `JetStream` answers.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// As [`Self::start`], of servers with these arguments too.
    pub async fn start_with(arguments: &[String]) -> Self {
        let ports: Vec<u16> = (0..NODES).map(|_| free_port()).collect();
        // What servers tell each other of a third's address would lead around the proxies: they are
        // given an address without a listener, and know all addresses that they need.
        let unused_port = free_port();
        let (mut nodes, mut routes) = (Vec::new(), Vec::new());
        for (from, port) in ports.iter().enumerate() {
            let mut urls = Vec::new();
            for (to, target) in ports.iter().enumerate().filter(|(to, _)| *to != from) {
                let proxy = Proxy::before(*target).await;
                urls.push(format!("nats://127.0.0.1:{}", proxy.port()));
                routes.push(Route { from, to, proxy });
            }
            let node = NatsServer::prepare().with(arguments.iter().cloned());
            nodes.push(node.with([
                "--name".to_owned(),
                name(from),
                "--cluster_name".to_owned(),
                "tests".to_owned(),
                "--cluster".to_owned(),
                format!("nats://127.0.0.1:{port}"),
                "--cluster_advertise".to_owned(),
                format!("127.0.0.1:{unused_port}"),
                "--routes".to_owned(),
                urls.join(","),
            ]));
        }
        for node in &mut nodes {
            node.launch();
        }
        let cluster = Self { nodes, routes };
        for node in &cluster.nodes {
            node.answers().await;
        }
        cluster
    }

    /// Where clients connect to, all servers of it.
    #[must_use]
    pub fn url(&self) -> String {
        let urls: Vec<_> = self.nodes.iter().map(NatsServer::url).collect();
        urls.join(",")
    }

    /// One server.
    pub fn node(&mut self, node: usize) -> &mut NatsServer {
        &mut self.nodes[node]
    }

    /// Cuts a server off from the others, or connects it again.
    pub fn set_connected(&self, node: usize, connected: bool) {
        for route in self.routes.iter().filter(|route| route.from == node || route.to == node) {
            route.proxy.set_passing(connected);
        }
    }

    /// A `JetStream` context whose client goes to whichever server answers.
    pub async fn jetstream(&self) -> Context {
        let servers: Vec<String> = self.nodes.iter().map(NatsServer::url).collect();
        let client = until_in(ELECTION, "the cluster answers", async || {
            async_nats::connect(&servers[..]).await.ok()
        });
        super::jetstream_context(client.await)
    }

    /// The server that leads a stream, waited for.
    pub async fn stream_leader(&self, js: &Context, stream: &str) -> usize {
        self.leader(js, &format!("STREAM.INFO.{stream}")).await
    }

    /// The server that leads a consumer, waited for.
    pub async fn consumer_leader(&self, js: &Context, stream: &str, durable: &str) -> usize {
        self.leader(js, &format!("CONSUMER.INFO.{stream}.{durable}")).await
    }

    async fn leader(&self, js: &Context, question: &str) -> usize {
        until_in(ELECTION, &format!("there is a leader in {question}"), async || {
            let info: Value = ask(js, question).await?;
            let leader = info["cluster"]["leader"].as_str()?;
            (0..NODES).find(|node| name(*node) == leader)
        })
        .await
    }

    /// Asks the leader of a stream, or of a consumer with its stream before it, to let another
    /// lead.
    pub async fn step_down(&self, js: &Context, kind: &str, name: &str) {
        until_in(ELECTION, &format!("the leader of {name} steps down"), async || {
            let answer: Value = ask(js, &format!("{kind}.LEADER.STEPDOWN.{name}")).await?;
            answer["success"].as_bool().filter(|success| *success)
        })
        .await;
    }
}

/// Asks the `JetStream` API.
async fn ask(js: &Context, question: &str) -> Option<Value> {
    let answer = js.client().request(format!("$JS.API.{question}"), "".into()).await.ok()?;
    serde_json::from_slice(&answer.payload).ok()
}

fn name(node: usize) -> String {
    format!("node-{node}")
}
