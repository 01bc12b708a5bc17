//! What a queue holds at most, and what clients are answered then.

use std::time::Duration;

use async_nats::jetstream::stream::Config;
use test_support::{cluster::PortForward, wait::until};

use crate::support::{Answer, Gateway, Queue};

/// A stream of the cluster's NATS, as it is configured.
pub(crate) async fn stream_config(name: &str) -> Config {
    let forward = PortForward::to("openfaas", "service/nats", 4222);
    let client = async_nats::connect(forward.addr().to_string()).await.unwrap();
    let stream = test_support::nats::jetstream_context(client).get_stream(name).await.unwrap();
    stream.cached_info().config.clone()
}

async fn submit(gateway: &Gateway, queue: &Queue, body: &str) -> Answer {
    let target = format!("/async-function/fast.{}", queue.name());
    gateway.request("POST", &target, &[], body).await
}

#[tokio::test]
async fn full_queue_accepts_calls_after_its_limits_are_raised() {
    let spec = |limits: &str| format!("{{replicas: 0, limits: {limits}}}");
    let queue =
        Queue::ready("limits", &spec("{maxMessages: 2, maxPayload: 1Ki, maxAge: 1h}")).await;
    queue.deploy_functions(&["fast"]).await;
    let config = stream_config(queue.name()).await;
    // Workers end older calls; JetStream drops them at twice the age.
    assert_eq!((config.max_messages, config.max_age), (2, Duration::from_secs(2 * 3600)));

    let gateway = Gateway::connect();
    let large = submit(&gateway, &queue, &"x".repeat(1025)).await;
    assert_eq!(large.status, 413, "{}", large.body);
    assert!(large.body.contains("limits.maxPayload"), "{}", large.body);
    for _ in 0..2 {
        assert_eq!(submit(&gateway, &queue, "small").await.status, 202);
    }
    let full = submit(&gateway, &queue, "small").await;
    assert_eq!(full.status, 429, "{}", full.body);

    queue.apply(&spec("{maxMessages: 10, maxBytes: 1Mi}"));
    until("it takes calls again", async || {
        (submit(&gateway, &queue, "small").await.status == 202).then_some(())
    })
    .await;
    let config = stream_config(queue.name()).await;
    assert_eq!((config.max_messages, config.max_bytes), (10, 1 << 20));
    assert_eq!((config.max_message_size, config.max_age), (-1, Duration::ZERO));
    queue.is("none was dropped", |queue| queue["status"]["pending"].as_u64() == Some(3)).await;
}
