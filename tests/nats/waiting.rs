//! More workers than a consumer keeps requests of.

use std::time::Duration;

use async_nats::{
    Subscriber,
    jetstream::consumer::{PullConsumer, pull},
};
use asyncqueue::stream::{MAX_WAITING, ensure_queue};
use futures::StreamExt;
use test_support::{http::HttpServer, wait::until};

use crate::support::Queue;

/// As many requests for calls as so many idle workers have, open until the subscription is dropped.
async fn idle_workers(queue: &Queue, consumer: &PullConsumer, workers: usize) -> Subscriber {
    let client = queue.js.client();
    let inbox = client.new_inbox();
    let subscriber = client.subscribe(format!("{inbox}.*")).await.unwrap();
    for worker in 0..workers {
        let expires = Some(Duration::from_secs(100));
        let config = pull::BatchConfig { batch: 1, expires, ..pull::BatchConfig::default() };
        consumer.request_batch(config, format!("{inbox}.{worker}").into()).await.unwrap();
    }
    let mut consumer = consumer.clone();
    until("the requests wait", async || {
        (consumer.info().await.unwrap().num_waiting >= workers).then_some(())
    })
    .await;
    subscriber
}

#[tokio::test]
async fn a_consumer_keeps_the_requests_of_more_than_512_workers() {
    const WORKERS: usize = 600;
    let (queue, function) = (Queue::start().await, HttpServer::start().await);
    let mut consumer = queue.consumer().await;
    assert_eq!(consumer.cached_info().config.max_waiting, MAX_WAITING);
    let idle = idle_workers(&queue, &consumer, WORKERS).await;
    let worker = queue.worker(&function, &[]);
    until("one more request waits", async || {
        (consumer.info().await.unwrap().num_waiting > WORKERS).then_some(())
    })
    .await;
    drop(idle);
    queue.submit(|_| {}).await;
    function.receives(1).await;
    let log = worker.log().join("\n");
    assert!(!log.contains("resubscribing") && !log.contains("no more pull requests"), "{log}");
}

#[tokio::test]
async fn a_worker_that_a_consumer_has_no_room_for_waits_quietly() {
    const MAX: u8 = 2;
    let (queue, function) = (Queue::start().await, HttpServer::start().await);
    // What an earlier version created, which JetStream does not change.
    let stream = queue.js.get_stream(&queue.spec.stream).await.unwrap();
    stream.delete_consumer(&queue.spec.durable).await.unwrap();
    let config = pull::Config { max_waiting: MAX.into(), ..queue.spec.consumer_config() };
    let consumer = stream.create_consumer(config).await.unwrap();
    assert_eq!(ensure_queue(&queue.js, &queue.spec, false).await.unwrap().changes, [""; 0]);

    let idle = idle_workers(&queue, &consumer, MAX.into()).await;
    let worker = queue.worker(&function, &[]);
    worker.logged("the consumer accepts no more pull requests").await;
    let lookups = format!("$JS.API.CONSUMER.INFO.{}.{}", queue.spec.stream, queue.spec.durable);
    let mut lookups = queue.js.client().subscribe(lookups).await.unwrap();
    tokio::time::sleep(Duration::from_secs(9)).await;
    let mut seen = 0;
    while let Ok(Some(_)) = tokio::time::timeout(Duration::from_millis(10), lookups.next()).await {
        seen += 1;
    }
    // One for the number of calls that wait, for the metrics, and one whether there is room.
    assert!(seen <= 2, "{seen} look-ups in nine seconds");

    drop(idle);
    queue.submit(|_| {}).await;
    function.receives(1).await;
    let log = worker.log().join("\n");
    assert_eq!(log.matches("the consumer accepts no more pull requests").count(), 1, "{log}");
    assert!(!log.contains("resubscribing"), "{log}");
}
