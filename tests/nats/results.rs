//! Results that are kept for clients.

use std::time::Duration;

use async_nats::{header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, jetstream::stream::Config};
use asyncqueue::{
    EndState,
    directory::ResultsSettings,
    kept_results::{KeepOutcome, ResultsStream},
    message::{kept_result::KeptResult, native},
    stream::{Removal, RemovalPolicy, remove_queue},
};
use test_support::{
    http::{HttpServer, respond, respond_after},
    nats::NatsServer,
    raw::RawResponse,
    wait::until,
};
use tokio::time::sleep;

use crate::{
    gateway::{Gateway, messages},
    support::Queue,
};

/// Longer than any test.
const LONG: Duration = Duration::from_secs(60);

const KEEP: (&str, &str) = ("x-keep-result", "1h");

async fn result(gateway: &Gateway, call: &str) -> RawResponse {
    gateway.call("GET", &format!("/async-function/{call}/result"), &[], "").await
}

/// Waits until the result of a call has a status other than 202.
async fn ended(gateway: &Gateway, call: &str) -> RawResponse {
    until("the result is there", async || {
        let answer = result(gateway, call).await;
        (answer.status != 202).then_some(answer)
    })
    .await
}

fn says(answer: &RawResponse, state: &str, status: &str) {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(
        (answer.header("x-call-state"), answer.header("x-function-status")),
        (state, status)
    );
}

#[tokio::test]
async fn kept_result_has_status_headers_and_body_of_the_function() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    let function = HttpServer::answering(|_| {
        Box::pin(async {
            let response = http::Response::builder()
                .status(201)
                .header("content-type", "text/x-own")
                .header("set-cookie", "a=1")
                .header("set-cookie", "b=2")
                .header("x-call-state", "forged");
            response.body("made".into()).unwrap()
        })
    })
    .await;
    let kept = gateway.submit(&[KEEP], "hi").await;
    let own = gateway.submit(&[KEEP, ("x-call-id", "order-7")], "hi").await;
    let without = gateway.submit(&[], "hi").await;
    let pending = result(&gateway, &kept).await;
    assert_eq!((pending.status, pending.header("retry-after")), (202, "1"));
    let _worker = queue.worker(&function, &[]);
    queue.empties().await;

    for id in [&kept, &own] {
        let answer = ended(&gateway, id).await;
        says(&answer, "done", "201");
        assert_eq!((answer.text().as_str(), answer.header("content-type")), ("made", "text/x-own"));
        assert_eq!(answer.header("x-call-id"), id);
        let cookies = answer.headers.iter().filter(|(name, _)| name == "set-cookie").count();
        assert_eq!(cookies, 2);
    }
    let by_function =
        gateway.call("GET", &format!("/async-function/figlet/{kept}/result"), &[], "").await;
    says(&by_function, "done", "201");
    let head = gateway.call("HEAD", &format!("/async-function/{kept}/result"), &[], "").await;
    says(&head, "done", "201");
    // The client did not ask for this one.
    assert_eq!(result(&gateway, &without).await.status, 410);
    assert_eq!(queue.info("jobs-results").await.state.messages, 2);
}

#[tokio::test]
async fn every_end_has_a_result() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    let function = HttpServer::answering(|_| respond(500, "broken")).await;
    let cancelled = gateway.submit(&[KEEP], "cancel").await;
    let path = format!("/async-function/{cancelled}");
    assert_eq!(gateway.call("DELETE", &path, &[], "").await.status, 202);
    says(&ended(&gateway, &cancelled).await, "cancelled", "499");
    let expired = gateway.submit(&[KEEP], "old").await;
    sleep(Duration::from_millis(2_200)).await;
    let dead = gateway.submit(&[KEEP], "dead").await;
    let _worker = queue.worker(&function, &[("max_age", "2s"), ("max_retry_attempts", "2")]);
    says(&ended(&gateway, &expired).await, "expired", "504");
    let answer = ended(&gateway, &dead).await;
    says(&answer, "dead", "500");
    assert_eq!(answer.text(), "broken");
    queue.holds("jobs-dead", 1).await;
}

#[tokio::test]
async fn time_that_is_not_valid_is_refused() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    for value in ["forever", "1", "0s", "25h"] {
        let headers = [("x-keep-result", value)];
        let answer = gateway.call("POST", "/async-function/figlet", &headers, "hi").await;
        assert_eq!(answer.status, 400, "{value}");
        assert!(answer.text().contains(&format!("X-Keep-Result `{value}")), "{}", answer.text());
    }
    queue.holds("jobs", 0).await;
}

#[tokio::test]
async fn result_is_gone_after_its_time() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    let function = HttpServer::start().await;
    let _worker = queue.worker(&function, &[]);
    let id = gateway.submit(&[("x-keep-result", "1s")], "hi").await;
    says(&ended(&gateway, &id).await, "done", "200");
    let answer = until("the result is gone", async || {
        let answer = result(&gateway, &id).await;
        (answer.status != 200).then_some(answer)
    })
    .await;
    assert_eq!(answer.status, 410, "{}", answer.text());
    assert_eq!(result(&gateway, "never-was").await.status, 404);
}

#[tokio::test]
async fn first_result_of_a_call_counts_and_it_does_not_run_again() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    let function = HttpServer::start().await;
    // A worker that ended between result and ack leaves this.
    let id = gateway.submit(&[KEEP], "hi").await;
    let call = messages(&queue, "jobs").await.remove(0);
    let hanging = HttpServer::answering(|_| respond_after(LONG, 200, "")).await;
    let mut first = queue.worker(&hanging, &[]);
    hanging.receives(1).await;
    let invocation = native::decode(&call.headers, call.payload.clone()).unwrap();
    let kept = KeptResult::new(&invocation, call.sequence, EndState::Done, 207);
    let (js, name) = (queue.js.clone(), queue.spec.queue.clone());
    let settings = ResultsSettings::default();
    let stream = ResultsStream::new(js, name, "jobs".to_owned());
    stream.store(&kept, Duration::from_secs(60), &settings).await.unwrap();
    let other = KeptResult { status: 299, ..kept };
    let stored = stream.store(&other, Duration::from_secs(60), &settings).await.unwrap();
    assert_eq!(stored, KeepOutcome::HasEnd(EndState::Done));
    first.kill();
    let _second = queue.worker(&function, &[]);
    queue.empties().await;
    says(&ended(&gateway, &id).await, "done", "207");
    assert_eq!(function.received().len(), 0);
    let stored = messages(&queue, "jobs-results").await;
    assert_eq!(stored.len(), 1);
    let expected = stored[0].headers.get(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE);
    assert_eq!(expected.map(async_nats::HeaderValue::as_str), Some("0"));
}

#[tokio::test]
async fn result_that_does_not_fit_is_kept_without_its_body() {
    let mut nats = NatsServer::prepare().with_max_payload("64KB");
    nats.run().await;
    let queue = Queue::start_on(nats).await;
    let gateway = Gateway::before(&queue, &[]).await;
    let body = "x".repeat(100_000);
    let function = HttpServer::answering(move |_| respond(200, &body)).await;
    let _worker = queue.worker(&function, &[("max_response_bytes", "1Mi")]);
    let id = gateway.submit(&[KEEP], "hi").await;
    let answer = ended(&gateway, &id).await;
    says(&answer, "done", "200");
    assert_eq!((answer.header("x-result-omitted"), answer.text().as_str()), ("100000", ""));
}

#[tokio::test]
async fn queue_may_keep_all_results_and_hide_those_of_chosen_ids() {
    let queue = Queue::standalone().await;
    let directory = "queues: {jobs: {results: \
                     {retention: 10m, maxMessages: 2, requireGeneratedId: true}}}";
    let settings = [("ensure_stream", "true")];
    let gateway = Gateway::start(&queue.nats, directory, &settings).await;
    gateway.is_ready().await;
    let function = HttpServer::answering(|request| {
        respond(200, str::from_utf8(&request.body).unwrap_or_default())
    })
    .await;
    let _worker = queue.worker(&function, &[]);
    let chosen = gateway.submit(&[("x-call-id", "order-7")], "0").await;
    let keyed = gateway.submit(&[("idempotency-key", "key-7")], "1").await;
    until("the stream is there", async || queue.js.get_stream("jobs-results").await.ok()).await;
    queue.holds("jobs-results", 2).await;
    for id in [&chosen, &keyed] {
        let answer = result(&gateway, id).await;
        assert_eq!(answer.status, 403, "{}", answer.text());
        assert!(answer.text().contains("requireGeneratedId"), "{}", answer.text());
    }
    // The oldest is dropped.
    let generated = gateway.submit(&[], "2").await;
    let answer = ended(&gateway, &generated).await;
    assert_eq!(answer.text(), "2");
    assert_eq!(queue.info("jobs-results").await.state.messages, 2);
}

#[tokio::test]
async fn calls_end_while_results_cannot_be_kept() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    let function = HttpServer::start().await;
    // Another stream has the name.
    let stream = Config {
        name: "jobs-results".to_owned(),
        subjects: vec!["other.>".to_owned()],
        ..Config::default()
    };
    queue.js.create_stream(stream).await.unwrap();
    let worker = queue.worker(&function, &[]);
    let id = gateway.submit(&[KEEP], "hi").await;
    function.receives(1).await;
    worker.logged_in(LONG, "failed to keep the result of a call").await;
    queue.empties().await;
    // The next call does not wait.
    gateway.submit(&[KEEP], "hi").await;
    queue.empties().await;
    assert_eq!(function.received().len(), 2);
    assert_eq!(result(&gateway, &id).await.status, 410);
    assert_eq!(queue.info("jobs-results").await.config.subjects, ["other.>"]);
}

#[tokio::test]
async fn results_are_deleted_with_the_calls_and_do_not_keep_the_queue() {
    for policy in [RemovalPolicy::DeleteIfEmpty, RemovalPolicy::Delete, RemovalPolicy::Retain] {
        let queue = Queue::start().await;
        let gateway = Gateway::before(&queue, &[]).await;
        let function = HttpServer::start().await;
        let worker = queue.worker(&function, &[]);
        let id = gateway.submit(&[KEEP], "hi").await;
        says(&ended(&gateway, &id).await, "done", "200");
        queue.empties().await;
        drop(worker);
        let removal = remove_queue(&queue.js, &queue.spec, policy).await.unwrap();
        let stays = policy == RemovalPolicy::Retain;
        assert_eq!(matches!(removal, Removal::Released { .. }), stays, "{policy:?}");
        let is_there = queue.js.get_stream("jobs-results").await.is_ok();
        assert_eq!(is_there, stays, "{policy:?}");
    }
}
