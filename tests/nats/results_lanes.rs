//! Results, waits, delays and batches of queues with lanes, with and without an operator.

use std::time::Duration;

use asyncqueue::lanes::Fairness;
use jiff::Timestamp;
use serde_json::{Value, json};
use test_support::{
    http::{HttpServer, Received, respond},
    loopback::{at, free_port},
    program::Program,
    raw::{self, RawResponse},
    wait::{until, until_in},
};
use tokio::time::sleep;

use crate::{
    gateway::Gateway,
    lanes::{called, laned, suspend, worker},
    support::Queue,
};

/// For what waits for a lane, or for a change of the fairness.
const LONG: Duration = Duration::from_secs(60);

const KEEP: (&str, &str) = ("x-keep-result", "1h");

const LANES: &str = "queues: {jobs: {fairness: Function}}";

/// A function that answers with what it gets.
async fn echo() -> HttpServer {
    HttpServer::answering(|request| respond(200, str::from_utf8(&request.body).unwrap_or_default()))
        .await
}

async fn submit(
    gateway: &Gateway,
    name: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> RawResponse {
    let answer = gateway.call("POST", &format!("/async-function/{name}"), headers, body).await;
    assert!([200, 202].contains(&answer.status), "{}", answer.text());
    answer
}

async fn has_result(gateway: &Gateway, id: &str, body: &str) {
    let target = format!("/async-function/{id}/result");
    let answer = until_in(LONG, "the result is there", async || {
        let answer = gateway.call("GET", &target, &[], "").await;
        (answer.status == 200).then_some(answer)
    })
    .await;
    assert_eq!((answer.text().as_str(), answer.header("x-call-state")), (body, "done"));
}

/// The time before which a call does not run, as its status says.
async fn not_before(gateway: &Gateway, id: &str) -> Timestamp {
    let answer = gateway.call("GET", &format!("/async-function/{id}"), &[], "").await.json();
    assert_eq!(answer["state"], "scheduled", "{answer}");
    answer["notBefore"].as_str().unwrap().parse().unwrap()
}

/// When the call with this body reached the server, if it did.
fn arrived_at(server: &HttpServer, body: &str) -> Option<Timestamp> {
    let call = server.received().into_iter().find(|call| call.body == body)?;
    Some(Timestamp::now() - call.at.elapsed())
}

/// Submits a batch, and returns its id.
async fn submit_batch(gateway: &Gateway, receiver: &HttpServer, lines: &[Value]) -> String {
    let url = format!("{}/done", receiver.url());
    let body = lines.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    let headers = [("x-callback-url", url.as_str())];
    let answer = gateway.call("POST", "/async-batch", &headers, body).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    answer.json()["batchId"].as_str().unwrap().to_owned()
}

/// Waits for the callback of a batch whose calls are all done.
async fn batch_is_done(receiver: &HttpServer, id: &str, calls: usize) {
    let callback = until_in(LONG, "the batch ends", async || {
        receiver.received().into_iter().find(|callback| callback.header("x-batch-id") == id)
    })
    .await;
    let report: Value = serde_json::from_slice(&callback.body).unwrap();
    assert_eq!(report["counts"]["done"], calls, "{report}");
}

/// Submits one call of each kind and checks how it ends.
async fn all_kinds_end(gateway: &Gateway, server: &HttpServer) {
    let receiver = HttpServer::start().await;
    let kept = submit(gateway, "f0", &[KEEP], "kept").await;
    has_result(gateway, kept.header("x-call-id"), "kept").await;
    let waited = submit(gateway, "f1", &[("prefer", "wait=30")], "waited").await;
    assert_eq!((waited.status, waited.text().as_str()), (200, "waited"));
    let delayed = submit(gateway, "f2", &[("x-delay", "4s"), KEEP], "delayed").await;
    let delayed = delayed.header("x-call-id");
    let due = not_before(gateway, delayed).await;
    let lines: Vec<_> = (0..6)
        .map(|number| (format!("f{}", number % 3), format!("line {number}")))
        .map(|(function, body)| json!({"function": function, "body": body}))
        .collect();
    let [all, one] = [&lines[..], &lines[..1]].map(|lines| submit_batch(gateway, &receiver, lines));
    batch_is_done(&receiver, &all.await, lines.len()).await;
    batch_is_done(&receiver, &one.await, 1).await;
    has_result(gateway, delayed, "delayed").await;
    assert!(arrived_at(server, "delayed").unwrap() >= due, "the delayed call is early");
}

#[tokio::test]
async fn calls_of_all_kinds_end_in_lanes_without_operator() {
    let (queue, server) = (Queue::standalone().await, echo().await);
    let gateway = Gateway::start(&queue.nats, LANES, &[("ensure_stream", "true")]).await;
    gateway.is_ready().await;
    let settings = [("ensure_stream", "true"), ("fairness", "function")];
    let _workers = [worker(&queue, &server, &settings), worker(&queue, &server, &settings)];
    all_kinds_end(&gateway, &server).await;
    queue.empties().await;
    assert!(queue.lane_names().await.len() >= 3);
}

#[tokio::test]
async fn calls_of_all_kinds_end_without_lanes_and_operator() {
    let (queue, server) = (Queue::standalone().await, echo().await);
    let settings = [("ensure_stream", "true")];
    let gateway = Gateway::start(&queue.nats, "queues: {jobs: }", &settings).await;
    gateway.is_ready().await;
    let _workers = [worker(&queue, &server, &settings), worker(&queue, &server, &settings)];
    all_kinds_end(&gateway, &server).await;
    queue.empties().await;
}

#[tokio::test]
async fn delayed_calls_do_not_hold_other_calls_of_their_lane() {
    let (queue, server) = (laned().await, echo().await);
    let gateway = Gateway::start(&queue.nats, LANES, &[]).await;
    gateway.is_ready().await;
    // More than one request for calls brings, and than a worker runs at once.
    for number in 0..300 {
        let body = format!("later {number}");
        submit(&gateway, "figlet", &[("x-delay", "1h")], &body).await;
    }
    let soon = submit(&gateway, "figlet", &[("x-delay", "8s")], "soon").await;
    let due = not_before(&gateway, soon.header("x-call-id")).await;
    let addr = at(free_port());
    let settings = [("max_inflight", "1"), ("http_addr", &*addr.to_string())];
    let _worker = worker(&queue, &server, &settings);
    for number in 0..100 {
        submit(&gateway, "figlet", &[], &format!("now {number}")).await;
        submit(&gateway, "other", &[], &format!("other {number}")).await;
    }
    until_in(LONG, "all calls that are due run", async || {
        (server.received().len() >= 201).then_some(())
    })
    .await;
    assert!(arrived_at(&server, "soon").unwrap() >= due);
    queue.holds("jobs", 300).await;
    assert_eq!(server.received().len(), 201, "a call ran early or twice");
    until("the delayed calls are counted", async || {
        let answer = raw::try_request(addr, "GET", "/metrics", &[], b"").await.ok()?;
        let text = answer.text();
        text.contains("queue_worker_scheduled_calls{queue_name=\"jobs\"} 300\n").then_some(())
    })
    .await;
}

#[tokio::test]
async fn open_batch_ends_though_the_fairness_changes() {
    let (queue, server, receiver) = (Queue::start().await, echo().await, HttpServer::start().await);
    let mut gateway = Gateway::before(&queue, &[]).await;
    let mut running: Program = worker(&queue, &server, &[]);
    for (round, to) in [Fairness::Function, Fairness::Fifo].into_iter().enumerate() {
        let later = format!("later {round}");
        let lines = [
            json!({"function": "figlet", "body": "now"}),
            json!({"function": "figlet", "body": &later, "headers": {"X-Delay": "12s"}}),
            json!({"function": "other", "body": "now"}),
        ];
        let stored = server.received().len();
        let due = Timestamp::now() + Duration::from_secs(12);
        let id = submit_batch(&gateway, &receiver, &lines).await;
        server.receives(stored + 2).await;
        let (forgotten, _) = queue.change_fairness(to).await;
        assert_eq!(forgotten, 0, "no call has an attempt");
        // Both are restarted, as the documents say.
        let directory = if to == Fairness::Function { LANES } else { "queues: {jobs: }" };
        gateway = Gateway::start(&queue.nats, directory, &[]).await;
        gateway.is_ready().await;
        drop(running);
        let fairness = if to == Fairness::Function { "function" } else { "fifo" };
        running = worker(&queue, &server, &[("fairness", fairness)]);
        batch_is_done(&receiver, &id, lines.len()).await;
        assert!(arrived_at(&server, &later).unwrap() >= due, "it is early");
        queue.empties().await;
        assert_eq!(server.received().len(), stored + lines.len());
    }
    drop(running);
}

#[tokio::test]
async fn due_calls_of_suspended_lanes_run_when_they_are_resumed() {
    let (queue, server) = (laned().await, echo().await);
    let gateway = Gateway::start(&queue.nats, LANES, &[]).await;
    gateway.is_ready().await;
    let _worker = worker(&queue, &server, &[]);
    submit(&gateway, "figlet", &[("x-delay", "4s")], "delivered before").await;
    until("it is delivered", async || {
        let lanes = queue.lane_names().await;
        let name = lanes.first()?;
        let stream = queue.js.get_stream("jobs").await.ok()?;
        let lane = stream.consumer_info(name).await.ok()?;
        (lane.num_pending == 0 && lane.num_ack_pending == 1).then_some(())
    })
    .await;
    suspend(&queue, true).await;
    // In the lane that is paused, and in one that is created while the queue is suspended.
    submit(&gateway, "figlet", &[("x-delay", "2s")], "not delivered").await;
    submit(&gateway, "other", &[("x-delay", "2s")], "of another lane").await;
    sleep(Duration::from_secs(6)).await;
    assert_eq!(server.received().len(), 0);
    suspend(&queue, false).await;
    let received: Vec<Received> = until_in(LONG, "all calls run", async || {
        Some(server.received()).filter(|received| received.len() == 3)
    })
    .await;
    assert!(received.iter().all(|call| call.header("x-retry") == "1"), "{received:?}");
    assert_eq!(received.iter().filter(|call| called(call).contains("other")).count(), 1);
    queue.empties().await;
}
