//! Replays of dead letters: what is replayed runs once, and what does not hold all of its call is
//! refused.

use async_nats::HeaderMap as NatsHeaders;
use asyncqueue::message::native;
use test_support::{
    http::{HttpServer, respond},
    program::{Ended, run},
};

use crate::{
    gateway::messages,
    support::{LEASE, Queue, call},
};

async fn replay(queue: &Queue, id: &str) -> Ended {
    run("kubectl-aq", &["dead", "replay", "jobs", id], &[("nats_url", &queue.nats.url())]).await
}

#[tokio::test]
async fn a_replay_has_the_key_that_its_call_had() {
    let queue = Queue::start().await;
    let function = HttpServer::answering(|request| match request.header("x-retry-max") {
        "1" => respond(500, "no"),
        _ => respond(200, "ok"),
    })
    .await;
    let failing = queue.worker(&function, &[("max_retry_attempts", "1")]);
    let own = queue.submit(|call| call.call_id = "mine".parse().unwrap()).await;
    queue.holds("jobs-dead", 1).await;
    queue.empties().await;
    // One of a program that gives its messages no id.
    let mut headers = NatsHeaders::new();
    for (name, values) in
        native::encode(&call()).iter().filter(|(name, _)| name.to_string() != "Nats-Msg-Id")
    {
        headers.insert(name.clone(), values[0].clone());
    }
    headers.insert("Async-Call-Id", "plain");
    let subject = "jobs.openfaas-fn.figlet.plain";
    queue.js.publish_with_headers(subject, headers, "hi".into()).await.unwrap().await.unwrap();
    queue.holds("jobs-dead", 2).await;
    queue.empties().await;
    drop(failing);

    let _worker = queue.worker(&function, &[]);
    for id in [own.as_str(), "plain"] {
        assert_eq!(replay(&queue, id).await.code, Some(0));
    }
    let received = function.receives(4).await;
    let keys_of = |id: &str| -> Vec<String> {
        let of_call = received.iter().filter(|request| request.header("x-call-id") == id);
        of_call.map(|request| request.header("idempotency-key").to_owned()).collect()
    };
    assert_eq!(keys_of("plain"), ["plain", "plain"]);
    let [first, second] = &keys_of("mine")[..] else { panic!("{received:?}") };
    assert!(first == second && first.starts_with("mine."), "{first} {second}");
}

/// As where a worker dies between the two: the letter is stored, and the call's message is not
/// acknowledged.
#[tokio::test]
async fn a_replay_removes_the_message_of_its_call() {
    let (queue, function) = (Queue::start().await, HttpServer::start().await);
    let id = queue.submit(|_| {}).await;
    let message = messages(&queue, "jobs").await.remove(0);
    let mut headers = NatsHeaders::new();
    for (name, values) in message.headers.iter() {
        values.iter().cloned().for_each(|value| headers.append(name.clone(), value));
    }
    headers.insert("Nats-Msg-Id", format!("{}.{}", message.subject, message.sequence));
    headers.insert("Async-Dead-Subject", message.subject.as_str());
    headers.insert("Async-Dead-Reason", "the function answered 500");
    let subject = format!("jobs-dead.openfaas-fn.figlet.{id}");
    queue.js.publish_with_headers(subject, headers, message.payload).await.unwrap().await.unwrap();

    assert_eq!(replay(&queue, id.as_str()).await.code, Some(0));
    queue.holds("jobs", 1).await;
    let _worker = queue.worker(&function, &[]);
    function.receives(1).await;
    queue.empties().await;
    tokio::time::sleep(LEASE).await;
    assert_eq!(function.received().len(), 1);
}

#[tokio::test]
async fn a_letter_without_its_body_is_shown_and_not_replayed() {
    let queue = Queue::start().await;
    let mut headers = native::encode(&call());
    headers.insert("Async-Call-Id", "large");
    headers.insert("Async-Dead-Subject", "jobs.openfaas-fn.figlet.large");
    headers.insert("Async-Dead-Reason", "the function answered 500");
    headers.insert("Async-Dead-Omitted-Headers", "70000");
    headers.insert("Async-Dead-Omitted-Body", "1048000");
    let subject = "jobs-dead.openfaas-fn.figlet.large";
    queue.js.publish_with_headers(subject, headers, "".into()).await.unwrap().await.unwrap();

    let shown =
        run("kubectl-aq", &["dead", "show", "jobs", "large"], &[("nats_url", &queue.nats.url())])
            .await;
    let lines = shown.text();
    assert!(lines.contains("Omitted headers:") && lines.contains("70000 bytes"), "{lines}");
    assert!(lines.contains("Omitted body:") && lines.contains("1048000 bytes"), "{lines}");
    let ended = replay(&queue, "large").await;
    assert_eq!(ended.code, Some(1));
    let expected =
        "not replayed, 70000 bytes of headers and 1048000 bytes of body were left out of it";
    assert!(ended.stderr.contains(expected), "{}", ended.stderr);
    queue.holds("jobs", 0).await;
    queue.holds("jobs-dead", 1).await;
}
