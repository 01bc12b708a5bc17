//! The same of streams with three copies, on three servers.

use std::time::Duration;

use async_nats::jetstream::{Context, stream::Info};
use asyncqueue::{
    buckets::DIRECTORY,
    stream::{EnsureError, Owner, QueueSpec, ensure_queue, total_stored},
};
use futures::future::join_all;
use test_support::{
    nats::cluster::{NODES, NatsCluster},
    wait::until_in,
};

/// For three servers to choose leaders.
const ELECTION: Duration = Duration::from_secs(60);

/// A queue with three copies.
fn replicated(queue: &str) -> QueueSpec {
    let owner = Owner { name: format!("test/{queue}"), uid: "1".to_owned() };
    QueueSpec { replicas: NODES, ..QueueSpec::new(queue.parse().unwrap(), owner) }
}

/// What the server says of a stream, once it does and holds so many messages at least.
async fn info(js: &Context, stream: &str, messages: u64) -> Info {
    until_in(ELECTION, &format!("{stream} holds {messages} messages"), async || {
        let stream = js.get_stream(stream).await.ok()?;
        Some(stream.cached_info().clone()).filter(|info| info.state.messages >= messages)
    })
    .await
}

#[tokio::test]
async fn creators_at_once_succeed_on_a_cluster() {
    let cluster = NatsCluster::start().await;
    for round in 0..5 {
        let spec = replicated(&format!("jobs-{round}"));
        let creators = [cluster.jetstream().await, cluster.jetstream().await];
        let create = async |js| {
            // While leaders are chosen, servers may not answer; never do they refuse.
            until_in(ELECTION, "the queue is there", async || {
                match ensure_queue(js, &spec, false).await {
                    Ok(ensured) => Some(ensured.info.config.first_sequence.unwrap()),
                    Err(EnsureError::Unavailable { .. }) => None,
                    Err(EnsureError::Consumer(error))
                        if matches!(*error, EnsureError::Unavailable { .. }) =>
                    {
                        None
                    }
                    Err(error) => panic!("{error}"),
                }
            })
            .await
        };
        let firsts = join_all(creators.iter().map(create)).await;
        assert_eq!(firsts[0], firsts[1]);
    }
}

#[tokio::test]
async fn replicas_of_buckets_are_raised_and_never_lowered() {
    let cluster = NatsCluster::start().await;
    let js = cluster.jetstream().await;
    let replicas = async |wanted: usize| {
        until_in(ELECTION, "the bucket is there", async || {
            DIRECTORY.ensure(&js, wanted).await.ok()
        })
        .await;
        let is_raised = async || {
            let stream = js.get_stream(DIRECTORY.stream()).await.ok()?;
            Some(stream.cached_info().config.num_replicas).filter(|replicas| *replicas >= wanted)
        };
        until_in(ELECTION, "its replicas are as many", is_raised).await
    };
    assert_eq!(replicas(1).await, 1);
    assert_eq!(replicas(NODES).await, NODES);
    assert_eq!(replicas(1).await, NODES);
}

#[tokio::test]
async fn calls_on_a_cluster_survive_updates_and_restarts() {
    let mut cluster = NatsCluster::start().await;
    let (js, mut spec) = (cluster.jetstream().await, replicated("jobs"));
    let ensured = async |spec: &QueueSpec| {
        until_in(ELECTION, "ensured", async || ensure_queue(&js, spec, false).await.ok()).await
    };
    let first = ensured(&spec).await.info.config.first_sequence.unwrap();
    let restart = async |cluster: &mut NatsCluster| {
        for node in 0..NODES {
            cluster.node(node).kill();
        }
        for node in 0..NODES {
            cluster.node(node).launch();
        }
    };
    // Empty, it goes on where it was.
    restart(&mut cluster).await;
    for number in 0..10 {
        until_in(ELECTION, "a call is stored", async || {
            js.publish(format!("jobs.ns.f.{number}"), "hi".into()).await.ok()?.await.ok()
        })
        .await;
    }
    spec.limits.max_messages = 500;
    // It may have been updated by a try that had no answer.
    ensured(&spec).await;
    restart(&mut cluster).await;
    let info = info(&js, "jobs", 10).await;
    assert_eq!((info.config.max_messages, info.config.first_sequence), (500, Some(first)));
    // An attempt that had no answer may have stored its call.
    assert!(
        info.state.first_sequence == first && total_stored(&info.config, &info.state) >= 10,
        "{:?}",
        info.state
    );
}
