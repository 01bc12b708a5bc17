//! Cancellations that meet a call where no one sees it: on its way to the stream, or with a worker
//! that is silent.

use futures::StreamExt;
use test_support::{http::HttpServer, wait::until};

use crate::{
    gateway::Gateway,
    support::{LEASE, Queue},
};

#[tokio::test]
async fn cancellation_during_submission_is_before_or_after_it() {
    let (queue, function) = (Queue::start().await, HttpServer::start().await);
    let gateway = Gateway::before(&queue, &[("publish_timeout", "20s")]).await;
    queue.nats.pause().await;
    let mut submitting = gateway.connect().await;
    let head = "POST /async-function/figlet HTTP/1.1\r\nHost: g\r\nX-Call-Id: mine\r\n\
                Content-Length: 2\r\n\r\n";
    submitting.send(format!("{head}hi")).await;
    until("the call is on its way", async || {
        (gateway.metric("gateway_publishes_in_flight").await == 1).then_some(())
    })
    .await;
    let mut cancelling = gateway.connect().await;
    cancelling.send("DELETE /async-function/mine HTTP/1.1\r\nHost: g\r\n\r\n").await;
    queue.nats.resume();
    let cancelled = cancelling.response().await;
    assert_eq!(submitting.response().await.status, 202);

    let _worker = queue.worker(&function, &[]);
    gateway.submit(&[], "other").await;
    let expected: &[&str] = match cancelled.status {
        202 => &["other"],
        404 => &["hi", "other"],
        other => panic!("{other}: {}", cancelled.text()),
    };
    function.receives(expected.len()).await;
    queue.empties().await;
    let bodies: Vec<_> = function.received().into_iter().map(|request| request.body).collect();
    assert_eq!(bodies, expected);
}

#[tokio::test]
async fn cancelled_call_of_an_unresponsive_worker_is_not_redelivered() {
    let (queue, function) = (Queue::start().await, HttpServer::start().await);
    let gateway = Gateway::before(&queue, &[]).await;
    let id = gateway.submit(&[], "hi").await;
    let mut consumer = queue.consumer().await;
    let delivered =
        consumer.fetch().max_messages(1).messages().await.unwrap().next().await.unwrap().unwrap();
    let cancel = async || gateway.call("DELETE", &format!("/async-function/{id}"), &[], "").await;
    let begun = std::time::Instant::now();
    let answer = cancel().await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, "1"));
    assert!(answer.text().contains("not confirmed"), "{}", answer.text());
    until("the cancellation is certain", async || (cancel().await.status == 202).then_some(()))
        .await;
    assert!(begun.elapsed() >= LEASE * 2, "a worker that is only stopped could have started it");
    assert_eq!(cancel().await.status, 202);
    // Its worker is gone, and another would be given the call when the lease is over.
    drop(delivered);
    let _worker = queue.worker(&function, &[]);
    gateway.submit(&[], "other").await;
    assert_eq!(function.receives(1).await[0].body, "other");
    until("nothing is left to be delivered", async || {
        (consumer.info().await.unwrap().num_ack_pending == 0).then_some(())
    })
    .await;
    assert_eq!(function.received().len(), 1);
}
