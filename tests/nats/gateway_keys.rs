//! Idempotency keys and call ids, alone and together, on one server and on three: each looks at a
//! message in another order.

use std::time::Duration;

use async_nats::jetstream::Context;
use asyncqueue::{
    CallId,
    call_id::queue_hash,
    stream::{QueueSpec, ensure_buckets, ensure_queue},
};
use futures::future::join_all;
use test_support::{
    http::HttpServer,
    nats::cluster::{NODES, NatsCluster},
    raw::RawResponse,
    wait::{WAIT_TIMEOUT, until, until_in},
};

use crate::{
    gateway::Gateway,
    support::{Queue, spec},
};

/// For a cluster of servers to create a stream.
const ELECTION: Duration = WAIT_TIMEOUT.saturating_mul(2);

/// What a client hears of a submission.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    /// 202, as the call with this id.
    Stored(String),
    /// 202 and `X-Call-Duplicate: true`, with the id of the call that was stored.
    Duplicate(String),
    /// Another status.
    Refused(u16),
}

use Heard::{Duplicate, Refused, Stored};

/// A queue `jobs` without workers, and a gateway before it.
struct Stage {
    gateway: Gateway,
    js: Context,
}

impl Stage {
    /// Submits a call of a function. An id or a key that is empty is not sent.
    async fn submit(&self, function: &str, id: &str, key: &str, body: &str) -> Heard {
        let mut headers = vec![("x-call-id", id), ("idempotency-key", key)];
        headers.retain(|(_, value)| !value.is_empty());
        let target = format!("/async-function/{function}");
        heard(&self.gateway.call("POST", &target, &headers, body).await)
    }

    async fn waiting(&self) -> u64 {
        self.js.get_stream("jobs").await.unwrap().cached_info().state.messages
    }

    /// Ends all calls.
    async fn end_all(&self) {
        self.js.get_stream("jobs").await.unwrap().purge().await.unwrap();
    }
}

fn heard(answer: &RawResponse) -> Heard {
    let id = answer.header("x-call-id").to_owned();
    match (answer.status, answer.header("x-call-duplicate")) {
        (202, "true") => Duplicate(id),
        (202, _) => Stored(id),
        (status, _) => Refused(status),
    }
}

fn id_of(heard: &Heard) -> String {
    match heard {
        Stored(id) | Duplicate(id) => id.clone(),
        Refused(status) => panic!("{status}"),
    }
}

#[tokio::test]
async fn repeats_are_known_on_one_server() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    let stage = Stage { gateway, js: queue.js.clone() };
    repeats_are_known(&stage).await;
    repeats_at_once_are_known(&stage).await;
}

#[tokio::test]
async fn repeats_are_known_on_three_servers() {
    let cluster = NatsCluster::start().await;
    let js = cluster.jetstream().await;
    let spec = QueueSpec { replicas: NODES, ..spec() };
    until_in(ELECTION, "the queue is created", async || ensure_queue(&js, &spec, false).await.ok())
        .await;
    until_in(ELECTION, "the buckets are created", async || ensure_buckets(&js, NODES).await.ok())
        .await;
    let gateway = Gateway::start_at(&cluster.url(), "queues: {jobs: }", &[]).await;
    gateway.is_ready().await;
    let stage = Stage { gateway, js };
    repeats_are_known(&stage).await;
    repeats_at_once_are_known(&stage).await;
}

async fn repeats_are_known(stage: &Stage) {
    let submit = async |function, id, key, body| stage.submit(function, id, key, body).await;
    // Neither id nor key: two calls.
    let (first, second) =
        (submit("figlet", "", "", "hi").await, submit("figlet", "", "", "hi").await);
    assert_ne!(id_of(&first), id_of(&second));
    assert_eq!(stage.waiting().await, 2);

    // A key alone.
    let key_id = id_of(&submit("figlet", "", "\"order-7\"", "hi").await);
    assert_eq!(
        key_id.parse::<CallId>().unwrap().queue_hash(),
        Some(queue_hash(&"jobs".parse().unwrap()))
    );
    assert_eq!(submit("figlet", "", "order-7", "hi").await, Duplicate(key_id.clone()));
    assert_eq!(submit("figlet", "", "order-7", "ho").await, Refused(422));
    // With the id of the answer, as after a 503.
    assert_eq!(submit("figlet", &key_id, "order-7", "hi").await, Duplicate(key_id.clone()));
    assert!(matches!(submit("cows", "", "order-7", "hi").await, Stored(id) if id != key_id));
    assert_eq!(stage.waiting().await, 4);

    // An id alone.
    let mine = || "mine".to_owned();
    for (function, body) in [("figlet", "hi"), ("figlet", "ho"), ("cows", "hi")] {
        assert_eq!(submit(function, "mine", "", body).await, Stored(mine()), "{function} {body}");
    }
    // The newest, and one that is known by its message id alone.
    for (function, body) in [("cows", "hi"), ("figlet", "ho"), ("figlet", "hi")] {
        assert_eq!(
            submit(function, "mine", "", body).await,
            Duplicate(mine()),
            "{function} {body}"
        );
    }
    assert_eq!(stage.waiting().await, 7);

    // Both: the key distinguishes calls that share an id and a body.
    for (function, key) in [("figlet", "event-1"), ("figlet", "event-2"), ("cows", "event-1")] {
        assert_eq!(
            submit(function, "chain", key, "hi").await,
            Stored("chain".to_owned()),
            "{function} {key}"
        );
    }
    for (function, key) in [("figlet", "event-1"), ("figlet", "event-2"), ("cows", "event-1")] {
        assert_eq!(
            submit(function, "chain", key, "hi").await,
            Duplicate("chain".to_owned()),
            "{function} {key}"
        );
        assert_eq!(submit(function, "chain", key, "ho").await, Refused(422), "{function} {key}");
        // An id of its own for each attempt, as some proxies make one.
        assert_eq!(
            submit(function, "attempt-2", key, "hi").await,
            Duplicate("chain".to_owned()),
            "{function} {key}"
        );
    }
    assert_eq!(stage.waiting().await, 10);

    // All have ended. What was asked for is known by the message ids alone, and not compared.
    stage.end_all().await;
    assert_eq!(submit("figlet", "", "order-7", "hi").await, Duplicate(key_id.clone()));
    assert_eq!(submit("figlet", "", "order-7", "ho").await, Duplicate(key_id.clone()));
    assert_eq!(submit("figlet", "mine", "", "hi").await, Duplicate(mine()));
    assert_eq!(submit("figlet", "chain", "event-1", "hi").await, Duplicate("chain".to_owned()));
    assert_eq!(stage.waiting().await, 0);
    assert_eq!(submit("figlet", "mine", "", "new").await, Stored(mine()));
    stage.end_all().await;
}

async fn repeats_at_once_are_known(stage: &Stage) {
    let stored = async |posts: Vec<[&str; 3]>| {
        let heard =
            join_all(posts.iter().map(|[id, key, body]| stage.submit("figlet", id, key, body)))
                .await;
        heard.iter().filter(|heard| matches!(heard, Stored(_))).count()
    };
    for (id, key) in [("", "at-once"), ("at-once", ""), ("at-once", "with-id")] {
        assert_eq!(stored(vec![[id, key, "hi"]; 20]).await, 1, "{id} {key}");
        assert_eq!(stage.waiting().await, 1);
        stage.end_all().await;
    }
    let bodies: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    assert_eq!(stored(bodies.iter().map(|body| ["shared", "", body]).collect()).await, 20);
    assert_eq!(stored(bodies.iter().map(|key| ["shared", key, "hi"]).collect()).await, 20);
    assert_eq!(stage.waiting().await, 40);
    stage.end_all().await;
}

#[tokio::test]
async fn a_key_past_the_duplicate_window_is_known_while_pending() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    let mut config = queue.info("jobs").await.config;
    config.duplicate_window = Duration::from_millis(100);
    queue.js.update_stream(config).await.unwrap();
    let stage = Stage { gateway, js: queue.js.clone() };
    let by_key = id_of(&stage.submit("figlet", "", "order-7", "hi").await);
    assert_eq!(stage.submit("figlet", "mine", "event-1", "hi").await, Stored("mine".to_owned()));
    // Another function's call with the id, which is newer.
    assert_eq!(stage.submit("cows", "mine", "", "hi").await, Stored("mine".to_owned()));
    let stored = tokio::time::Instant::now();
    until("the window has passed several times", async || {
        assert_eq!(stage.submit("figlet", "", "order-7", "hi").await, Duplicate(by_key.clone()));
        assert_eq!(
            stage.submit("figlet", "mine", "event-1", "hi").await,
            Duplicate("mine".to_owned())
        );
        (stored.elapsed() > Duration::from_millis(500)).then_some(())
    })
    .await;
    assert_eq!(stage.submit("figlet", "", "order-7", "ho").await, Refused(422));
    assert_eq!(stage.submit("figlet", "mine", "event-1", "ho").await, Refused(422));
    assert_eq!(stage.waiting().await, 3);
}

#[tokio::test]
async fn a_key_reaches_the_function_as_it_was_sent() {
    let (queue, function) = (Queue::start().await, HttpServer::start().await);
    let gateway = Gateway::before(&queue, &[]).await;
    let _worker = queue.worker(&function, &[]);
    gateway.submit(&[("idempotency-key", "\"order-7\"")], "hi").await;
    assert_eq!(function.receives(1).await[0].header("idempotency-key"), "\"order-7\"");
}

#[tokio::test]
async fn a_reused_key_is_refused_with_the_remedy() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    gateway.submit(&[("idempotency-key", "order-7")], "hi").await;
    let answer = gateway
        .call("POST", "/async-function/figlet", &[("idempotency-key", "order-7")], "ho")
        .await;
    assert_eq!((answer.status, answer.header("retry-after")), (422, ""));
    let text = answer.text();
    assert!(text.contains("Idempotency-Key `order-7` belongs to another call"), "{text}");
    assert!(text.contains("use another key"), "{text}");
    assert_eq!(gateway.metric(r#"gateway_submissions_total{outcome="key_reused"}"#).await, 1);
    // The id that was made of the key finds the call.
    let found = gateway
        .call("GET", &format!("/async-function/{}", answer.header("x-call-id")), &[], "")
        .await;
    assert_eq!((found.status, &found.json()["state"]), (200, &"queued".into()));
}
