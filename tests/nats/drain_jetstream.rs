//! `kubectl aq drain jetstream`, from a stream as OpenFaaS's gateways publish to it.

use std::time::Duration;

use async_nats::jetstream::{
    AckKind,
    consumer::{AckPolicy, PullConsumer, pull},
    stream::{Config, RetentionPolicy},
};
use futures::StreamExt;
use test_support::program::{Ended, Program, run};

use crate::{
    drain::{dead_letters, request, run_job, stored},
    support::Queue,
};

const STREAM: &str = "OF_jobs";
const CONSUMER: &str = "faas-workers";

/// A queue, and a stream of OpenFaaS with a consumer.
async fn start(ack_wait: Duration) -> (Queue, PullConsumer) {
    let queue = Queue::start().await;
    let config = Config {
        name: STREAM.to_owned(),
        subjects: vec!["of.>".to_owned()],
        retention: RetentionPolicy::WorkQueue,
        ..Config::default()
    };
    let stream = queue.js.create_stream(config).await.unwrap();
    let config = pull::Config {
        durable_name: Some(CONSUMER.to_owned()),
        ack_policy: AckPolicy::Explicit,
        ack_wait,
        ..pull::Config::default()
    };
    let consumer = stream.create_consumer(config).await.unwrap();
    (queue, consumer)
}

async fn publish(queue: &Queue, messages: impl IntoIterator<Item = String>) {
    let js = test_support::nats::jetstream_context(queue.nats.client().await);
    for message in messages {
        js.publish("of.0.openfaas-fn.figlet", message.into()).await.unwrap().await.unwrap();
    }
}

fn arguments<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["drain", "jetstream", "--stream", STREAM, "--default-queue", "jobs"], more].concat()
}

async fn drain(queue: &Queue, more: &[&str]) -> Ended {
    run("kubectl-aq", &arguments(more), &[("nats_url", &queue.nats.url())]).await
}

#[tokio::test]
async fn a_stream_is_drained_once_though_drain_and_worker_are_killed() {
    const MESSAGES: usize = 1_000;
    let (queue, consumer) = start(Duration::from_secs(2)).await;
    publish(&queue, (0..MESSAGES).map(|number| request("figlet", &format!("id-{number}")))).await;
    // An old worker has done one and has another in hand.
    let mut taken = consumer.fetch().max_messages(2).messages().await.unwrap();
    let (done, _in_hand) =
        (taken.next().await.unwrap().unwrap(), taken.next().await.unwrap().unwrap());
    done.ack_with(AckKind::Ack).await.unwrap();

    let url = queue.nats.url();
    let mut first = Program::start_with("kubectl-aq", &arguments(&[]), &[("nats_url", &url)]);
    let begun = queue.info("jobs").await.config.first_sequence.unwrap_or(1);
    test_support::wait::until("some are stored", async || {
        (queue.info("jobs").await.state.last_sequence >= begun + 300).then_some(())
    })
    .await;
    first.kill();
    let ended = drain(&queue, &[]).await;
    assert_eq!(ended.code, Some(0), "{}{}", ended.text(), ended.stderr);

    let stored = stored(&queue, "jobs").await;
    assert_eq!((stored.len(), stored.values().max()), (MESSAGES - 1, Some(&1)));
    assert!(!stored.contains_key("id-0") && stored.contains_key("id-1"));
    assert_eq!(queue.info(STREAM).await.state.messages, 0);
    assert!(dead_letters(&queue).await.is_empty());
}

#[tokio::test]
async fn a_stream_without_a_consumer_gets_one() {
    let (queue, _) = start(Duration::from_secs(2)).await;
    let stream = queue.js.get_stream(STREAM).await.unwrap();
    stream.delete_consumer(CONSUMER).await.unwrap();
    publish(&queue, [request("figlet", "id-1"), "nothing".to_owned()]).await;
    let ended = drain(&queue, &["--source-url", &queue.nats.url()]).await;
    assert_eq!(ended.code, Some(0), "{}{}", ended.text(), ended.stderr);
    assert!(ended.text().contains("stored=1 stored_before=0 unusable=1"), "{}", ended.text());
    assert_eq!(dead_letters(&queue).await.len(), 1);
    assert_eq!(queue.info(STREAM).await.state.messages, 0);
}

#[tokio::test]
async fn the_job_of_the_manifests_drains_a_stream() {
    let (queue, _) = start(Duration::from_secs(2)).await;
    publish(&queue, [request("figlet", "id-1")]).await;
    let url = queue.nats.url();
    let ended = run_job(
        "drain-jetstream",
        &[
            ("nats_url", &url),
            ("source_url", &url),
            ("source_stream", STREAM),
            ("default_queue", "jobs"),
        ],
    )
    .await;
    assert_eq!(ended.code, Some(0), "{}{}", ended.text(), ended.stderr);
    assert!(ended.text().contains("\"stored\":1"), "{}", ended.text());
}

#[tokio::test]
async fn a_source_that_will_not_do_is_refused() {
    let (queue, _) = start(Duration::from_secs(2)).await;
    publish(&queue, [request("figlet", "id-1")]).await;
    let own = ["drain", "jetstream", "--stream", "jobs", "--default-queue", "jobs"];
    queue.submit(|_| ()).await;
    let url = queue.nats.url();
    let ended = run("kubectl-aq", &own, &[("nats_url", &url)]).await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("which already has its messages"), "{}", ended.stderr);
    assert_eq!(queue.info("jobs").await.state.messages, 1);
    for (more, expected) in [
        (&["--consumer", "nope"][..], "failed to open consumer `nope`"),
        (&["--stream", "nope"], "the argument '--stream"),
    ] {
        let ended = drain(&queue, more).await;
        assert_ne!(ended.code, Some(0), "{more:?}");
        assert!(ended.stderr.contains(expected), "{}", ended.stderr);
    }
    assert_eq!(queue.info(STREAM).await.state.messages, 1);
}
