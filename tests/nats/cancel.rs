//! What the library does when calls are cancelled, below what clients of the gateway see.

use std::time::Duration;

use asyncqueue::{
    CallId, EndState,
    call::{CallQuery, CallRef, CandidateQueues, QueueLocation},
    cancel::{CancelCounts, cancel_pending, is_cancelled},
    directory::QueueEntry,
    tombstone::{self, Mark},
};
use test_support::{
    http::{HttpServer, respond, respond_after},
    wait::until,
};

use crate::support::{Queue, callback_at};

/// How long a cancellation waits to be certain.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(2);

/// Cancels the calls with an id, as the gateway does.
pub(crate) async fn cancel_call(queue: &Queue, call: &CallId) -> CancelCounts {
    let entry = QueueEntry::new(&*queue.spec.stream, &*queue.spec.subject);
    let place = QueueLocation { queue: queue.spec.queue.clone(), entry };
    let places = CandidateQueues { named: vec![place], rest: Vec::new() };
    let wanted = CallQuery { id: call.clone(), function: None };
    cancel_pending(&queue.js, &places, &wanted, CONFIRM_TIMEOUT).await.unwrap()
}

const WAITING: CancelCounts =
    CancelCounts { cancelled: 1, running: 0, before: 0, ended: 0, end: None, unconfirmed: 0 };
const RUNNING: CancelCounts = CancelCounts { running: 1, ..WAITING };

fn ended(end: EndState) -> CancelCounts {
    CancelCounts { cancelled: 0, ended: 1, end: Some(end), ..WAITING }
}

/// Marks a call as dead, as its worker does before it makes a dead letter of it; returns the mark
/// that it has then.
async fn mark_dead(queue: &Queue, call: &CallRef) -> Mark {
    let written =
        tombstone::write_once(&queue.js, &queue.spec.queue, call, Mark::Ended(EndState::Dead))
            .await
            .unwrap();
    written.unwrap().mark
}

#[tokio::test]
async fn first_of_cancellation_and_last_attempt_counts() {
    let queue = Queue::start().await;
    let ids = [queue.submit(|_| {}).await, queue.submit(|call| call.body = "2".into()).await];
    let sequence = queue.sequence("jobs", 1).await;
    let [first, second] = [(0, &ids[0]), (1, &ids[1])]
        .map(|(offset, id)| CallRef { id: id.clone(), sequence: sequence + offset });
    // A worker whose confirmation was lost writes it once more.
    assert_eq!(
        [mark_dead(&queue, &first).await, mark_dead(&queue, &first).await],
        [Mark::Ended(EndState::Dead); 2]
    );
    assert_eq!(cancel_call(&queue, &first.id).await, ended(EndState::Dead));
    queue.holds("jobs", 2).await;
    assert!(!is_cancelled(&queue.js, &queue.spec.queue, &first).await.unwrap());

    assert_eq!(cancel_call(&queue, &second.id).await, WAITING);
    assert_eq!(mark_dead(&queue, &second).await, Mark::Ended(EndState::Cancelled));
    // Another call with that id is another one.
    let again = CallRef { id: second.id.clone(), sequence: second.sequence + 1 };
    assert_eq!(
        [mark_dead(&queue, &again).await, mark_dead(&queue, &again).await],
        [Mark::Ended(EndState::Dead); 2]
    );
}

#[tokio::test]
async fn call_marked_dead_by_its_worker_cannot_be_cancelled() {
    let queue = Queue::start().await;
    let function = HttpServer::answering(|_| respond(500, "no")).await;
    let worker = queue.worker(&function, &[("max_retry_attempts", "1")]);
    let call = queue.submit(|_| {}).await;
    worker.logged("moving the call to the dead-letter stream").await;
    queue.holds("jobs-dead", 1).await;
    let stored = CallRef { id: call, sequence: queue.sequence("jobs", 1).await };
    assert_eq!(mark_dead(&queue, &stored).await, Mark::Ended(EndState::Dead));
    assert!(!is_cancelled(&queue.js, &queue.spec.queue, &stored).await.unwrap());
}

/// nats-server, asked to purge a message that a consumer has delivered, takes all deliveries before
/// it for acknowledged as soon as the next one is (nats-server#5727).
#[tokio::test]
async fn a_cancellation_loses_no_call_that_was_delivered_before_it() {
    let queue = Queue::start().await;
    let function =
        HttpServer::answering(|request| match (&request.body[..], request.header("x-retry")) {
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
    assert_eq!(cancel_call(&queue, &slow).await, RUNNING);
    queue.submit(|_| {}).await;
    // The first is tried again.
    let last = function.receives(4).await.remove(3);
    assert_eq!(&last.body[..], b"fails late");
    queue.empties().await;
}

/// A client that asks to cancel a call as it ends may be gone before it hears that it came too
/// late.
#[tokio::test]
async fn a_tombstone_that_comes_after_the_end_says_so() {
    let (queue, caller) = (Queue::start().await, HttpServer::start().await);
    let function = HttpServer::answering(|_| respond(200, "ok")).await;
    let _worker = queue.worker(&function, &[]);
    let id = queue.submit(|call| call.callback_url = Some(callback_at(&caller))).await;
    let sequence = queue.sequence("jobs", 1).await;
    caller.receives(1).await;
    queue.empties().await;
    queue.holds("jobs-callbacks", 0).await;
    let call = CallRef { id: id.clone(), sequence };
    let mark = Mark::Cancelling;
    tombstone::write_once(&queue.js, &queue.spec.queue, &call, mark).await.unwrap().unwrap();
    until("the tombstone says that the call has ended", async || {
        let tombstone = tombstone::read(&queue.js, &queue.spec.queue, &call).await.ok()??;
        (tombstone.mark == Mark::Ended(EndState::Done)).then_some(())
    })
    .await;
    assert!(cancel_call(&queue, &id).await.is_empty());
}
