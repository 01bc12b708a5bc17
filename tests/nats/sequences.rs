//! Streams that never repeat a sequence, and those of an earlier version, which may.

use std::time::Duration;

use async_nats::jetstream::stream::Config;
use asyncqueue::{
    Invocation,
    stream::{
        Owner, QueueSpec, RemovalPolicy, ensure_buckets, ensure_queue, ensure_streams,
        has_unique_sequences, remove_queue,
    },
    submit::Submitter,
};
use futures::future::join_all;
use test_support::{
    http::{HttpServer, respond, respond_after},
    nats::{ANSWER_TIMEOUT, NatsServer},
};

use crate::{
    cancel::cancel_call,
    support::{LEASE, Queue, call, spec, start_worker},
};

/// How long a call runs whose worker ends late.
const LATE: Duration = Duration::from_secs(2);

/// Stores calls on `jobs`.
async fn submit_all(queue: &Queue, calls: usize) {
    for _ in 0..calls {
        queue.submit(|_| {}).await;
    }
}

/// `jobs` as the last version created it.
async fn start_earlier() -> Queue {
    let nats = NatsServer::start().await;
    let (js, spec) = (nats.jetstream().await, spec());
    for config in [spec.stream_config(), spec.callback_config(), spec.dead_letter_config()] {
        js.create_stream(config).await.unwrap();
    }
    ensure_buckets(&js, 1).await.unwrap();
    Queue { nats, js, spec }
}

/// Deletes `jobs` and creates it again, as an operator does for an AsyncQueue that is deleted and
/// applied again.
async fn recreate(queue: &mut Queue) {
    remove_queue(&queue.js, &queue.spec, RemovalPolicy::Delete).await.unwrap();
    queue.spec.owner = Owner { uid: "2".to_owned(), ..queue.spec.owner.clone() };
    ensure_queue(&queue.js, &queue.spec, false).await.unwrap();
}

#[tokio::test]
async fn calls_of_an_earlier_version_survive_the_upgrade() {
    let mut queue = start_earlier().await;
    submit_all(&queue, 10).await;
    let ensured = ensure_queue(&queue.js, &queue.spec, false).await.unwrap();
    assert_eq!(ensured.repeating, ["jobs", "jobs-callbacks", "jobs-dead"]);
    // And over an update.
    queue.spec.limits.max_messages = 500;
    ensure_queue(&queue.js, &queue.spec, false).await.unwrap();
    queue.nats.restart().await;
    let info = queue.info("jobs").await;
    assert_eq!((info.config.max_messages, info.config.first_sequence), (500, None));
    assert_eq!(
        (info.state.messages, info.state.first_sequence, info.state.last_sequence),
        (10, 1, 10)
    );
    assert!(!has_unique_sequences(&info.state));
}

#[tokio::test]
async fn calls_of_a_new_stream_survive_updates_and_restarts() {
    let mut queue = Queue::start().await;
    let empty = queue.info("jobs").await;
    let first = empty.config.first_sequence.unwrap();
    assert_eq!((empty.state.messages, empty.state.last_sequence), (0, first - 1));
    // An empty stream goes on where it was, too.
    queue.nats.restart().await;
    submit_all(&queue, 10).await;
    assert_eq!(queue.info("jobs").await.state.last_sequence, first + 9);
    // An update that says the first sequence again, as ours do, and one that omits it.
    for (said, max_messages) in [(Some(first), 500), (None, 600)] {
        let existing = queue.info("jobs").await.config;
        let update = Config { max_messages, first_sequence: said, ..existing };
        queue.js.update_stream(update).await.unwrap();
        queue.nats.restart().await;
        let info = queue.info("jobs").await;
        assert_eq!(info.config.max_messages, max_messages);
        assert_eq!((info.state.messages, info.state.first_sequence), (10, first), "said {said:?}");
    }
    // Neither is a difference to repair.
    queue.spec.limits.max_messages = 600;
    let ensured = ensure_queue(&queue.js, &queue.spec, false).await.unwrap();
    assert_eq!((ensured.repeating, ensured.changes), (vec![], vec![]));
}

#[tokio::test]
async fn creators_at_once_all_succeed() {
    let nats = NatsServer::start().await;
    for round in 0..20 {
        let owner = Owner { name: "test/jobs".to_owned(), uid: "1".to_owned() };
        let spec = QueueSpec::new(format!("jobs-{round}").parse().unwrap(), owner);
        let creators = [nats.jetstream().await, nats.jetstream().await, nats.jetstream().await];
        let ensured = join_all(creators.iter().map(|js| ensure_queue(js, &spec, false))).await;
        let streams =
            ensured.into_iter().map(|ensured| ensured.unwrap().info.config.first_sequence);
        let streams: Vec<_> = streams.collect();
        assert!(
            streams[0].is_some() && streams.iter().all(|first| *first == streams[0]),
            "{streams:?}"
        );
    }
}

#[tokio::test]
async fn a_producer_creates_consumers_with_its_streams() {
    let nats = NatsServer::start().await;
    let (js, spec) = (nats.jetstream().await, spec());
    let changes = ensure_streams(&js, &spec, false).await.unwrap();
    let created = |what: &str| {
        changes.iter().position(|change| change == &format!("created {what}")).unwrap()
    };
    assert_eq!(created("consumer jobs-workers"), created("stream jobs") + 1, "{changes:?}");
    assert_eq!(created("consumer jobs-callback-workers"), created("stream jobs-callbacks") + 1);
    assert_eq!(ensure_streams(&js, &spec, false).await.unwrap(), [""; 0]);

    // Workers may be set to another lease, or another consumer: a producer leaves both alone.
    let other = QueueSpec { ack_wait: LEASE * 2, durable: "mine".to_owned(), ..spec.clone() };
    let ensured = ensure_queue(&js, &other, false).await.unwrap();
    assert_eq!((&*ensured.consumer.name, ensured.consumer.config.ack_wait), ("mine", LEASE * 2));
    assert_eq!(ensure_streams(&js, &spec, false).await.unwrap(), [""; 0]);
}

#[tokio::test]
async fn an_unused_consumer_of_a_producer_gives_way() {
    let nats = NatsServer::start().await;
    let js = nats.jetstream().await;
    let producer = QueueSpec { owner: Owner::standalone(), ..spec() };
    ensure_streams(&js, &producer, false).await.unwrap();
    let adopted = QueueSpec { durable: "mine".to_owned(), ..spec() };
    let ensured = ensure_queue(&js, &adopted, true).await.unwrap();
    assert_eq!(ensured.consumer.name, "mine");
    assert!(
        ensured.changes.contains(&"removed unused consumer jobs-workers".to_owned()),
        "{:?}",
        ensured.changes
    );
    assert_eq!(js.get_stream("jobs").await.unwrap().cached_info().state.consumer_count, 1);
}

#[tokio::test]
async fn a_late_ack_removes_no_call_of_a_new_stream() {
    let mut queue = Queue::start().await;
    let slow = HttpServer::answering(|_| respond_after(LATE, 200, "late")).await;
    let old = queue.worker(&slow, &[("max_inflight", "1")]);
    queue.submit(|_| {}).await;
    slow.receives(1).await;
    recreate(&mut queue).await;
    // The new call is the first of its stream, as the old one was, and runs when the old worker
    // acks its own.
    let dies = HttpServer::answering(|_| respond_after(LATE * 10, 200, "never")).await;
    let mut next = start_worker(&queue.nats, &dies, &[]);
    let id = queue.submit(|call| call.body = "new".into()).await;
    dies.receives(1).await;
    old.logged("Invoked figlet [200]").await;
    tokio::time::sleep(LEASE / 3).await;
    assert_eq!(queue.info("jobs").await.state.messages, 1);
    drop(old);
    next.kill();
    let last = HttpServer::answering(|_| respond(200, "ok")).await;
    let _last = start_worker(&queue.nats, &last, &[]);
    assert_eq!(last.receives(1).await[0].header("x-call-id"), id.as_str());
    queue.empties().await;
}

#[tokio::test]
async fn an_id_that_was_cancelled_runs_on_a_new_stream() {
    let mut queue = Queue::start().await;
    let order_7 = |call: &mut Invocation| call.call_id = "order-7".parse().unwrap();
    let id = queue.submit(order_7).await;
    assert_eq!(cancel_call(&queue, &id).await.cancelled, 1);
    recreate(&mut queue).await;
    let function = HttpServer::answering(|request| match request.header("x-retry") {
        // The second delivery of a call is when a worker looks for its tombstone.
        "1" => respond(503, "no"),
        _ => respond(200, "ok"),
    })
    .await;
    let _worker = queue.worker(&function, &[]);
    let mut again = call();
    order_7(&mut again);
    let submitter = Submitter::new(queue.js.clone(), ANSWER_TIMEOUT);
    submitter.submit(&again, &queue.route()).await.unwrap();
    let received = function.receives(2).await;
    assert!(received.iter().all(|request| request.header("x-call-id") == "order-7"));
    queue.empties().await;
}
