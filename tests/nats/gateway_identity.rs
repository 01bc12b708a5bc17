//! A call's id: made here, or a client's own, by which a repeat is known.

use std::{collections::BTreeSet, time::Duration};

use asyncqueue::{CallId, call_id::queue_hash, message::native};
use test_support::{http::HttpServer, raw::RawResponse, wait::until};

use crate::{
    gateway::{Gateway, calls, messages},
    support::{Queue, call},
};

async fn post(gateway: &Gateway, target: &str, id: &str, body: &str) -> RawResponse {
    gateway.call("POST", target, &[("x-call-id", id)], body).await
}

fn is_duplicate(answer: &RawResponse) -> bool {
    assert_eq!(answer.status, 202, "{}", answer.text());
    answer.header("x-call-duplicate") == "true"
}

#[tokio::test]
async fn an_id_is_made_that_orders_by_time_and_names_the_queue() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    let first: CallId = gateway.submit(&[], "a").await.parse().unwrap();
    let second: CallId = gateway.submit(&[("x-call-id", "")], "b").await.parse().unwrap();
    assert_eq!(first.queue_hash(), Some(queue_hash(&queue.spec.queue)));
    assert!(first.as_str()[..13] <= second.as_str()[..13]);
    assert_ne!(first, second);
    queue.holds("jobs", 2).await;
}

#[tokio::test]
async fn a_repeat_while_the_call_is_pending_stores_nothing() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    assert!(!is_duplicate(&post(&gateway, "/async-function/figlet/p?q=1", "mine", "hi").await));
    for namespace in ["", ".openfaas-fn"] {
        // Headers may differ: a client that repeats itself sends another date.
        let target = format!("/async-function/figlet{namespace}/p?q=1");
        let headers = [("x-call-id", "mine"), ("date", "later")];
        let answer = gateway.call("POST", &target, &headers, "hi").await;
        assert!(is_duplicate(&answer));
        assert_eq!(answer.header("x-call-id"), "mine");
    }
    queue.holds("jobs", 1).await;
    assert_eq!(gateway.metric(r#"gateway_submissions_total{outcome="duplicate"}"#).await, 2);
}

#[tokio::test]
async fn a_repeat_after_the_call_has_ended_does_not_run_it_again() {
    let (queue, function) = (Queue::start().await, HttpServer::start().await);
    let gateway = Gateway::before(&queue, &[]).await;
    let _worker = queue.worker(&function, &[]);
    assert!(!is_duplicate(&post(&gateway, "/async-function/figlet", "mine", "hi").await));
    function.receives(1).await;
    queue.empties().await;
    assert!(is_duplicate(&post(&gateway, "/async-function/figlet", "mine", "hi").await));
    post(&gateway, "/async-function/figlet", "other", "other").await;
    assert_eq!(function.receives(2).await[1].body, "other");
}

/// What docs/durability.md does not promise: the server knows an id by the messages that it has.
#[tokio::test]
async fn repeat_of_an_ended_call_is_new_after_a_nats_restart() {
    let (mut queue, function) = (Queue::start().await, HttpServer::start().await);
    let gateway = Gateway::before(&queue, &[]).await;
    let _worker = queue.worker(&function, &[]);
    assert!(!is_duplicate(&post(&gateway, "/async-function/figlet", "mine", "hi").await));
    function.receives(1).await;
    queue.empties().await;
    queue.nats.restart().await;
    until("the gateway has found it again", async || {
        let answer = gateway.try_call("GET", "/readyz", &[], "").await.ok()?;
        (answer.status == 200).then_some(())
    })
    .await;
    assert!(!is_duplicate(&post(&gateway, "/async-function/figlet", "mine", "hi").await));
    function.receives(2).await;
}

#[tokio::test]
async fn repeat_after_cancellation_does_not_start_the_call() {
    let (queue, function) = (Queue::start().await, HttpServer::start().await);
    let gateway = Gateway::before(&queue, &[]).await;
    assert!(!is_duplicate(&post(&gateway, "/async-function/figlet", "mine", "hi").await));
    assert_eq!(gateway.call("DELETE", "/async-function/mine", &[], "").await.status, 202);
    // One that was long on its way.
    assert!(is_duplicate(&post(&gateway, "/async-function/figlet", "mine", "hi").await));
    post(&gateway, "/async-function/figlet", "other", "other").await;
    let _worker = queue.worker(&function, &[]);
    assert_eq!(function.receives(1).await[0].body, "other");
    queue.empties().await;
    assert_eq!(function.received().len(), 1);
}

#[tokio::test]
async fn calls_that_share_an_id_are_calls_of_their_own() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    let first = [("x-call-id", "mine"), ("x-callback-url", "http://caller/")];
    assert_eq!(gateway.call("POST", "/async-function/figlet/p", &first, "hi").await.status, 202);
    let others = [
        ("/async-function/figlet/p", "http://caller/", "ho"),
        ("/async-function/figlet/", "http://caller/", "hi"),
        ("/async-function/figlet/p?", "http://caller/", "hi"),
        ("/async-function/cows/p", "http://caller/", "hi"),
        ("/async-function/figlet/p", "http://other/", "hi"),
        ("/async-function/figlet/p", "", "hi"),
    ];
    // The second time each is known by what it asks for.
    for is_repeat in [false, true] {
        for (target, callback, body) in others {
            let headers = [("x-call-id", "mine"), ("x-callback-url", callback)];
            let answer = gateway.call("POST", target, &headers, body).await;
            assert_eq!(is_duplicate(&answer), is_repeat, "{target} {callback} {body}");
            assert_eq!(answer.header("x-call-id"), "mine");
        }
        queue.holds("jobs", 7).await;
    }
}

#[tokio::test]
async fn calls_that_share_an_id_run_once_each() {
    let (queue, function) = (Queue::start().await, HttpServer::start().await);
    let gateway = Gateway::before(&queue, &[]).await;
    let _worker = queue.worker(&function, &[]);
    let bodies: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    let posts = bodies.iter().map(|body| post(&gateway, "/async-function/figlet", "mine", body));
    for answer in futures::future::join_all(posts).await {
        assert!(!is_duplicate(&answer));
    }
    function.receives(20).await;
    queue.empties().await;
    let mut received = function.received();
    received
        .sort_by_key(|request| String::from_utf8_lossy(&request.body).parse::<usize>().unwrap());
    assert_eq!(received.iter().map(|request| request.body.clone()).collect::<Vec<_>>(), bodies);
    assert!(received.iter().all(|request| request.header("x-call-id") == "mine"));
    let keys: BTreeSet<_> =
        received.iter().map(|request| request.header("idempotency-key")).collect();
    assert_eq!(keys.len(), 20, "a function can distinguish them: {keys:?}");
}

#[tokio::test]
async fn id_of_an_ended_call_may_name_another_call() {
    let (queue, function) = (Queue::start().await, HttpServer::start().await);
    let gateway = Gateway::before(&queue, &[]).await;
    let _worker = queue.worker(&function, &[]);
    for (calls, (target, body)) in
        [("figlet", "hi"), ("figlet", "ho"), ("cows", "hi")].into_iter().enumerate()
    {
        let answer = post(&gateway, &format!("/async-function/{target}"), "mine", body).await;
        assert!(!is_duplicate(&answer));
        assert_eq!(function.receives(calls + 1).await[calls].body, body);
        queue.empties().await;
    }
}

#[tokio::test]
async fn concurrent_repeats_store_one_call() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    let repeats = (0..20).map(|_| post(&gateway, "/async-function/figlet", "mine", "hi"));
    let answers = futures::future::join_all(repeats).await;
    assert_eq!(answers.iter().filter(|answer| !is_duplicate(answer)).count(), 1);
    queue.holds("jobs", 1).await;
}

#[tokio::test]
async fn repeat_after_the_window_is_duplicate_while_call_is_pending() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    let mut config = queue.info("jobs").await.config;
    config.duplicate_window = Duration::from_millis(100);
    queue.js.update_stream(config).await.unwrap();
    assert!(!is_duplicate(&post(&gateway, "/async-function/figlet", "mine", "hi").await));
    let stored = tokio::time::Instant::now();
    until("the window has passed several times", async || {
        assert!(is_duplicate(&post(&gateway, "/async-function/figlet", "mine", "hi").await));
        (stored.elapsed() > Duration::from_millis(500)).then_some(())
    })
    .await;
    queue.holds("jobs", 1).await;
}

#[tokio::test]
async fn repeat_of_a_call_with_another_message_id_is_a_duplicate() {
    // As a dead letter that was replayed.
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    let mut replayed = call();
    replayed.call_id = "mine".parse().unwrap();
    let mut headers = native::encode(&replayed);
    headers.insert("Nats-Msg-Id", "mine.replay.1");
    let subject = "jobs.openfaas-fn.figlet.mine";
    queue.js.publish_with_headers(subject, headers, "hi".into()).await.unwrap().await.unwrap();
    assert!(is_duplicate(&post(&gateway, "/async-function/figlet", "mine", "hi").await));
    assert!(!is_duplicate(&post(&gateway, "/async-function/figlet", "mine", "ho").await));
}

#[tokio::test]
async fn the_id_of_an_answer_that_said_unavailable_makes_the_repeat_safe() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[("publish_timeout", "300ms")]).await;
    queue.nats.pause().await;
    let answer = gateway.call("POST", "/async-function/figlet", &[], "hi").await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(
        answer.text().contains("no answer in 300ms: retry with the X-Call-Id"),
        "{}",
        answer.text()
    );
    let id = answer.header("x-call-id");
    queue.nats.resume();
    let repeated = until("the repeat is taken", async || {
        let answer = post(&gateway, "/async-function/figlet", id, "hi").await;
        (answer.status == 202).then_some(answer)
    })
    .await;
    assert_eq!(repeated.header("x-call-id"), id);
    let stored = calls(&queue).await;
    assert_eq!(stored.len(), 1);
    assert_eq!(stored[0].call_id.as_str(), id);
    let message = messages(&queue, "jobs").await.remove(0);
    assert!(message.headers.get("Nats-Msg-Id").unwrap().as_str().starts_with(&format!("{id}.")));
}
