//! What counts as an attempt, and the one dead letter of a call whose attempts are exhausted.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use asyncqueue::{
    EndState,
    call::CallRef,
    dead_letters::{DeathInfo, store_once},
    message::dead_letter,
    stream::ensure_queue,
    subject::call_subject,
    tombstone::{self, Mark},
};
use futures::StreamExt;
use jiff::Timestamp;
use test_support::{
    http::{HttpServer, respond, respond_after},
    proxy::Proxy,
    wait::until,
};
use tokio::time::sleep;

use crate::{
    gateway::messages,
    support::{LEASE, Queue},
};

#[tokio::test]
async fn a_delivery_of_a_call_in_flight_is_no_attempt() {
    const OUTAGES: u32 = 2;
    let queue = Queue::start().await;
    let runs = Arc::new(AtomicUsize::new(0));
    let function = HttpServer::answering(move |_| match runs.fetch_add(1, Ordering::SeqCst) {
        // Longer than all outages together.
        0 => respond_after((LEASE + LEASE) * OUTAGES, 500, "no"),
        _ => respond(500, "no"),
    })
    .await;
    let port = queue.nats.url().rsplit(':').next().unwrap().parse().unwrap();
    let network = Proxy::before(port).await;
    let url = format!("nats://127.0.0.1:{}", network.port());
    // With a slot to spare, so that it asks for more.
    let settings = [("nats_url", url.as_str()), ("max_retry_attempts", "3"), ("max_inflight", "2")];
    let worker = queue.worker(&function, &settings);
    queue.submit(|_| {}).await;
    function.receives(1).await;
    for outage in 1..=OUTAGES {
        network.set_passing(false);
        sleep(LEASE + Duration::from_secs(1)).await;
        network.set_passing(true);
        until("it is delivered again", async || {
            let log = worker.log();
            let again = log
                .iter()
                .filter(|line| line.contains("message redelivered while it is in flight here"));
            (again.count() >= outage as usize).then_some(())
        })
        .await;
    }
    queue.holds("jobs-dead", 1).await;
    queue.empties().await;
    let attempts: Vec<_> =
        function.received().iter().map(|request| request.header("x-retry").to_owned()).collect();
    assert_eq!(attempts, ["1", "2", "3"]);
    let letter = messages(&queue, "jobs-dead").await.remove(0);
    assert_eq!(letter.headers.get("Async-Dead-Attempts").unwrap().as_str(), "3");
}

#[tokio::test]
async fn a_delivery_that_comes_too_late_is_no_attempt() {
    // Longer than two leases, and shorter than three, so that what is late is counted before the
    // next delivery.
    let stop = LEASE * 2 + LEASE / 3;
    let queue = Queue::start().await;
    let function = HttpServer::answering(|_| respond(500, "no")).await;
    let worker = queue.worker(&function, &[("max_retry_attempts", "2"), ("max_inflight", "4")]);
    // It has asked for more when it is stopped.
    queue.submit(|_| {}).await;
    function.receives(2).await;
    queue.empties().await;
    worker.signal("STOP");
    queue.submit(|_| {}).await;
    sleep(stop).await;
    worker.signal("CONT");
    queue.holds("jobs-dead", 2).await;
    queue.empties().await;
    let attempts: Vec<_> =
        function.received().iter().map(|request| request.header("x-retry").to_owned()).collect();
    assert_eq!(attempts, ["1", "2", "1", "2"]);
}

/// A worker that was killed after it had stored the dead letter, before it acknowledged the call:
/// what it left.
async fn left_by_a_worker(queue: &Queue, is_letter_stored: bool) -> CallRef {
    let id = queue.submit(|_| {}).await;
    let call = CallRef { id, sequence: queue.sequence("jobs", 1).await };
    let consumer = queue.consumer().await;
    let message =
        consumer.fetch().max_messages(1).messages().await.unwrap().next().await.unwrap().unwrap();
    let marked =
        tombstone::write_once(&queue.js, &queue.spec.queue, &call, Mark::Ended(EndState::Dead))
            .await
            .unwrap();
    assert_eq!(marked.unwrap().mark, Mark::Ended(EndState::Dead));
    if is_letter_stored {
        let death = DeathInfo {
            reason: "the function answered 500".to_owned(),
            attempts: 1,
            status: Some(500),
        };
        let headers = dead_letter::headers(
            message.headers.as_ref(),
            &message.subject,
            &death,
            "w-1",
            Timestamp::now(),
        );
        let function = asyncqueue::FunctionName::new("figlet", "openfaas-fn").unwrap();
        let subject = call_subject("jobs-dead", &function, &call.id);
        let message_id = dead_letter::message_id(&message.subject, call.sequence);
        let payload = message.payload.clone();
        store_once(&queue.js, "jobs-dead", &subject, &message_id, headers, payload).await.unwrap();
    }
    call
}

#[tokio::test]
async fn a_call_stored_as_a_dead_letter_before_becomes_no_second_one() {
    let mut queue = Queue::start().await;
    // Shorter than the time until the next worker comes to the call.
    queue.spec.duplicate_window = Duration::from_millis(500);
    ensure_queue(&queue.js, &queue.spec, false).await.unwrap();
    assert_eq!(queue.info("jobs-dead").await.config.duplicate_window, Duration::from_millis(500));
    let function = HttpServer::start().await;
    left_by_a_worker(&queue, true).await;
    sleep(Duration::from_secs(1)).await;
    let _next = queue.worker(&function, &[]);
    queue.empties().await;
    let letters = messages(&queue, "jobs-dead").await;
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].headers.get("Async-Dead-Worker").unwrap().as_str(), "w-1");
    assert!(function.received().is_empty());
}

#[tokio::test]
async fn a_call_marked_as_dead_becomes_a_dead_letter_and_never_runs() {
    let (queue, function) = (Queue::start().await, HttpServer::start().await);
    left_by_a_worker(&queue, false).await;
    let _next = queue.worker(&function, &[]);
    queue.empties().await;
    assert_eq!(messages(&queue, "jobs-dead").await.len(), 1);
    assert!(function.received().is_empty());
}
