//! `kubectl aq` while servers of a cluster of NATS are missing.

use std::time::Duration;

use asyncqueue::{
    directory::{Directory, QueueEntry, store::DirectoryStore},
    stream::{ensure_buckets, ensure_queue},
};
use serde_json::Value;
use test_support::{
    nats::cluster::{NODES, NatsCluster},
    program::{Ended, run},
    wait::until_in,
};

use crate::support::spec;

/// For three servers to choose leaders, and for requests that no server answers.
const ELECTION: Duration = Duration::from_secs(120);

async fn aq(url: &str, arguments: &[&str]) -> Ended {
    run("kubectl-aq", arguments, &[("nats_url", url), ("KUBECONFIG", "/dev/null")]).await
}

#[tokio::test]
async fn missing_servers_of_nats_are_named() {
    let mut cluster = NatsCluster::start().await;
    let js = cluster.jetstream().await;
    let mut directory = Directory::default();
    directory.queues.insert("jobs".parse().unwrap(), QueueEntry::new("jobs", "jobs"));
    // The queue has one copy.
    until_in(ELECTION, "the queue is there", async || {
        ensure_buckets(&js, NODES).await.ok()?;
        DirectoryStore::open(&js, NODES).await.ok()?.sync(&directory).await.ok()?;
        ensure_queue(&js, &spec(), false).await.ok()
    })
    .await;
    let own = cluster.stream_leader(&js, "jobs").await;
    let [rest, last] = [(own + 1) % NODES, (own + 2) % NODES];
    let url = cluster.node(last).url();

    cluster.node(own).kill();
    let finding = until_in(ELECTION, "the stream has no server", async || {
        let ended = aq(&url, &["queue", "jobs", "-o", "json"]).await;
        let report: Value = serde_json::from_slice(&ended.stdout).ok()?;
        let finding = report["findings"][0].clone();
        (finding["name"] == "StreamUnavailable").then_some(finding)
    })
    .await;
    assert_eq!(finding["severity"], "error");
    assert!(finding["cause"].as_str().unwrap().contains("answers for stream jobs"), "{finding}");

    cluster.node(rest).kill();
    for arguments in [&["queue", "jobs"][..], &["queues"]] {
        until_in(ELECTION, "JetStream has no leader", async || {
            let ended = aq(&url, arguments).await;
            let says = ended.stderr.contains("more than half of the servers of NATS must run");
            (ended.code == Some(1) && says && ended.stderr.lines().count() == 1).then_some(())
        })
        .await;
    }
}
