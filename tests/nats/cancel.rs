//! Cancelling calls, wherever they are.

use std::time::Duration;

use asyncqueue::{
    CallId,
    cancel::{Cancelled, StoredCall, cancel, give_up, is_cancelled},
    directory::QueueEntry,
};
use asyncqueue_tests::{
    http::{HttpServer, respond, respond_after},
    wait::until,
};

use crate::support::{Queue, callback_at};

async fn cancel_call(queue: &Queue, call: &CallId) -> Cancelled {
    let entry = QueueEntry::new(&*queue.spec.stream, &*queue.spec.subject);
    cancel(&queue.js, &queue.spec.queue, &entry, call).await.unwrap()
}

/// The caller hears of it once, and the queue is empty.
async fn heard_once(queue: &Queue, caller: &HttpServer, call: &CallId) {
    let result = caller.receives(1).await.remove(0);
    assert_eq!(result.header("x-call-id"), call.as_str());
    assert_eq!(result.header("x-function-status"), "499");
    queue.empties().await;
    queue.holds("jobs-callbacks", 0).await;
    assert_eq!(caller.received().len(), 1);
}

#[tokio::test]
async fn a_queued_call_is_removed_and_never_starts() {
    let (queue, caller, function) =
        (Queue::start().await, HttpServer::start().await, HttpServer::start().await);
    let call = queue.submit(|call| call.callback_url = Some(callback_at(&caller))).await;
    assert_eq!(cancel_call(&queue, &call).await, Cancelled::Waiting);
    assert_eq!(cancel_call(&queue, &call).await, Cancelled::Before);
    let _worker = queue.worker(&function, &[]);
    heard_once(&queue, &caller, &call).await;
    assert!(function.received().is_empty());
}

#[tokio::test]
async fn a_running_calls_connection_is_closed() {
    let (queue, caller) = (Queue::start().await, HttpServer::start().await);
    let function = HttpServer::answering(|_| respond_after(Duration::from_secs(60), 200, "late")).await;
    let worker = queue.worker(&function, &[]);
    let call = queue.submit(|call| call.callback_url = Some(callback_at(&caller))).await;
    function.receives(1).await;
    assert_eq!(cancel_call(&queue, &call).await, Cancelled::Running);
    until("the connection is closed", async || (function.running() == 0).then_some(())).await;
    worker.logged("Cancelled figlet").await;
    heard_once(&queue, &caller, &call).await;
    // Its slot is free again.
    queue.submit(|_| {}).await;
    function.receives(2).await;
}

#[tokio::test]
async fn a_call_that_waits_for_its_next_attempt_has_none() {
    let (queue, caller) = (Queue::start().await, HttpServer::start().await);
    let function = HttpServer::answering(|_| respond(503, "no")).await;
    let worker = queue.worker(&function, &[("initial_retry_wait", "1s")]);
    let call = queue.submit(|call| call.callback_url = Some(callback_at(&caller))).await;
    worker.logged("trying again in 1s").await;
    assert_eq!(cancel_call(&queue, &call).await, Cancelled::Waiting);
    heard_once(&queue, &caller, &call).await;
    // Another call that fails is tried again after the time at which the first would have been.
    queue.submit(|call| call.body = "other".into()).await;
    let received = function.receives(3).await;
    assert_eq!(received.iter().filter(|request| request.body == "hi").count(), 1);
}

#[tokio::test]
async fn a_call_that_has_ended_or_never_was_is_not_found() {
    let (queue, function) = (Queue::start().await, HttpServer::start().await);
    let _worker = queue.worker(&function, &[]);
    let call = queue.submit(|_| {}).await;
    queue.empties().await;
    assert_eq!(cancel_call(&queue, &call).await, Cancelled::NotFound);
    assert_eq!(cancel_call(&queue, &"unknown".parse().unwrap()).await, Cancelled::NotFound);
}

#[tokio::test]
async fn of_a_cancellation_and_the_end_of_the_last_attempt_the_first_counts() {
    let queue = Queue::start().await;
    let [first, second] = [queue.submit(|_| {}).await, queue.submit(|call| call.body = "2".into()).await];
    let sequence = queue.sequence("jobs", 1).await;
    let [first, second] =
        [(first, sequence), (second, sequence + 1)].map(|(id, sequence)| StoredCall { id, sequence });
    let give_up = async |call| give_up(&queue.js, &queue.spec.queue, call).await.unwrap();
    // A worker whose word was lost writes it once more.
    assert_eq!([give_up(&first).await, give_up(&first).await], [Some(true); 2]);
    assert_eq!(cancel_call(&queue, &first.id).await, Cancelled::Dead);
    queue.holds("jobs", 2).await;
    assert!(!is_cancelled(&queue.js, &queue.spec.queue, &first).await.unwrap());

    assert_eq!(cancel_call(&queue, &second.id).await, Cancelled::Waiting);
    assert_eq!(give_up(&second).await, Some(false));
    // Another call with that id is another one.
    let again = StoredCall { id: second.id.clone(), sequence: sequence + 2 };
    assert_eq!([give_up(&again).await, give_up(&again).await], [Some(true); 2]);
}

#[tokio::test]
async fn a_call_whose_worker_has_written_that_it_is_given_up_cannot_be_cancelled_any_more() {
    let queue = Queue::start().await;
    let function = HttpServer::answering(|_| respond(500, "no")).await;
    let worker = queue.worker(&function, &[("max_retry_attempts", "1")]);
    let call = queue.submit(|_| {}).await;
    worker.logged("becomes a dead letter").await;
    queue.holds("jobs-dead", 1).await;
    let stored = StoredCall { id: call, sequence: queue.sequence("jobs", 1).await };
    assert_eq!(give_up(&queue.js, &queue.spec.queue, &stored).await.unwrap(), Some(true));
    assert!(!is_cancelled(&queue.js, &queue.spec.queue, &stored).await.unwrap());
}

#[tokio::test]
async fn a_result_that_is_on_its_way_is_not_cancelled() {
    let (queue, function) = (Queue::start().await, HttpServer::start().await);
    let caller = HttpServer::answering(|_| respond_after(Duration::from_millis(300), 200, "ok")).await;
    let _worker = queue.worker(&function, &[]);
    let call = queue.submit(|call| call.callback_url = Some(callback_at(&caller))).await;
    queue.empties().await;
    assert_eq!(cancel_call(&queue, &call).await, Cancelled::NotFound);
    assert_eq!(caller.receives(1).await[0].header("x-function-status"), "200");
}

/// nats-server, told to purge a message that a consumer has delivered, takes all deliveries before it for acknowledged
/// as soon as the next one is (nats-server#5727).
#[tokio::test]
async fn a_cancellation_loses_no_call_that_was_delivered_before_it() {
    let queue = Queue::start().await;
    let function = HttpServer::answering(|request| match (&request.body[..], request.header("x-retry")) {
        (b"fails late", "1") => respond_after(Duration::from_secs(1), 503, "no"),
        (b"slow", _) => respond_after(Duration::from_secs(60), 200, "late"),
        _ => respond(200, "ok"),
    })
    .await;
    let _worker = queue.worker(&function, &[("max_inflight", "3")]);
    queue.submit(|call| call.body = "fails late".into()).await;
    function.receives(1).await;
    let slow = queue.submit(|call| call.body = "slow".into()).await;
    function.receives(2).await;
    assert_eq!(cancel_call(&queue, &slow).await, Cancelled::Running);
    queue.submit(|_| {}).await;
    // The first is tried again.
    let last = function.receives(4).await.remove(3);
    assert_eq!(&last.body[..], b"fails late");
    queue.empties().await;
}
