//! What a queue holds at most, and what callers hear of it.

use std::time::Duration;

use asyncqueue_tests::wait::until;

use crate::support::{Gateway, Queue, stream_config};

#[tokio::test]
async fn a_queue_refuses_what_is_too_much_and_takes_more_when_its_limits_are_raised() {
    let spec = |limits: &str| format!("{{replicas: 0, limits: {limits}}}");
    let queue = Queue::ready("limits", &spec("{maxMessages: 2, maxPayload: 1Ki, maxAge: 1h}")).await;
    queue.deploy_functions(&["fast"]).await;
    let config = stream_config(queue.name()).await;
    assert_eq!((config.max_messages, config.max_age), (2, Duration::from_secs(3600)));

    let (gateway, name) = (Gateway::connect(), queue.name());
    let large = until("the gateway knows the limit", async || {
        let answer = gateway.submit_body(name, "fast", &"x".repeat(1025)).await;
        (answer.status == 413).then_some(answer)
    })
    .await;
    assert!(large.body.contains("limits.maxPayload"), "{}", large.body);
    let held = || async { queue.is("known", |_| true).await["status"]["pending"].as_u64() };
    // What came before the limit was known counts too.
    while held().await.unwrap_or(0) < 2 {
        let answer = gateway.submit_body(name, "fast", "small").await;
        if answer.status == 429 {
            break;
        }
        assert_eq!(answer.status, 202, "{}", answer.body);
    }
    let full = gateway.submit_body(name, "fast", "small").await;
    assert_eq!(full.status, 429, "{}", full.body);

    queue.apply(&spec("{maxMessages: 10, maxBytes: 1Mi}"));
    until("it takes calls again", async || {
        (gateway.submit_body(name, "fast", "small").await.status == 202).then_some(())
    })
    .await;
    let config = stream_config(name).await;
    assert_eq!((config.max_messages, config.max_bytes), (10, 1 << 20));
    assert_eq!((config.max_message_size, config.max_age), (-1, Duration::ZERO));
    queue.is("none is dropped", |queue| queue["status"]["pending"].as_u64() >= Some(3)).await;
}
