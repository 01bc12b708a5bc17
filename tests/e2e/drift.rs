//! What is changed or deleted by hand comes back.

use std::time::Duration;

use async_nats::jetstream::consumer::{FromConsumer, pull};
use test_support::{
    cluster::{PortForward, get, is_true, kubectl, object_is},
    wait::until_in,
};

use crate::support::Queue;

/// What is done by hand to streams and consumers comes back in seconds, also on a machine that does
/// much else.
const SECONDS: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_deployment_that_is_deleted_or_changed_by_hand_comes_back() {
    let queue = Queue::ready("drift", "{verbose: true}").await;
    let uid = get(queue.name(), &queue.worker()).unwrap()["metadata"]["uid"].clone();
    let _ = kubectl(&["delete", "-n", queue.name(), &queue.worker(), "--wait=false"]);
    object_is(queue.name(), &queue.worker(), "recreated", |deployment| {
        deployment["metadata"]["uid"] != uid
            && deployment["metadata"]["deletionTimestamp"].is_null()
    })
    .await;

    let _ = kubectl(&["set", "env", "-n", queue.name(), &queue.worker(), "write_debug=false"]);
    object_is(queue.name(), &queue.worker(), "as the queue says", |deployment| {
        let environment = deployment["spec"]["template"]["spec"]["containers"][0]["env"].as_array();
        environment
            .into_iter()
            .flatten()
            .any(|variable| variable["name"] == "write_debug" && variable["value"] == "true")
    })
    .await;
    queue.is("ready", |queue| is_true(queue, "Ready")).await;
}

#[tokio::test]
async fn labels_and_the_account_that_are_changed_by_hand_come_back() {
    let queue = Queue::ready("drift-labels", "{replicas: 0}").await;
    let account = format!("serviceaccount/{}-worker", queue.name());
    for object in [&queue.worker(), &account] {
        let (name, value) = ("app.kubernetes.io/instance", queue.name());
        let changed = format!("{name}=another");
        let _ = kubectl(&["label", "-n", queue.name(), object, "--overwrite", &changed, "team=a"]);
        let labels = object_is(queue.name(), object, "labelled as it was", |object| {
            object["metadata"]["labels"][name] == value
        })
        .await["metadata"]["labels"]
            .take();
        assert_eq!(labels["team"], "a", "what is not the operator's is left alone");
    }
    let token = r#"{"automountServiceAccountToken": true}"#;
    let _ = kubectl(&["patch", "-n", queue.name(), &account, "--type=merge", "-p", token]);
    object_is(queue.name(), &account, "without a token", |account| {
        account["automountServiceAccountToken"] == false
    })
    .await;
    let _ = kubectl(&["label", "-n", queue.name(), &account, "asyncqueue.io/queue-"]);
    object_is(queue.name(), &account, "labelled with its queue", |account| {
        account["metadata"]["labels"]["asyncqueue.io/queue"] == queue.name()
    })
    .await;
}

#[tokio::test]
async fn streams_and_consumers_changed_by_hand_are_restored() {
    let queue = Queue::ready("drift-nats", "{replicas: 0}").await;
    let (name, consumer) = (queue.name(), format!("{}-workers", queue.name()));
    let nats = PortForward::to("openfaas", "service/nats", 4222);
    let js = test_support::nats::jetstream_context(
        async_nats::connect(nats.addr().to_string()).await.unwrap(),
    );
    let stream = js.get_stream_no_info(name).await.unwrap();

    stream.delete_consumer(&consumer).await.unwrap();
    let what = "the consumer is there again";
    until_in(SECONDS, what, async || stream.consumer_info(&consumer).await.ok()).await;

    // JetStream sends no advisory of this one.
    let mut changed = stream.consumer_info(&consumer).await.unwrap().config;
    changed.ack_wait *= 2;
    let pull = <pull::Config as FromConsumer>::try_from_consumer_config(changed.clone());
    let _ = stream.update_consumer(pull.unwrap()).await.unwrap();
    until_in(SECONDS, "the consumer is as it was", async || {
        let info = stream.consumer_info(&consumer).await.ok()?;
        (info.config.ack_wait != changed.ack_wait).then_some(())
    })
    .await;

    let mut config = js.get_stream(name).await.unwrap().cached_info().config.clone();
    let subjects = config.subjects.clone();
    config.subjects.push(format!("{name}-more"));
    js.update_stream(config).await.unwrap();
    until_in(SECONDS, "the stream is as it was", async || {
        let info = js.get_stream(name).await.ok()?;
        (info.cached_info().config.subjects == subjects).then_some(())
    })
    .await;

    let dead = format!("{name}-dead");
    js.delete_stream(&dead).await.unwrap();
    until_in(SECONDS, "the stream of dead letters is there again", async || {
        js.get_stream(&dead).await.ok()
    })
    .await;
    queue.is("ready", |queue| is_true(queue, "Ready")).await;
}
