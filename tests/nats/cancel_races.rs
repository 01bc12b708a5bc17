//! Cancellations against workers that stand still, and against the end of their calls.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use asyncqueue::{EndState, call::CallRef, stored_result};
use futures::{StreamExt, stream};
use test_support::{
    http::{HttpServer, Received, respond_after},
    program::Program,
    wait::until,
};
use tokio::time::sleep;

use crate::{
    gateway::Gateway,
    support::{Queue, callback_at},
};

/// Calls that are cancelled while workers stand still again and again.
const CALLS: usize = 300;

/// Clients that cancel at once.
const CLIENTS: usize = 32;

/// A function and a client learn what happens at one time one after the other: both are of this
/// process.
const SLACK: Duration = Duration::from_millis(500);

/// How a cancellation ended, and when the client knew.
struct Cancelled {
    id: String,
    status: u16,
    at: Instant,
}

/// Stops and continues programs at random, for 0.1 to 3 s each time, until `is_over`.
async fn stall(worker: &Program, is_over: &AtomicBool) {
    while !is_over.load(Ordering::SeqCst) {
        sleep(Duration::from_millis(rand::random_range(20..400))).await;
        worker.signal("STOP");
        sleep(Duration::from_millis(rand::random_range(100..3_000))).await;
        worker.signal("CONT");
    }
}

/// Submits a call and cancels it a moment later, again and again until that is certain.
async fn submit_and_cancel(gateway: &Gateway, callback: Option<&str>) -> Cancelled {
    let headers: Vec<_> = callback.map(|url| ("x-callback-url", url)).into_iter().collect();
    let id = gateway.submit(&headers, "hi").await;
    sleep(Duration::from_millis(rand::random_range(0..40))).await;
    loop {
        let answer = gateway.call("DELETE", &format!("/async-function/{id}"), &[], "").await;
        let at = Instant::now();
        match answer.status {
            503 => assert!(!answer.header("retry-after").is_empty(), "{}", answer.text()),
            status @ (202 | 404 | 409) => return Cancelled { id, status, at },
            other => panic!("{other}: {}", answer.text()),
        }
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_starts_after_its_cancellation_was_confirmed() {
    let queue = Queue::start().await;
    let function =
        HttpServer::answering(|_| respond_after(Duration::from_millis(20), 200, "ok")).await;
    let receiver = HttpServer::start().await;
    let callback = callback_at(&receiver).as_url().to_string();
    let gateway = Gateway::before(&queue, &[("RUST_LOG", "warn")]).await;
    let settings = [("max_inflight", "4"), ("RUST_LOG", "warn")];
    let workers = [queue.worker(&function, &settings), queue.worker(&function, &settings)];
    let is_over = Arc::new(AtomicBool::new(false));
    let cancelling = async {
        let cancels = (0..CALLS).map(|number| {
            submit_and_cancel(&gateway, Some(&*callback).filter(|_| number % 2 == 0))
        });
        let cancelled: Vec<_> = stream::iter(cancels).buffer_unordered(CLIENTS).collect().await;
        is_over.store(true, Ordering::SeqCst);
        cancelled
    };
    let (cancelled, (), ()) =
        tokio::join!(cancelling, stall(&workers[0], &is_over), stall(&workers[1], &is_over));
    queue.empties().await;
    queue.holds("jobs-callbacks", 0).await;
    // What a worker had when it was stopped comes within a lease.
    sleep(Duration::from_secs(1)).await;
    let mut starts: BTreeMap<String, Vec<Instant>> = BTreeMap::new();
    for call in function.received() {
        starts.entry(call.header("x-call-id").to_owned()).or_default().push(call.at);
    }
    let results = results(&receiver.received());
    let mut counts: BTreeMap<u16, usize> = BTreeMap::new();
    for Cancelled { id, status, at } in cancelled {
        *counts.entry(status).or_default() += 1;
        let starts = starts.remove(&id).unwrap_or_default();
        if status == 202 {
            let late: Vec<_> =
                starts.iter().filter(|start| **start > at + SLACK).map(|s| *s - at).collect();
            assert!(late.is_empty(), "{id} started {late:?} after the 202");
        } else {
            assert!(!starts.is_empty(), "{id} was answered {status} and never ran");
        }
        // A client that has several results has one of them several times.
        let of_client = results.get(&id).map(Vec::as_slice).unwrap_or_default();
        let is_correct = of_client.iter().all(|result| (result == "499") == (status == 202));
        assert!(is_correct, "{id} was answered {status}, its client {of_client:?}");
    }
    println!("answers: {counts:?}");
    assert!(counts.get(&202).is_some_and(|count| *count > CALLS / 10), "{counts:?}");
}

/// The statuses of results that each call's client was sent.
fn results(received: &[Received]) -> BTreeMap<String, Vec<String>> {
    let mut results: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for result in received {
        let status = result.header("x-function-status").to_owned();
        results.entry(result.header("x-call-id").to_owned()).or_default().push(status);
    }
    results
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancellation_at_the_end_of_a_call_agrees_with_its_result() {
    const TRIES: u32 = 260;
    const RUN_TIME: Duration = Duration::from_millis(20);
    let queue = Queue::start().await;
    let (function, receiver) = (
        HttpServer::answering(|_| respond_after(RUN_TIME, 200, "ok")).await,
        HttpServer::start().await,
    );
    let gateway = Gateway::before(&queue, &[("RUST_LOG", "warn")]).await;
    let _worker = queue.worker(&function, &[("max_inflight", "8"), ("RUST_LOG", "warn")]);
    let callback = callback_at(&receiver).as_url().to_string();
    let cancel_at_the_end = async |number: u32| {
        let id = gateway.submit(&[("x-callback-url", &callback)], "hi").await;
        // From before the end to after it.
        sleep(RUN_TIME / 2 + RUN_TIME * number / TRIES).await;
        let path = format!("/async-function/{id}");
        let status = gateway.call("DELETE", &path, &[], "").await.status;
        let shown = gateway.call("GET", &path, &[], "").await;
        let state =
            (shown.status == 200).then(|| shown.json()["state"].as_str().unwrap().to_owned());
        (id, status, state)
    };
    let cancels = (0..TRIES).map(cancel_at_the_end);
    let tried: Vec<_> = stream::iter(cancels).buffer_unordered(4).collect().await;
    queue.empties().await;
    queue.holds("jobs-callbacks", 0).await;
    until("each client has a result", async || {
        (receiver.received().len() >= TRIES as usize).then_some(())
    })
    .await;
    let results = results(&receiver.received());
    let mut counts: BTreeMap<(u16, String), usize> = BTreeMap::new();
    for (id, status, state) in tried {
        let statuses = &results[&id];
        assert_eq!(statuses.len(), 1, "{id}: {statuses:?}");
        let is_cancelled = statuses[0] == "499";
        assert_eq!(status == 202, is_cancelled, "{id}: DELETE {status}, callback {}", statuses[0]);
        assert!([202, 404, 409].contains(&status), "{id}: DELETE {status}");
        match state.as_deref() {
            Some("cancelled") => {
                assert!(is_cancelled, "{id}: GET says cancelled, callback {}", statuses[0]);
            }
            Some("done" | "running" | "delivered") | None => {
                assert!(!is_cancelled, "{id}: GET says {state:?}, callback 499");
            }
            other => panic!("{id}: GET says {other:?}"),
        }
        *counts.entry((status, statuses[0].clone())).or_default() += 1;
    }
    println!("DELETE and callback: {counts:?}");
    assert!(counts.len() > 1, "all were before the end, or all after it: {counts:?}");
}

#[tokio::test]
async fn a_result_of_a_cancellation_is_known_after_it_was_delivered() {
    let queue = Queue::start().await;
    let (function, receiver) = (HttpServer::start().await, HttpServer::start().await);
    let gateway = Gateway::before(&queue, &[]).await;
    let callback = callback_at(&receiver).as_url().to_string();
    let id = gateway.submit(&[("x-callback-url", &callback)], "hi").await;
    let call =
        CallRef { id: id.parse().unwrap(), sequence: queue.info("jobs").await.state.last_sequence };
    let path = format!("/async-function/{id}");
    assert_eq!(gateway.call("DELETE", &path, &[], "").await.status, 202);
    let result = queue.info("jobs-callbacks").await.state.last_sequence;
    let known = async || {
        stored_result::end_at(&queue.js, &"jobs".parse().unwrap(), &call, result).await.unwrap()
    };
    assert_eq!(known().await, Some(EndState::Cancelled));

    let _worker = queue.worker(&function, &[]);
    receiver.receives(1).await;
    queue.holds("jobs-callbacks", 0).await;
    // So that no result of a run that ended after it is taken for the first.
    assert_eq!(known().await, Some(EndState::Cancelled));
    assert_eq!(gateway.call("DELETE", &path, &[], "").await.status, 202);
    assert_eq!(function.received().len(), 0);
}
