//! Results, waits and batches on three servers: the leaders of their streams are killed.

use std::{collections::BTreeSet, time::Duration};

use async_nats::jetstream::Context;
use asyncqueue::{
    lanes::Fairness,
    stream::{QueueSpec, ensure_buckets, ensure_queue},
};
use futures::future::join_all;
use serde_json::json;
use test_support::{
    http::{HttpServer, respond_after},
    nats::cluster::{NODES, NatsCluster},
    program::Program,
    raw::RawResponse,
    wait::until_in,
};

use tokio::task::JoinSet;

use crate::{
    gateway::Gateway,
    lanes_cluster::sweep_lanes,
    support::{spec, start_worker},
};

/// For three servers to choose leaders, and for what waited for them.
const ELECTION: Duration = Duration::from_secs(120);

/// How long the function takes.
const TAKES: Duration = Duration::from_secs(3);

/// A queue with three copies, its gateway and two workers. Functions answer with what they get.
struct Replicated {
    cluster: NatsCluster,
    js: Context,
    gateway: Gateway,
    function: HttpServer,
    _workers: [Program; 2],
    /// The operator's part: lanes that could not be created without a leader.
    _swept: Option<JoinSet<()>>,
}

impl Replicated {
    async fn start(fairness: Fairness) -> Self {
        let mut cluster = NatsCluster::start().await;
        let js = cluster.jetstream().await;
        let spec = QueueSpec { replicas: NODES, fairness, ..spec() };
        until_in(ELECTION, "the queue is there", async || {
            ensure_buckets(&js, NODES).await.ok()?;
            ensure_queue(&js, &spec, false).await.ok()
        })
        .await;
        let url = cluster.url();
        let directory = match fairness {
            Fairness::Fifo => "queues: {jobs: }",
            Fairness::Function => "queues: {jobs: {fairness: Function}}",
        };
        let gateway = Gateway::start_at(&url, directory, &[]).await;
        gateway.is_ready().await;
        let function = HttpServer::answering(|request| {
            respond_after(TAKES, 200, str::from_utf8(&request.body).unwrap_or_default())
        })
        .await;
        let mut worker = || {
            let settings = [("nats_url", url.as_str()), ("max_inflight", "20")];
            start_worker(cluster.node(0), &function, &settings)
        };
        let workers = [worker(), worker()];
        let swept = (fairness == Fairness::Function).then(|| sweep_lanes(&js, &spec));
        Self { cluster, js, gateway, function, _workers: workers, _swept: swept }
    }

    /// Submits a call with this body, however often servers do not answer.
    async fn submit(&self, name: &str, headers: &[(&str, &str)], body: &str) -> RawResponse {
        let target = format!("/async-function/{name}");
        until_in(ELECTION, "the call is stored", async || {
            let answer = self.gateway.try_call("POST", &target, headers, body).await.ok()?;
            (answer.status < 500).then_some(answer)
        })
        .await
    }

    /// Waits until the result of a call is there, and checks that it is the body of the call.
    async fn has_result(&self, id: &str, body: &str) {
        let target = format!("/async-function/{id}/result");
        let answer = until_in(ELECTION, "the result is there", async || {
            let answer = self.gateway.try_call("GET", &target, &[], "").await.ok()?;
            ([200, 404, 410].contains(&answer.status)).then_some(answer)
        })
        .await;
        assert_eq!((answer.status, answer.text().as_str()), (200, body), "{id}");
        assert_eq!(answer.header("x-function-status"), "200");
    }

    /// Kills the server that leads a stream, and returns its number.
    async fn kill_leader(&mut self, stream: &str) -> usize {
        let leader = self.cluster.stream_leader(&self.js, stream).await;
        self.cluster.node(leader).kill();
        leader
    }

    async fn copies(&self, stream: &str) -> usize {
        until_in(ELECTION, "the stream is there", async || {
            Some(self.js.get_stream(stream).await.ok()?.cached_info().config.num_replicas)
        })
        .await
    }
}

const KEEP: (&str, &str) = ("x-keep-result", "1h");

async fn results_survive_the_loss_of_their_leader(fairness: Fairness) {
    let mut stage = Replicated::start(fairness).await;
    let bodies: Vec<_> = (0..10).map(|number| format!("body {number}")).collect();
    let mut ids = Vec::new();
    for (number, body) in bodies.iter().enumerate() {
        let answer = stage.submit(&format!("f{}", number % 3), &[KEEP], body).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        ids.push(answer.header("x-call-id").to_owned());
    }
    for (id, body) in ids.iter().zip(&bodies) {
        stage.has_result(id, body).await;
    }
    assert_eq!(stage.copies("jobs-results").await, NODES);
    let killed = stage.kill_leader("jobs-results").await;
    for (id, body) in ids.iter().zip(&bodies) {
        stage.has_result(id, body).await;
    }
    let later = stage.submit("f0", &[KEEP], "later").await;
    stage.has_result(later.header("x-call-id"), "later").await;
    stage.cluster.node(killed).launch();
}

#[tokio::test]
async fn kept_results_survive_the_loss_of_their_leader() {
    results_survive_the_loss_of_their_leader(Fairness::Fifo).await;
}

#[tokio::test]
async fn kept_results_of_lanes_survive_the_loss_of_a_leader() {
    results_survive_the_loss_of_their_leader(Fairness::Function).await;
}

#[tokio::test]
async fn waits_end_though_the_leader_is_killed() {
    let mut stage = Replicated::start(Fairness::Fifo).await;
    // So that the stream of results is there.
    let first = stage.submit("figlet", &[KEEP], "first").await;
    stage.has_result(first.header("x-call-id"), "first").await;
    let bodies: Vec<_> = (0..10).map(|number| format!("body {number}")).collect();
    let leader = stage.cluster.stream_leader(&stage.js, "jobs").await;
    let Replicated { cluster, gateway, function, .. } = &mut stage;
    let wait = async |body: &str| {
        gateway.try_call("POST", "/async-function/figlet", &[("prefer", "wait=60")], body).await
    };
    let kill = async {
        function.receives(1 + bodies.len()).await;
        cluster.node(leader).kill();
    };
    let (answers, ()) = tokio::join!(join_all(bodies.iter().map(|body| wait(body))), kill);
    let mut ended = 0;
    for (answer, body) in answers.into_iter().zip(&bodies) {
        let answer = answer.unwrap();
        // Its result may be stored so late that the gateway did not wait for it.
        assert!([200, 202].contains(&answer.status), "{}", answer.text());
        if answer.status == 200 {
            assert_eq!(answer.text(), *body);
            ended += 1;
        }
        stage.has_result(answer.header("x-call-id"), body).await;
    }
    println!("{ended} of {} waits have ended with their call", bodies.len());
    stage.cluster.node(leader).launch();
    // Another wait gets the response of the function.
    let answer = until_in(ELECTION, "a wait ends with its call", async || {
        let answer = stage.submit("figlet", &[("prefer", "wait=30")], "after").await;
        (answer.status == 200).then_some(answer)
    })
    .await;
    assert_eq!(answer.text(), "after");
}

#[tokio::test]
async fn batch_ends_once_though_leaders_are_killed() {
    let mut stage = Replicated::start(Fairness::Function).await;
    let receiver = HttpServer::start().await;
    let url = format!("{}/done", receiver.url());
    let lines: Vec<_> = (0..40)
        .map(|number| json!({"function": format!("f{}", number % 2), "body": "hi"}).to_string())
        .collect();
    for (stream, id, lines) in
        [("jobs", "b-1", &lines[..]), ("KV_asyncqueue-batches", "b-2", &lines[..1])]
    {
        let headers = [("x-callback-url", url.as_str()), ("x-batch-id", id)];
        let body = lines.join("\n");
        until_in(ELECTION, "the batch is stored", async || {
            let answer =
                stage.gateway.try_call("POST", "/async-batch", &headers, &body).await.ok()?;
            assert!([202, 503].contains(&answer.status), "{}", answer.text());
            (answer.status == 202).then_some(())
        })
        .await;
        assert_eq!(stage.copies("KV_asyncqueue-batches").await, NODES);
        let killed = stage.kill_leader(stream).await;
        let report = until_in(ELECTION, "the callback arrives", async || {
            let mut callbacks = receiver.received().into_iter();
            callbacks.find(|callback| callback.header("x-batch-id") == id)
        })
        .await;
        let report: serde_json::Value = serde_json::from_slice(&report.body).unwrap();
        assert_eq!(report["counts"]["done"], lines.len(), "{report}");
        stage.cluster.node(killed).launch();
    }
    let ends = receiver.received().into_iter().map(|callback| callback.body);
    // A callback may be repeated, if the server that stored its acknowledgement was killed.
    assert_eq!(ends.collect::<BTreeSet<_>>().len(), 2, "a batch has two ends");
}
