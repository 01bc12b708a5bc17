//! Who stores a call ensures the lane of its function. No sweep runs here, so a call without a lane
//! would never run.

use asyncqueue::{
    CallId, IdempotencyKey, Invocation,
    dead_letters::{DeadLetters, ReplayOutcome, Selection},
    directory::{QueueEntry, QueueRoute},
    lanes::lane_name,
    submit::{SubmitOutcome, Submitter},
};
use test_support::{
    http::{HttpServer, respond},
    nats::ANSWER_TIMEOUT,
    program::run,
};

use crate::{
    drain::request,
    gateway::Gateway,
    lanes::{function, laned},
};

#[tokio::test]
async fn a_call_of_the_library_gets_its_lane() {
    let (queue, server) = (laned().await, HttpServer::start().await);
    let _worker = queue.worker(&server, &[]);
    let submitter = Submitter::new(queue.js.clone(), ANSWER_TIMEOUT);
    // All that a program without the directory knows is the name.
    let route = QueueRoute::with_default_names(queue.spec.queue.clone());
    let call = |name| Invocation::new(CallId::generate(&route.queue), function(name), "hi");
    let key: IdempotencyKey = "once".parse().unwrap();
    for stored in [
        submitter.submit(&call("a"), &route).await,
        submitter.submit_with_key(&call("b"), &key, &route).await,
        submitter.submit_generated(call("c"), &route).await,
    ] {
        assert_eq!(stored.unwrap(), SubmitOutcome::Stored);
    }
    submitter.wait_for_lanes().await;
    assert_eq!(queue.info("jobs").await.state.consumer_count, 4);
    server.receives(3).await;
    queue.empties().await;
}

#[tokio::test]
async fn a_replayed_call_gets_its_lane() {
    let queue = laned().await;
    // It fails at a worker that makes one attempt.
    let server = HttpServer::answering(|request| match request.header("x-retry-max") {
        "1" => respond(500, "no"),
        _ => respond(200, "ok"),
    })
    .await;
    let failing = queue.worker(&server, &[("max_retry_attempts", "1")]);
    for name in ["a", "b"] {
        queue.submit_to(name, "hi").await;
    }
    queue.holds("jobs-dead", 2).await;
    queue.empties().await;
    drop(failing);
    // As after ten minutes without a call.
    let stream = queue.js.get_stream("jobs").await.unwrap();
    for name in ["a", "b"] {
        stream.delete_consumer(&lane_name(&queue.spec.queue, &function(name))).await.unwrap();
    }
    let _worker = queue.worker(&server, &[]);
    let letters = DeadLetters::open(&queue.js, &queue.spec.queue, "openfaas-fn").await.unwrap();
    let first = letters.list(&Selection::Function(function("a"))).await.unwrap().remove(0);
    // The entry may be that of a queue of which only the name is known.
    let entry = QueueEntry::with_default_names(&queue.spec.queue);
    assert_eq!(letters.replay(&first, &entry).await.unwrap(), ReplayOutcome::Replayed);
    server.receives(3).await;
    let arguments = ["dead", "replay", "jobs", "--function", "b"];
    let ended = run("kubectl-aq", &arguments, &[("nats_url", &queue.nats.url())]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    server.receives(4).await;
    queue.empties().await;
}

#[tokio::test]
async fn a_drained_call_gets_its_lane() {
    let (queue, server) = (laned().await, HttpServer::start().await);
    let _worker = queue.worker(&server, &[]);
    let old = async_nats::jetstream::stream::Config {
        name: "OF_jobs".to_owned(),
        subjects: vec!["of.>".to_owned()],
        ..async_nats::jetstream::stream::Config::default()
    };
    queue.js.create_stream(old).await.unwrap();
    for (name, id) in [("a", "id-1"), ("b", "id-2")] {
        let message = request(name, id).into();
        queue.js.publish("of.0", message).await.unwrap().await.unwrap();
    }
    let arguments = ["drain", "jetstream", "--stream", "OF_jobs", "--default-queue", "jobs"];
    let ended = run("kubectl-aq", &arguments, &[("nats_url", &queue.nats.url())]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    server.receives(2).await;
    queue.empties().await;
}

#[tokio::test]
async fn a_callback_that_is_a_call_gets_its_lane() {
    let (queue, server) = (laned().await, HttpServer::start().await);
    // Its directory lists no queue, as without an operator: the queue may have lanes.
    let gateway = Gateway::start(&queue.nats, "{}", &[]).await;
    gateway.is_ready().await;
    let _worker = queue.worker(&server, &[]);
    let next = format!("http://{}/async-function/second", gateway.addr);
    let headers = [("X-Callback-Url", next.as_str())];
    let answer = gateway.call("POST", "/async-function/first", &headers, "hi").await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    server.receives(2).await;
    queue.empties().await;
    queue.holds("jobs-callbacks", 0).await;
    let stream = queue.js.get_stream("jobs").await.unwrap();
    for name in ["first", "second"] {
        let lane = lane_name(&queue.spec.queue, &function(name));
        stream.consumer_info(&lane).await.unwrap();
    }
}
