//! The policy of a queue's spec, as its workers follow it.

use std::time::Duration;

use test_support::cluster::kubectl;

use crate::{
    limits::stream_config,
    support::{Gateway, Queue},
};

#[tokio::test]
async fn failing_call_is_a_dead_letter_after_max_attempts() {
    let retry =
        "{maxAttempts: 3, minBackoff: 100ms, maxBackoff: 1s, jitter: None, statusCodes: [418]}";
    let dead_letter = "{maxAge: 2h, maxMessages: 5}";
    let queue =
        Queue::ready("retries", &format!("{{retry: {retry}, deadLetter: {dead_letter}}}")).await;
    let config = stream_config(&format!("{}-dead", queue.name())).await;
    assert_eq!((config.max_age, config.max_messages), (Duration::from_secs(7200), 5));

    queue.deploy_functions(&["fast", "callbacks"]).await;
    let gateway = Gateway::connect();
    // Not among its codes: an end like any other.
    let ended = gateway.submit(queue.name(), "fast?status=503").await;
    gateway.callback(queue.name(), &ended.call_id).await;
    let failed = gateway.submit(queue.name(), "fast?status=418").await;
    let heard = gateway.callback(queue.name(), &failed.call_id).await.to_string();
    assert!(heard.contains("418"), "{heard}");
    queue.is("one dead letter", |queue| queue["status"]["deadLetters"].as_u64() == Some(1)).await;
    let log = kubectl(&["logs", "-n", queue.name(), &queue.worker()]);
    assert!(log.contains("attempt 3 of 3"), "{log}");
}

#[tokio::test]
async fn exhausted_call_without_dead_letters_calls_back_and_is_gone() {
    let queue =
        Queue::ready("no-dead", "{retry: {maxAttempts: 1}, deadLetter: {enabled: false}}").await;
    queue.deploy_functions(&["fast", "callbacks"]).await;
    let gateway = Gateway::connect();
    let failed = gateway.submit(queue.name(), "fast?status=500").await;
    gateway.callback(queue.name(), &failed.call_id).await;
    queue.is("empty", |queue| queue["status"]["pending"].as_u64() == Some(0)).await;
    let log = kubectl(&["logs", "-n", queue.name(), &queue.worker()]);
    let line =
        log.lines().find(|line| line.contains("dropped: dead letters are disabled")).unwrap();
    assert!(line.contains(&failed.call_id), "{line}");
}
