//! One call by its id: where it is, and that it be cancelled, wherever it is.

use std::time::Duration;

use async_nats::HeaderMap as NatsHeaders;
use asyncqueue::{
    CallId,
    call::{Phase, WorkerReport},
    stream::{Owner, QueueSpec, ensure_queue},
    worker_requests::status_request_subject,
};
use futures::StreamExt;
use test_support::{
    http::{HttpServer, respond, respond_after},
    raw::RawResponse,
    wait::until,
};

use crate::{
    gateway::Gateway,
    support::{Queue, callback_at},
};

/// Longer than any test: a function that answers by then was not cancelled.
const LONG: Duration = Duration::from_secs(60);

async fn cancel(gateway: &Gateway, call: &str) -> RawResponse {
    gateway.call("DELETE", &format!("/async-function/{call}"), &[], "").await
}

async fn status(gateway: &Gateway, call: &str) -> serde_json::Value {
    let answer = gateway.call("GET", &format!("/async-function/{call}"), &[], "").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "application/json");
    answer.json()
}

fn accepted(answer: &RawResponse, id: &str) {
    assert_eq!((answer.status, answer.text().as_str()), (202, "{\"cancelled\":1,\"ended\":0}\n"));
    assert_eq!(answer.header("x-call-id"), id);
}

fn refused(answer: &RawResponse, status: u16, text: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert!(answer.text().contains(text), "{}", answer.text());
}

/// The client of a cancelled call gets one result, which says so.
async fn called_back_once(queue: &Queue, caller: &HttpServer, id: &str) {
    let result = caller.receives(1).await.remove(0);
    assert_eq!((result.header("x-call-id"), result.header("x-function-status")), (id, "499"));
    queue.holds("jobs-callbacks", 0).await;
    assert_eq!(caller.received().len(), 1);
}

#[tokio::test]
async fn a_queued_call_is_cancelled_and_a_repeat_has_the_same_answer() {
    let (queue, caller, function) =
        (Queue::start().await, HttpServer::start().await, HttpServer::start().await);
    let gateway = Gateway::before(&queue, &[]).await;
    let callback = callback_at(&caller).as_url().to_string();
    let id = gateway.submit(&[("x-callback-url", &callback)], "hi").await;
    accepted(&cancel(&gateway, &id).await, &id);
    accepted(&cancel(&gateway, &id).await, &id);
    queue.holds("jobs", 0).await;
    let state = status(&gateway, &id).await;
    assert_eq!((&state["state"], &state["queue"]), (&"cancelled".into(), &"jobs".into()));
    assert!(state["since"].as_str().unwrap().ends_with('Z'));
    // A worker that comes now runs what was not cancelled alone.
    gateway.submit(&[], "other").await;
    let _worker = queue.worker(&function, &[]);
    assert_eq!(function.receives(1).await[0].body, "other");
    queue.empties().await;
    assert_eq!(function.received().len(), 1);
    called_back_once(&queue, &caller, &id).await;
}

#[tokio::test]
async fn cancelled_running_call_calls_back_once() {
    let (queue, caller) = (Queue::start().await, HttpServer::start().await);
    let function = HttpServer::answering(|_| respond_after(LONG, 200, "late")).await;
    let gateway = Gateway::before(&queue, &[]).await;
    let worker = queue.worker(&function, &[]);
    let callback = callback_at(&caller).as_url().to_string();
    let id = gateway.submit(&[("x-callback-url", &callback)], "hi").await;
    function.receives(1).await;
    accepted(&cancel(&gateway, &id).await, &id);
    until("the connection is closed", async || (function.running() == 0).then_some(())).await;
    accepted(&cancel(&gateway, &id).await, &id);
    called_back_once(&queue, &caller, &id).await;
    queue.empties().await;
    worker.logged("figlet is cancelled").await;
    assert_eq!(
        gateway.metric(r#"gateway_lookups_total{operation="cancel",outcome="running"}"#).await,
        1
    );
    assert_eq!(
        gateway.metric(r#"gateway_lookups_total{operation="cancel",outcome="before"}"#).await,
        1
    );
    // Its slot is free again.
    gateway.submit(&[], "other").await;
    function.receives(2).await;
}

#[tokio::test]
async fn a_call_between_two_attempts_is_cancelled() {
    let (queue, caller) = (Queue::start().await, HttpServer::start().await);
    let function = HttpServer::answering(|_| respond(503, "no")).await;
    let gateway = Gateway::before(&queue, &[]).await;
    let worker = queue.worker(&function, &[("initial_retry_wait", "1s")]);
    let callback = callback_at(&caller).as_url().to_string();
    let id = gateway.submit(&[("x-callback-url", &callback)], "hi").await;
    worker.logged("retrying in 1s").await;
    accepted(&cancel(&gateway, &id).await, &id);
    called_back_once(&queue, &caller, &id).await;
    // A later failure is tried again after the time at which the first would have been.
    gateway.submit(&[], "other").await;
    let received = function.receives(3).await;
    assert_eq!(received.iter().filter(|request| request.body == "hi").count(), 1);
}

#[tokio::test]
async fn unknown_call_is_404_with_the_queues_searched() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    let id = CallId::generate(&queue.spec.queue).to_string();
    for method in ["GET", "DELETE"] {
        let answer = gateway.call(method, &format!("/async-function/{id}"), &[], "").await;
        refused(&answer, 404, &format!("call `{id}` not found on queue `jobs`"));
        assert_eq!(answer.header("x-call-id"), id);
    }
    let answer = gateway.call("HEAD", "/async-function/never", &[], "").await;
    assert_eq!((answer.status, answer.body.len()), (404, 0));
}

#[tokio::test]
async fn cancellation_before_submission_has_no_effect() {
    let (queue, function) = (Queue::start().await, HttpServer::start().await);
    let gateway = Gateway::before(&queue, &[]).await;
    refused(&cancel(&gateway, "mine").await, 404, "`mine`");
    gateway.submit(&[("x-call-id", "mine")], "hi").await;
    let _worker = queue.worker(&function, &[]);
    function.receives(1).await;
}

#[tokio::test]
async fn ended_call_is_not_cancelled() {
    let queue = Queue::start().await;
    let function = HttpServer::answering(|request| match &request.body[..] {
        b"fails" => respond(500, "sorry"),
        _ => respond(200, "ok"),
    })
    .await;
    let caller = HttpServer::answering(|_| respond_after(LONG, 200, "slow")).await;
    let gateway = Gateway::before(&queue, &[]).await;
    let _worker = queue.worker(&function, &[("max_retry_attempts", "1")]);

    let dead = gateway.submit(&[("x-call-id", "dead")], "fails").await;
    queue.holds("jobs-dead", 1).await;
    queue.empties().await;
    refused(&cancel(&gateway, &dead).await, 409, "can't be cancelled: it is a dead letter");
    let state = status(&gateway, &dead).await;
    assert_eq!((&state["state"], &state["status"]), (&"dead".into(), &500.into()));
    assert_eq!((&state["function"], &state["attempt"]), (&"figlet.openfaas-fn".into(), &1.into()));
    assert_eq!(state["reason"], "the function answered 500 (attempt 1 of 1)");
    assert!(state["submittedAt"].is_string() && state["age"].is_string(), "{state}");

    let callback = callback_at(&caller).as_url().to_string();
    let done = gateway.submit(&[("x-callback-url", &callback)], "works").await;
    caller.receives(1).await;
    queue.empties().await;
    refused(&cancel(&gateway, &done).await, 409, "can't be cancelled: it has run");
    let state = status(&gateway, &done).await;
    assert_eq!((&state["state"], &state["status"]), (&"done".into(), &200.into()));
    assert_eq!((&state["callback"], &state["attempt"]), (&"pending".into(), &1.into()));

    // One without a callback leaves no record.
    let gone = gateway.submit(&[], "works").await;
    queue.empties().await;
    refused(&cancel(&gateway, &gone).await, 404, "or the call ended");
}

#[tokio::test]
async fn dead_callback_is_distinguished_from_a_dead_call() {
    let queue = Queue::start().await;
    let function = HttpServer::answering(|request| match &request.body[..] {
        b"fails" => respond(500, "sorry"),
        _ => respond(200, "ok"),
    })
    .await;
    let caller = HttpServer::answering(|_| respond(410, "gone")).await;
    let gateway = Gateway::before(&queue, &[]).await;
    let _worker =
        queue.worker(&function, &[("max_retry_attempts", "1"), ("callback_max_attempts", "1")]);
    let callback = callback_at(&caller).as_url().to_string();
    let works = gateway.submit(&[("x-callback-url", &callback)], "works").await;
    let fails = gateway.submit(&[("x-callback-url", &callback)], "fails").await;
    queue.holds("jobs-dead", 3).await;
    let state = status(&gateway, &works).await;
    assert_eq!((&state["state"], &state["callback"]), (&"done".into(), &"dead".into()));
    assert_eq!(status(&gateway, &fails).await["state"], "dead");
}

#[tokio::test]
async fn a_queued_call_knows_its_place() {
    let (queue, function) = (Queue::start().await, HttpServer::start().await);
    let gateway = Gateway::before(&queue, &[]).await;
    let mut ids = Vec::new();
    for body in ["a", "b", "c"] {
        ids.push(gateway.submit(&[], body).await);
    }
    for (position, id) in ids.iter().enumerate() {
        let state = status(&gateway, id).await;
        assert_eq!((&state["state"], &state["position"]), (&"queued".into(), &position.into()));
        assert_eq!((&state["callId"], &state["queue"]), (&id.as_str().into(), &"jobs".into()));
        assert_eq!(state["function"], "figlet.openfaas-fn");
    }
    cancel(&gateway, &ids[0]).await;
    let _worker = queue.worker(&function, &[]);
    function.receives(2).await;
}

#[tokio::test]
async fn status_of_a_delivered_call_comes_from_its_worker() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    let id = gateway.submit(&[], "hi").await;
    let consumer = queue.consumer().await;
    let _delivered =
        consumer.fetch().max_messages(1).messages().await.unwrap().next().await.unwrap();
    // No worker answers.
    assert_eq!(status(&gateway, &id).await["state"], "delivered");

    // Two workers hear the question, and the one that has the call answers.
    let client = queue.nats.client().await;
    let mut questions = client.subscribe(status_request_subject(&queue.spec.queue)).await.unwrap();
    client.flush().await.unwrap();
    let since = "2026-11-24T10:11:12Z".parse().unwrap();
    let answering = tokio::spawn({
        let question = format!("{id} {}", queue.sequence("jobs", 1).await);
        async move {
            for phase in [Phase::Running { since }, Phase::Waiting { next_attempt: since }] {
                let asked = questions.next().await.unwrap();
                assert_eq!(asked.payload, question);
                let worker = "w-1".to_owned();
                let report = WorkerReport {
                    worker,
                    attempt: 2,
                    max_attempts: 10,
                    phase,
                    blocked: None,
                    failure: None,
                    not_counted_until: None,
                };
                let report = serde_json::to_vec(&report).unwrap();
                client.publish(asked.reply.unwrap(), report.into()).await.unwrap();
                client.flush().await.unwrap();
            }
        }
    });
    let state = status(&gateway, &id).await;
    assert_eq!((&state["state"], &state["worker"]), (&"running".into(), &"w-1".into()));
    assert_eq!((&state["attempt"], &state["maxAttempts"]), (&2.into(), &10.into()));
    assert_eq!(state["since"], "2026-11-24T10:11:12Z");
    let state = status(&gateway, &id).await;
    assert_eq!(
        (&state["state"], &state["nextAttempt"]),
        (&"waiting".into(), &"2026-11-24T10:11:12Z".into())
    );
    answering.await.unwrap();
}

#[tokio::test]
async fn head_says_whether_a_call_is_known_without_a_body() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    let id = gateway.submit(&[], "hi").await;
    let answer = gateway.call("HEAD", &format!("/async-function/figlet/{id}"), &[], "").await;
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    assert_eq!(answer.header("x-call-id"), id);
}

/// A second queue, `other`, to which the function `cows` belongs.
async fn with_a_second_queue() -> (Queue, Gateway) {
    let queue = Queue::start().await;
    let owner = Owner { name: "test/other".to_owned(), uid: "2".to_owned() };
    ensure_queue(&queue.js, &QueueSpec::new("other".parse().unwrap(), owner), false).await.unwrap();
    // A queue in the directory whose stream is not there yet does not keep the others from being
    // asked.
    let directory = "queues: {jobs: , other: , later: }\nfunctions: {cows: {queue: other}}";
    let gateway = Gateway::start(&queue.nats, directory, &[]).await;
    until("the gateway is ready", async || {
        (gateway.call("GET", "/readyz", &[], "").await.status == 200).then_some(())
    })
    .await;
    (queue, gateway)
}

#[tokio::test]
async fn a_clients_own_id_is_found_on_whichever_queue_it_is() {
    let (queue, gateway) = with_a_second_queue().await;
    let own = [("x-call-id", "order-7")];
    assert_eq!(gateway.call("POST", "/async-function/cows", &own, "hi").await.status, 202);
    assert_eq!(status(&gateway, "order-7").await["queue"], "other");
    assert_eq!(status(&gateway, "cows/order-7").await["queue"], "other");
    let narrowed = cancel(&gateway, "order-7?function=figlet").await;
    refused(&narrowed, 404, "on queue `jobs`");
    accepted(&cancel(&gateway, "order-7").await, "order-7");
    queue.holds("other", 0).await;
    accepted(&cancel(&gateway, "order-7").await, "order-7");
    assert_eq!(status(&gateway, "order-7").await["queue"], "other");
}

#[tokio::test]
async fn calls_that_share_an_id_are_found_and_cancelled() {
    let (queue, gateway) = with_a_second_queue().await;
    let own = [("x-call-id", "order-7")];
    let submit = async |function: &str, body: &str| {
        let answer = gateway.call("POST", &format!("/async-function/{function}"), &own, body).await;
        assert_eq!(answer.status, 202);
    };
    for function in ["cows", "figlet"] {
        submit(function, "first").await;
    }
    // The newest is shown, and the others are counted.
    let state = status(&gateway, "order-7").await;
    assert_eq!((&state["function"], &state["others"]), (&"figlet.openfaas-fn".into(), &1.into()));
    accepted(&cancel(&gateway, "cows/order-7").await, "order-7");
    queue.holds("other", 0).await;
    queue.holds("jobs", 1).await;
    assert!(status(&gateway, "order-7").await.get("others").is_none());
    submit("cows", "second").await;
    // Both that are left, and the one that was cancelled before.
    let answer = cancel(&gateway, "order-7").await;
    assert_eq!((answer.status, &answer.json()["cancelled"]), (202, &3.into()));
    queue.holds("jobs", 0).await;
    queue.holds("other", 0).await;
}

#[tokio::test]
async fn a_cancellation_takes_no_later_call_with_the_same_id_with_it() {
    let (queue, function) = (Queue::start().await, HttpServer::start().await);
    let gateway = Gateway::before(&queue, &[]).await;
    let own = [("x-call-id", "mine")];
    gateway.submit(&own, "first").await;
    accepted(&cancel(&gateway, "mine").await, "mine");
    gateway.submit(&own, "second").await;
    assert_eq!(status(&gateway, "mine").await["state"], "queued");
    let _worker = queue.worker(&function, &[]);
    assert_eq!(function.receives(1).await[0].body, "second");
}

#[tokio::test]
async fn requests_about_a_call_are_never_the_upstreams() {
    let (queue, upstream) = (Queue::start().await, HttpServer::start().await);
    let gateway = Gateway::before(&queue, &[("upstream_url", &upstream.url())]).await;
    for (method, target, expected) in [
        ("GET", "/async-function/unknown", 404),
        ("DELETE", "/async-function/unknown", 404),
        ("DELETE", "/async-function/figlet/unknown", 404),
        ("DELETE", "/async-function/figlet/a/b", 405),
        ("GET", "/async-function/", 404),
        ("PATCH", "/async-function/figlet", 405),
    ] {
        assert_eq!(
            gateway.call(method, target, &[], "").await.status,
            expected,
            "{method} {target}"
        );
    }
    assert!(upstream.received().is_empty());
}

#[tokio::test]
async fn lookup_without_nats_is_refused_at_once() {
    let mut queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    queue.nats.kill();
    gateway.program.logged("disconnected from NATS").await;
    for method in ["GET", "DELETE"] {
        let answer = gateway.call(method, "/async-function/id-1", &[], "").await;
        refused(&answer, 503, "NATS is not available");
        assert_eq!(answer.header("retry-after"), "5");
    }
}

#[tokio::test]
async fn partly_cancelled_call_is_cancelled_by_a_repeat() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    let id = gateway.submit(&[], "hi").await;
    let tombstones = queue.js.get_key_value("asyncqueue-cancelled").await.unwrap();
    let sequence = queue.sequence("jobs", 1).await.to_string();
    tombstones.put(format!("jobs.{id}"), sequence.into()).await.unwrap();
    assert_eq!(status(&gateway, &id).await["state"], "cancelled");
    queue.holds("jobs", 1).await;
    accepted(&cancel(&gateway, &id).await, &id);
    queue.holds("jobs", 0).await;
}

#[tokio::test]
async fn no_call_starts_after_its_cancellation_and_each_has_one_end() {
    const CALLS: usize = 60;
    let (queue, caller) = (Queue::start().await, HttpServer::start().await);
    let function =
        HttpServer::answering(|_| respond_after(Duration::from_millis(10), 200, "ok")).await;
    let gateway = Gateway::before(&queue, &[]).await;
    let _worker = queue.worker(&function, &[("max_inflight", "4")]);
    let callback = callback_at(&caller).as_url().to_string();
    // Side by side, so that cancellations meet calls that wait, run and end; by two clients each.
    let race = async |call: usize| {
        let id = gateway.submit(&[("x-callback-url", &callback)], &call.to_string()).await;
        let (first, second) = futures::join!(cancel(&gateway, &id), cancel(&gateway, &id));
        let confirmed = [&first, &second].iter().any(|answer| answer.status == 202);
        for answer in [first, second] {
            assert!([202, 404, 409].contains(&answer.status), "{}", answer.text());
        }
        (id, confirmed.then(std::time::Instant::now))
    };
    let races: Vec<_> = futures::stream::iter(0..CALLS).map(race).buffered(8).collect().await;
    let results = caller.receives(CALLS).await;
    queue.empties().await;
    queue.holds("jobs-callbacks", 0).await;
    assert_eq!(caller.received().len(), CALLS);
    for (id, confirmed) in races {
        let heard = results.iter().filter(|result| result.header("x-call-id") == id);
        let heard: Vec<_> = heard.map(|result| result.header("x-function-status")).collect();
        let runs: Vec<_> =
            function.received().into_iter().filter(|r| r.header("x-call-id") == id).collect();
        assert!(runs.len() <= 1, "{id} ran {} times", runs.len());
        match confirmed {
            Some(at) => {
                assert!(runs.iter().all(|run| run.at <= at), "{id} ran after its cancellation");
                assert_eq!(heard, ["499"], "{id}");
            }
            None => assert_eq!((heard, runs.len()), (vec!["200"], 1), "{id}"),
        }
    }
}

#[tokio::test]
async fn a_message_of_an_existing_gateway_has_no_id_to_be_found_by() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    let request = r#"{"Header":{"X-Call-Id":["f5a9813d"]},"Method":"POST","Function":"figlet"}"#;
    let headers = NatsHeaders::new();
    queue.js.publish_with_headers("jobs", headers, request.into()).await.unwrap().await.unwrap();
    refused(&cancel(&gateway, "f5a9813d").await, 404, "call `f5a9813d` not found");
}
