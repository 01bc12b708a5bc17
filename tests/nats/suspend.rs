//! A queue that is suspended: nothing is delivered, everything is accepted.

use std::time::Duration;

use asyncqueue::stream::{QueueSpec, ensure_queue};
use test_support::{
    http::{HttpServer, respond_after},
    wait::until,
};

use crate::support::{LEASE, Queue, callback_at};

async fn suspend(queue: &Queue, suspended: bool) {
    let ensured = ensure_queue(&queue.js, &QueueSpec { suspended, ..queue.spec.clone() }, false)
        .await
        .unwrap();
    assert_eq!(ensured.consumer.paused, suspended);
}

#[tokio::test]
async fn a_suspended_queue_delivers_nothing_and_goes_on_when_it_is_resumed() {
    let (queue, function) = (Queue::start().await, HttpServer::start().await);
    let worker = queue.worker(&function, &[]);
    queue.submit(|_| {}).await;
    function.receives(1).await;
    queue.empties().await;

    // The worker's requests for calls are open.
    suspend(&queue, true).await;
    queue.submit(|_| {}).await;
    queue.submit(|_| {}).await;
    // Longer than it takes a worker to miss the server, were that silent.
    tokio::time::sleep(LEASE * 2).await;
    assert_eq!(function.received().len(), 1);
    assert_eq!(queue.info(&queue.spec.stream).await.state.messages, 2);
    let log = worker.log().join("\n");
    assert!(!log.contains("resubscribing to the consumer"), "{log}");

    suspend(&queue, false).await;
    function.receives(3).await;
    queue.empties().await;
}

#[tokio::test]
async fn running_call_of_a_suspended_queue_ends_and_calls_back() {
    let (queue, caller) = (Queue::start().await, HttpServer::start().await);
    // Longer than the lease, which is still renewed.
    let slow = |_| respond_after(LEASE + Duration::from_secs(1), 200, "");
    let function = HttpServer::answering(slow).await;
    let _worker = queue.worker(&function, &[]);
    queue.submit(|call| call.callback_url = Some(callback_at(&caller))).await;
    function.receives(1).await;
    suspend(&queue, true).await;
    caller.receives(1).await;
    queue.empties().await;
    assert_eq!(function.received().len(), 1);
}

#[tokio::test]
async fn failed_call_of_a_suspended_queue_waits_until_resumed() {
    let queue = Queue::start().await;
    let failing = |_| respond_after(Duration::from_secs(1), 503, "");
    let function = HttpServer::answering(failing).await;
    let _worker = queue.worker(&function, &[]);
    queue.submit(|_| {}).await;
    function.receives(1).await;
    suspend(&queue, true).await;
    tokio::time::sleep(LEASE * 2).await;
    assert_eq!(function.received().len(), 1);
    suspend(&queue, false).await;
    function.receives(2).await;
}

#[tokio::test]
async fn a_pause_that_somebody_else_made_or_ended_is_undone() {
    let queue = Queue::start().await;
    let stream = queue.js.get_stream(&queue.spec.stream).await.unwrap();
    let durable = &queue.spec.durable;
    let in_an_hour = std::time::SystemTime::now() + Duration::from_secs(3600);
    stream.pause_consumer(durable, in_an_hour.into()).await.unwrap();
    suspend(&queue, false).await;
    suspend(&queue, true).await;
    stream.resume_consumer(durable).await.unwrap();
    suspend(&queue, true).await;
    until("it is paused", async || {
        stream.consumer_info(durable).await.is_ok_and(|info| info.paused).then_some(())
    })
    .await;
}
