//! Lanes of a stream with three copies, on three servers: each lane is a Raft group too.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use async_nats::jetstream::Context;
use asyncqueue::{
    CallId, Invocation,
    directory::{QueueEntry, QueueRoute},
    lanes::{Fairness, Sweeper, lane_name},
    stream::{QueueSpec, ensure_buckets, ensure_queue},
    submit::Submitter,
};
use test_support::{
    http::{HttpServer, respond_after},
    nats::{
        ANSWER_TIMEOUT,
        cluster::{NODES, NatsCluster},
    },
    program::Program,
    wait::until_in,
};
use tokio::task::JoinSet;

use crate::{
    lanes::function,
    support::{LEASE, callback_at, spec, start_worker},
};

/// For three servers to choose leaders, and for what waited for them.
const ELECTION: Duration = Duration::from_secs(60);

/// A queue with lanes and three copies.
struct Replicated {
    cluster: NatsCluster,
    js: Context,
    spec: QueueSpec,
    submitter: Submitter,
}

impl Replicated {
    async fn start() -> Self {
        let cluster = NatsCluster::start().await;
        let js = cluster.jetstream().await;
        let spec = QueueSpec { replicas: NODES, fairness: Fairness::Function, ..spec() };
        until_in(ELECTION, "the queue is there", async || {
            ensure_buckets(&js, NODES).await.ok()?;
            ensure_queue(&js, &spec, false).await.ok()
        })
        .await;
        let submitter = Submitter::new(js.clone(), ANSWER_TIMEOUT);
        Self { cluster, js, spec, submitter }
    }

    fn route(&self) -> QueueRoute {
        let QueueSpec { queue, stream, subject, .. } = &self.spec;
        QueueEntry::new(stream, subject).route_of_unknown_fairness(queue.clone())
    }

    /// Stores a call, however often servers do not answer, and returns its id.
    async fn submit(&self, name: &str, callbacks: Option<&HttpServer>) -> CallId {
        let route = self.route();
        let mut call = Invocation::new(CallId::generate(&route.queue), function(name), "hi");
        call.callback_url = callbacks.map(callback_at);
        until_in(ELECTION, "the call is stored", async || {
            self.submitter.submit(&call, &route).await.ok()
        })
        .await;
        call.call_id
    }

    async fn worker(&mut self, server: &HttpServer) -> Program {
        let (url, functions) = (self.cluster.url(), format!("{}/{{function}}", server.url()));
        let settings =
            [("nats_url", url.as_str()), ("function_url", &functions), ("max_inflight", "4")];
        let worker = start_worker(self.cluster.node(0), server, &settings);
        worker.logged("pulling from lanes").await;
        worker
    }

    async fn has_lane(&self, name: &str) {
        let lane = lane_name(&self.spec.queue, &function(name));
        until_in(ELECTION, &format!("{name} has a lane"), async || {
            self.js.get_stream_no_info("jobs").await.ok()?.consumer_info(&lane).await.ok()
        })
        .await;
    }

    async fn empties(&self) {
        until_in(ELECTION * 2, "all calls end", async || {
            let stream = self.js.get_stream("jobs").await.ok()?;
            (stream.cached_info().state.messages == 0).then_some(())
        })
        .await;
    }
}

/// Sweeps more often than an operator, until this is dropped.
pub(crate) fn sweep_lanes(js: &Context, spec: &QueueSpec) -> JoinSet<()> {
    let mut sweeper = Sweeper::new(js.clone(), spec);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        loop {
            // Servers that choose a leader do not answer.
            let _ = tokio::time::timeout(LEASE, sweeper.sweep()).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    tasks
}

/// The calls of a function that a server received.
fn calls_of(server: &HttpServer, name: &str) -> usize {
    server.received().iter().filter(|call| call.target.contains(name)).count()
}

#[tokio::test]
async fn lanes_with_three_copies_take_turns_and_are_removed() {
    let mut queue = Replicated::start().await;
    let server = HttpServer::answering(|_| respond_after(Duration::from_millis(50), 200, "")).await;
    for _ in 0..200 {
        queue.submit("heavy", None).await;
    }
    queue.has_lane("heavy").await;
    let _worker = queue.worker(&server).await;
    server.receives(4).await;
    queue.submit("light", None).await;
    until_in(ELECTION, "the light call runs", async || {
        (calls_of(&server, "light") == 1).then_some(())
    })
    .await;
    assert!(calls_of(&server, "heavy") < 200, "it waited for the backlog");
    queue.empties().await;
    // Lanes without calls go, and come back.
    let idle = Duration::from_secs(1);
    let mut sweeper = Sweeper::new(queue.js.clone(), &queue.spec).keeping_lanes_for(idle);
    until_in(ELECTION, "the lanes are removed", async || {
        sweeper.sweep().await.ok()?;
        let stream = queue.js.get_stream("jobs").await.ok()?;
        (stream.cached_info().state.consumer_count == 1).then_some(())
    })
    .await;
    // What is known of the lane is as old as in a program that stored its last call long ago.
    queue.submitter = Submitter::new(queue.js.clone(), ANSWER_TIMEOUT);
    queue.submit("light", None).await;
    until_in(ELECTION, "it runs again", async || (calls_of(&server, "light") == 2).then_some(()))
        .await;
    queue.empties().await;
}

#[tokio::test]
async fn calls_of_lanes_end_once_though_the_leader_is_killed() {
    let mut queue = Replicated::start().await;
    let server = HttpServer::answering(|_| respond_after(Duration::from_millis(20), 200, "")).await;
    let receiver = HttpServer::start().await;
    let _workers = [queue.worker(&server).await, queue.worker(&server).await];
    let _swept = sweep_lanes(&queue.js, &queue.spec);
    let mut ids = BTreeSet::new();
    for number in 0..60 {
        ids.insert(queue.submit(&format!("f{}", number % 6), Some(&receiver)).await.to_string());
    }
    let leader = queue.cluster.stream_leader(&queue.js, "jobs").await;
    queue.cluster.node(leader).kill();
    for number in 0..60 {
        ids.insert(queue.submit(&format!("f{}", number % 6), Some(&receiver)).await.to_string());
    }
    // A lane that is created while a server is away.
    ids.insert(queue.submit("late", Some(&receiver)).await.to_string());
    queue.has_lane("late").await;
    queue.cluster.node(leader).launch();
    ids.insert(queue.submit("late", Some(&receiver)).await.to_string());
    queue.empties().await;
    let ends = until_in(ELECTION, "all ends are posted", async || {
        let posted = receiver.received();
        let ends: BTreeSet<_> = posted
            .iter()
            .map(|end| (end.header("x-call-id").to_owned(), end.header("webhook-id").to_owned()))
            .collect();
        (ends.len() >= ids.len()).then(|| Arc::new(ends))
    })
    .await;
    assert_eq!(ends.len(), ids.len(), "a call has two ends");
    assert_eq!(ends.iter().map(|(id, _)| id.clone()).collect::<BTreeSet<_>>(), ids);
}
