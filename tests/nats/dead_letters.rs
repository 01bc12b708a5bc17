//! What happens to calls that are given up, and how many of them are kept.

use std::time::Duration;

use asyncqueue::{
    buckets,
    dead_letters::DeadLetters,
    stream::{DeadLetterSettings, QueueSpec, ensure_queue},
};
use futures::StreamExt;
use test_support::http::{HttpServer, respond};

use crate::support::{Queue, callback_at};

fn with(queue: &Queue, change: impl FnOnce(&mut DeadLetterSettings)) -> QueueSpec {
    let mut spec = queue.spec.clone();
    change(&mut spec.dead_letters);
    spec
}

#[tokio::test]
async fn exhausted_call_without_dead_letters_is_counted_and_dropped() {
    let (queue, caller) = (Queue::start().await, HttpServer::start().await);
    let function = HttpServer::answering(|_| respond(500, "")).await;
    let settings = [("max_retry_attempts", "2"), ("dead_letters", "false")];
    let worker = queue.worker(&function, &settings);
    let id = queue.submit(|call| call.callback_url = Some(callback_at(&caller))).await;
    let heard = caller.receives(1).await;
    assert_eq!(heard[0].header("x-function-status"), "500");
    queue.empties().await;
    let line = worker.logged("dropped: dead letters are disabled").await;
    assert!(line.contains(id.as_str()) && line.contains("attempt 2 of 2"), "{line}");
    assert_eq!(queue.info("jobs-dead").await.state.messages, 0);
}

#[tokio::test]
async fn dead_letter_stream_is_created_if_enabled_and_then_kept() {
    let queue = Queue::start().await;
    let off = with(&queue, |dead| dead.enabled = false);
    // It was created while dead letters were enabled, and disabling them does not remove it.
    assert!(ensure_queue(&queue.js, &off, false).await.unwrap().changes.is_empty());
    queue.info("jobs-dead").await;
    queue.js.delete_stream("jobs-dead").await.unwrap();
    assert!(ensure_queue(&queue.js, &off, false).await.unwrap().changes.is_empty());
    assert!(queue.js.get_stream("jobs-dead").await.is_err());
    ensure_queue(&queue.js, &queue.spec, false).await.unwrap();
    queue.info("jobs-dead").await;
}

#[tokio::test]
async fn letters_that_come_after_the_count_are_not_deleted() {
    let queue = Queue::start().await;
    let open =
        async || DeadLetters::open(&queue.js, &queue.spec.queue, "openfaas-fn").await.unwrap();
    let store = async |id: &str| {
        let subject = format!("jobs-dead.openfaas-fn.figlet.{id}");
        queue.js.publish(subject, "".into()).await.unwrap().await.unwrap();
    };
    let empty = open().await;
    assert_eq!(empty.count(), 0);
    store("a").await;
    store("b").await;
    assert_eq!(empty.delete_up_to(empty.last_sequence()).await.unwrap(), 0);
    let counted = open().await;
    store("late").await;
    assert_eq!(counted.count(), 2);
    for deleted in [2, 0] {
        assert_eq!(counted.delete_up_to(counted.last_sequence()).await.unwrap(), deleted);
    }
    let left = open().await;
    assert_eq!(left.count(), 1);
    assert_eq!(left.delete_up_to(left.last_sequence()).await.unwrap(), 1);
    // The stream is empty, and still counts on.
    assert_eq!(left.delete_up_to(left.last_sequence()).await.unwrap(), 0);
    store("next").await;
    let next = open().await;
    assert_eq!((next.count(), next.last_sequence()), (1, left.last_sequence() + 1));
}

#[tokio::test]
async fn limits_of_dead_letters_reach_the_stream_that_is_there() {
    let queue = Queue::start().await;
    // Less than the time for which ids of calls are remembered.
    let (max_age, max_messages) = (Duration::from_secs(60), 7);
    let spec = with(&queue, |dead| (dead.max_age, dead.max_messages) = (max_age, max_messages));
    ensure_queue(&queue.js, &spec, false).await.unwrap();
    let config = queue.info("jobs-dead").await.config;
    assert_eq!((config.max_age, config.max_messages), (max_age, max_messages));
    assert!(ensure_queue(&queue.js, &spec, false).await.unwrap().changes.is_empty());
}

/// A worker that is not answered in time stores a result once more, and hears that it is there: by
/// its own first try.
#[tokio::test]
async fn a_result_that_is_sent_twice_costs_no_dead_letter() {
    const CALLS: usize = 40;
    // Longer than the worker waits for the server's word.
    const PAUSE: Duration = Duration::from_secs(7);
    let (queue, caller) = (Queue::start().await, HttpServer::start().await);
    let function = HttpServer::answering(|_| respond(500, "")).await;
    let client = queue.nats.client().await;
    let mut marks = client.subscribe(buckets::TOMBSTONES.subject(">")).await.unwrap();
    client.flush().await.unwrap();
    for _ in 0..CALLS {
        queue.submit(|call| call.callback_url = Some(callback_at(&caller))).await;
    }
    let _worker = queue.worker(&function, &[("max_retry_attempts", "1"), ("max_inflight", "40")]);
    // Some calls are marked as dead and no more when the server stops.
    marks.next().await.unwrap();
    queue.nats.pause().await;
    tokio::time::sleep(PAUSE).await;
    queue.nats.resume();
    caller.receives(CALLS).await;
    queue.empties().await;
    queue.holds("jobs-dead", CALLS as u64).await;
    assert_eq!(caller.received().len(), CALLS);
}
