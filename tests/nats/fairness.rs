//! The fairness of a queue that is in use is changed, and its calls continue.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use asyncqueue::{
    fairness_change::{SwitchStep, SwitchWait, switch_fairness},
    lanes::Fairness,
    stream::{QueueSpec, ensure_buckets, ensure_queue},
};
use serde_json::{Value, json};
use test_support::{
    http::{HttpServer, respond_after},
    loopback::free_port,
    program::{Ended, Program, run},
    wait::{until, until_in},
};

use crate::{
    api_server::ApiServer,
    lanes::{called, worker},
    support::{LEASE, Queue, spec},
};

/// How long a change may take: the lease of a call whose worker is gone, and lanes for all.
const CHANGED: Duration = Duration::from_secs(30);

/// Wait before the second attempt.
const RETRY_WAIT: Duration = Duration::from_secs(8);

const BOTH: [(Fairness, Fairness); 2] =
    [(Fairness::Fifo, Fairness::Function), (Fairness::Function, Fairness::Fifo)];

impl Queue {
    /// Changes the fairness. Returns how many calls begin at the first attempt, and why the change
    /// had to wait.
    pub(crate) async fn change_fairness(&self, wanted: Fairness) -> (u64, Vec<SwitchWait>) {
        let spec = QueueSpec { fairness: wanted, ..self.spec.clone() };
        let mut waits = Vec::new();
        let forgotten =
            until_in(CHANGED, "the fairness changes", async || {
                match switch_fairness(&self.js, &spec).await.unwrap() {
                    SwitchStep::Done { forgotten, .. } => Some(forgotten),
                    SwitchStep::Waiting(wait) => {
                        waits.push(wait);
                        None
                    }
                }
            })
            .await;
        (forgotten, waits)
    }

    async fn has_fairness(&self, fairness: Fairness) {
        let filters = self.consumer().await.cached_info().config.filter_subjects.clone();
        assert_eq!(!filters.is_empty(), fairness == Fairness::Function, "{filters:?}");
    }
}

/// A function that fails, a slow one, and others.
async fn functions() -> HttpServer {
    HttpServer::answering(|request| {
        let status = if request.target.contains("failing") { 503 } else { 200 };
        let is_slow = request.target.contains("slow");
        let time = if is_slow { LEASE * 4 } else { Duration::from_millis(200) };
        respond_after(time, status, "")
    })
    .await
}

/// When the failing function was called.
fn failed_at(server: &HttpServer) -> Vec<Instant> {
    let received = server.received().into_iter();
    received.filter(|call| called(call).contains("failing")).map(|call| call.at).collect()
}

#[tokio::test]
async fn a_call_that_waits_for_its_retry_keeps_attempts_and_time() {
    for (from, to) in BOTH {
        let queue = Queue::start_with(QueueSpec { fairness: from, ..spec() }).await;
        let server = functions().await;
        let retries = [("max_retry_attempts", "3"), ("initial_retry_wait", "8s")];
        let settings = [&retries[..], &[("max_retry_wait", "8s")]].concat();
        let first = worker(&queue, &server, &settings);
        queue.submit_to("failing", "hi").await;
        until("the first attempt fails", async || failed_at(&server).first().copied()).await;
        let second = worker(&queue, &server, &settings);
        second.logged("taking calls").await;
        let (forgotten, _) = queue.change_fairness(to).await;
        assert_eq!(forgotten, 0, "{to}");
        queue.has_fairness(to).await;
        queue.submit_to("other", "hi").await;
        until("a call of another function runs", async || {
            server.received().iter().any(|call| called(call).contains("other")).then_some(())
        })
        .await;
        assert_eq!(failed_at(&server).len(), 1, "the retry is not due");
        until_in(RETRY_WAIT * 4, "the call is dead", async || {
            (queue.info("jobs-dead").await.state.messages == 1).then_some(())
        })
        .await;
        let at = failed_at(&server);
        assert_eq!(at.len(), 3, "{to}");
        for pair in at.windows(2) {
            assert!(pair[1] - pair[0] >= RETRY_WAIT, "{:?}", pair[1] - pair[0]);
        }
        queue.empties().await;
        drop((first, second));
    }
}

#[tokio::test]
async fn a_call_of_a_lost_worker_begins_at_the_first_attempt() {
    let queue = Queue::start().await;
    let server = functions().await;
    let settings = [("max_retry_attempts", "2"), ("initial_retry_wait", "8s")];
    let settings = [&settings[..], &[("max_retry_wait", "8s")]].concat();
    let mut lost = worker(&queue, &server, &settings);
    queue.submit_to("failing", "hi").await;
    until("the first attempt fails", async || failed_at(&server).first().copied()).await;
    lost.logged("Invoked failing [503]").await;
    lost.kill();
    let (forgotten, waits) = queue.change_fairness(Fairness::Function).await;
    assert_eq!(forgotten, 1);
    // The call might have been running on a worker that is not connected.
    assert!(waits.iter().all(|wait| matches!(wait, SwitchWait::Lease(_))), "{waits:?}");
    let _worker = worker(&queue, &server, &settings);
    queue.holds("jobs-dead", 1).await;
    assert_eq!(failed_at(&server).len(), 3, "one attempt of the lost worker, and two");
}

#[tokio::test]
async fn calls_that_run_end_before_the_fairness_changes() {
    let queue = Queue::start().await;
    let server = HttpServer::answering(|_| respond_after(LEASE * 2, 200, "")).await;
    let _worker = worker(&queue, &server, &[("max_inflight", "3")]);
    for name in ["a", "b", "a"] {
        queue.submit_to(name, "hi").await;
    }
    server.receives(3).await;
    let (forgotten, waits) = queue.change_fairness(Fairness::Function).await;
    assert!(matches!(waits[0], SwitchWait::InFlight(_, 3)), "{waits:?}");
    assert_eq!(forgotten, 0);
    queue.empties().await;
    assert_eq!(server.received().len(), 3, "each call ran once");
}

#[tokio::test]
async fn calls_run_once_while_the_fairness_changes_under_load() {
    let queue = Queue::start().await;
    let server = HttpServer::answering(|_| respond_after(Duration::from_millis(50), 200, "")).await;
    let _workers = [0, 1, 2].map(|_| worker(&queue, &server, &[("max_inflight", "5")]));
    let calls = async {
        for number in 0..300_u32 {
            let name = format!("f{}", number % 7);
            queue.submit_to(&name, &number.to_string()).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let changes = async {
        for (_, to) in BOTH {
            tokio::time::sleep(Duration::from_millis(500)).await;
            assert_eq!(queue.change_fairness(to).await.0, 0);
            queue.has_fairness(to).await;
        }
    };
    tokio::join!(calls, changes);
    queue.empties().await;
    let mut runs = HashMap::new();
    for call in server.received() {
        *runs.entry(call.body).or_insert(0) += 1;
    }
    let twice: Vec<_> = runs.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    assert_eq!(runs.len(), 300);
}

/// Runs `kubectl aq fairness` for the queue.
async fn aq_fairness(queue: &Queue, arguments: &[&str]) -> Ended {
    let arguments = [&["fairness", "jobs"], arguments].concat();
    run("kubectl-aq", &arguments, &[("nats_url", &queue.nats.url())]).await
}

#[tokio::test]
async fn a_command_changes_the_fairness_without_an_operator() {
    let (queue, server) = (Queue::standalone().await, functions().await);
    let start = |fairness| -> Program {
        let created = [("ensure_stream", "true"), ("fairness", fairness)];
        let retries = [("max_retry_attempts", "2"), ("initial_retry_wait", "8s")];
        worker(&queue, &server, &[&created[..], &retries, &[("max_retry_wait", "8s")]].concat())
    };
    let mut before = start("fifo");
    until("the stream exists", async || queue.js.get_stream("jobs").await.ok()).await;
    queue.submit_to("failing", "hi").await;
    until("the first attempt fails", async || failed_at(&server).first().copied()).await;
    let ended = aq_fairness(&queue, &["--function"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(
        ended.text().contains("changed the fairness of the queue to function"),
        "{}",
        ended.text()
    );
    let ended = aq_fairness(&queue, &["--function"]).await;
    assert!(ended.text().contains("has fairness=function already"), "{}", ended.text());
    queue.has_fairness(Fairness::Function).await;
    before.signal("TERM");
    before.ended().await;
    let _after = start("function");
    until_in(RETRY_WAIT * 3, "the call is dead", async || {
        let stream = queue.js.get_stream("jobs-dead").await.ok()?;
        (stream.cached_info().state.messages == 1).then_some(())
    })
    .await;
    assert_eq!(failed_at(&server).len(), 2);
}

#[tokio::test]
async fn a_command_gives_up_and_the_queue_continues() {
    let (queue, server) = (Queue::standalone().await, HttpServer::start().await);
    ensure_queue(&queue.js, &queue.spec, false).await.unwrap();
    ensure_buckets(&queue.js, 1).await.unwrap();
    let slow = HttpServer::answering(|_| respond_after(Duration::from_secs(6), 200, "")).await;
    let first = worker(&queue, &slow, &[]);
    queue.submit_to("slow", "hi").await;
    slow.receives(1).await;
    let ended = aq_fairness(&queue, &["--function", "--timeout", "2s"]).await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("the queue continues as it was"), "{}", ended.stderr);
    assert!(ended.text().contains("has 1 calls in flight"), "{}", ended.text());
    queue.has_fairness(Fairness::Fifo).await;
    let _second = worker(&queue, &server, &[]);
    queue.submit_to("next", "hi").await;
    queue.empties().await;
    assert_eq!(slow.received().len() + server.received().len(), 2);
    drop(first);
}

/// As after a crash between the removal of the queue's consumer and the creation of its successor,
/// if a producer has created a lane in between.
#[tokio::test]
async fn a_lane_that_is_left_over_is_replaced_when_its_call_ends() {
    let queue = Queue::start_with(QueueSpec { fairness: Fairness::Function, ..spec() }).await;
    let server = functions().await;
    let _worker = worker(&queue, &server, &[]);
    queue.submit_to("slow", "hi").await;
    queue.ensure_lane("slow").await;
    server.receives(1).await;
    queue.js.delete_consumer_from_stream(&queue.spec.durable, &queue.spec.stream).await.unwrap();
    let fifo = QueueSpec { fairness: Fairness::Fifo, ..queue.spec.clone() };
    let error = ensure_queue(&queue.js, &fifo, false).await.unwrap_err();
    assert!(error.to_string().contains("is used with fairness=function"), "{error}");
    let (forgotten, waits) = queue.change_fairness(Fairness::Fifo).await;
    assert_eq!(forgotten, 0);
    assert!(matches!(waits[0], SwitchWait::InFlight(_, 1)), "{waits:?}");
    queue.has_fairness(Fairness::Fifo).await;
    queue.submit_to("next", "hi").await;
    queue.empties().await;
    assert_eq!(server.received().len(), 2, "each call ran once");
}

#[tokio::test]
async fn a_queue_of_an_operator_is_not_changed_by_a_command() {
    let queue = Queue::start().await;
    let ended = aq_fairness(&queue, &["--function"]).await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("belongs to AsyncQueue test/jobs: set spec.fairness"));
    queue.has_fairness(Fairness::Fifo).await;
}

#[tokio::test]
async fn the_operator_changes_the_fairness_of_a_queue_in_use() {
    let queue = Queue::standalone().await;
    let server = functions().await;
    let url = queue.nats.url();
    let address = format!("127.0.0.1:{}", free_port());
    let settings = [("nats_url", url.as_str()), ("http_addr", &address)];
    let retry =
        json!({ "maxAttempts": 2, "minBackoff": "8s", "maxBackoff": "8s", "jitter": "None" });
    let spec = |fairness| json!({ "fairness": fairness, "retry": retry, "maxInflight": 5 });
    let api = ApiServer::with_spec(spec("Fifo")).await;
    let (mut operator, _kubeconfig) = api.operator(&settings);
    until("the stream exists", async || queue.js.get_stream("jobs").await.ok()).await;
    let _worker = worker(&queue, &server, &[]);
    queue.submit_to("failing", "hi").await;
    until("the first attempt fails", async || failed_at(&server).first().copied()).await;
    queue.submit_to("slow", "hi").await;
    until("the slow call runs", async || {
        server.received().iter().any(|call| called(call).contains("slow")).then_some(())
    })
    .await;
    operator.signal("TERM");
    operator.ended().await;
    let api = ApiServer::with_spec(spec("Function")).await;
    let (operator, _kubeconfig) = api.operator(&settings);
    until_in(CHANGED * 2, "the queue has lanes", async || {
        let stream = queue.js.get_stream("jobs").await.ok()?;
        let of_queue = stream.consumer_info(&queue.spec.durable).await.ok()?;
        (!of_queue.config.filter_subjects.is_empty()).then_some(())
    })
    .await;
    operator.logged("changed the fairness of the queue to function").await;
    queue.holds("jobs-dead", 1).await;
    assert_eq!(failed_at(&server).len(), 2);
    // Calls were not delivered until a slow one had ended, and the status says so.
    let written = api.statuses();
    let is_migrating = |status: &Value| {
        let conditions = status["conditions"].as_array().into_iter().flatten();
        conditions.clone().any(|it| it["type"] == "Migrating" && it["status"] == "True")
            && conditions.clone().any(|it| it["type"] == "Suspended" && it["status"] == "True")
    };
    assert!(written.iter().any(is_migrating), "{written:?}");
    assert!(!is_migrating(written.last().unwrap()), "{written:?}");
}
