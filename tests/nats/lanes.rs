//! A queue whose functions have lanes: the backlog of one function does not delay the others.

use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::{Info, PullConsumer};
use asyncqueue::{
    CallId, FunctionName,
    directory::QueueEntry,
    lanes::{Fairness, LaneOutcome, Sweeper, ensure_lane, lane_name},
    message::native,
    stream::{QueueSpec, ensure_buckets, ensure_queue},
};
use futures::TryStreamExt;
use serde_json::json;
use test_support::{
    http::{HttpServer, Received, respond_after},
    loopback::free_port,
    nats::NatsServer,
    program::Program,
    wait::{until, until_in},
};

use crate::{
    api_server::ApiServer,
    gateway::Gateway,
    support::{LEASE, Queue, call, callback_at, spec},
};

/// How long a message that no consumer takes may wait for its lane.
pub(crate) const SWEPT: Duration = Duration::from_secs(30);

/// A queue with lanes.
pub(crate) async fn laned() -> Queue {
    Queue::start_with(QueueSpec { fairness: Fairness::Function, ..spec() }).await
}

pub(crate) fn function(name: &str) -> FunctionName {
    FunctionName::new(name, "openfaas-fn").unwrap()
}

impl Queue {
    pub(crate) async fn start_with(spec: QueueSpec) -> Self {
        let nats = NatsServer::start().await;
        let js = nats.jetstream().await;
        ensure_queue(&js, &spec, false).await.unwrap();
        ensure_buckets(&js, 1).await.unwrap();
        Self { nats, js, spec }
    }

    /// Stores a call of this function, and ensures its lane, as producers do.
    pub(crate) async fn submit_to(&self, name: &str, body: &str) -> CallId {
        let id = self
            .submit(|call| {
                call.function = function(name);
                call.body = body.to_owned().into();
            })
            .await;
        self.ensure_lane(name).await;
        id
    }

    pub(crate) async fn ensure_lane(&self, name: &str) -> LaneOutcome {
        let QueueSpec { queue, stream, subject, .. } = &self.spec;
        let entry = QueueEntry::new(stream, subject);
        let route = entry.route_of_unknown_fairness(queue.clone());
        ensure_lane(&self.js, &route, &function(name)).await.unwrap()
    }

    /// Stores a call of this function as a program that knows no lanes does.
    pub(crate) async fn publish_to(&self, name: &str) {
        let mut call = call();
        call.function = function(name);
        let subject = format!("{}.openfaas-fn.{name}.{}", self.spec.subject, call.call_id);
        let (headers, body) = (native::encode(&call), call.body.clone());
        self.js.publish_with_headers(subject, headers, body).await.unwrap().await.unwrap();
    }

    async fn lanes(&self) -> Vec<Info> {
        let stream = self.js.get_stream(&self.spec.stream).await.unwrap();
        let all: Vec<Info> = stream.consumers().try_collect().await.unwrap();
        all.into_iter().filter(|info| info.name != self.spec.durable).collect()
    }

    pub(crate) async fn lane_names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.lanes().await.into_iter().map(|info| info.name).collect();
        names.sort();
        names
    }
}

/// Suspends a queue with lanes, or resumes it, as the operator does.
pub(crate) async fn suspend(queue: &Queue, suspended: bool) {
    let spec = QueueSpec { suspended, ..queue.spec.clone() };
    ensure_queue(&queue.js, &spec, false).await.unwrap();
    Sweeper::new(queue.js.clone(), &spec).sweep().await.unwrap();
}

/// The function that a request calls.
pub(crate) fn called(received: &Received) -> String {
    received.headers["host"].to_str().unwrap().to_owned() + &received.target
}

/// A worker of which each function has a path of its own at this server.
pub(crate) fn worker(queue: &Queue, server: &HttpServer, settings: &[(&str, &str)]) -> Program {
    let url = format!("{}/{{function}}", server.url());
    let mut all = vec![("function_url", url.as_str())];
    all.extend_from_slice(settings);
    queue.worker(server, &all)
}

/// When the server received the last call of this function.
fn last_call_of(server: &HttpServer, name: &str) -> Option<Instant> {
    let calls = server.received();
    calls.iter().filter(|call| called(call).contains(name)).map(|call| call.at).max()
}

#[tokio::test]
async fn a_backlog_of_one_function_does_not_delay_others() {
    let queue = laned().await;
    let server = HttpServer::answering(|_| respond_after(Duration::from_millis(20), 200, "")).await;
    for number in 0..400 {
        queue.submit_to("heavy", &number.to_string()).await;
    }
    let worker = worker(&queue, &server, &[("max_inflight", "2")]);
    server.receives(10).await;
    // A lane that did not exist before, then one that is idle.
    for round in 0..3 {
        let begun = Instant::now();
        queue.submit_to("light", "hi").await;
        until("the light call runs", async || {
            last_call_of(&server, "light").filter(|at| *at > begun)
        })
        .await;
        println!("round {round}: {:?} after it was stored", begun.elapsed());
    }
    assert!(queue.info(&queue.spec.stream).await.state.messages > 50, "no backlog was left");
    queue.empties().await;
    assert_eq!(server.received().len(), 403);
    assert!(server.most_running() <= 2, "{}", server.most_running());
    drop(worker);
}

#[tokio::test]
async fn two_workers_run_each_call_of_many_lanes_once() {
    let queue = laned().await;
    let server = HttpServer::answering(|_| respond_after(Duration::from_millis(5), 200, "")).await;
    let _workers =
        [worker(&queue, &server, &[("max_inflight", "3")]), worker(&queue, &server, &[])];
    for number in 0..300 {
        queue.submit_to(&format!("f{}", number % 30), &number.to_string()).await;
    }
    queue.empties().await;
    let mut bodies: Vec<_> = server.received().into_iter().map(|call| call.body).collect();
    bodies.sort();
    let calls = bodies.len();
    bodies.dedup();
    assert_eq!((bodies.len(), calls), (300, 300));
    assert_eq!(queue.lanes().await.len(), 30);
}

#[tokio::test]
async fn a_slow_call_does_not_keep_calls_from_other_workers() {
    let queue = laned().await;
    let slow = |request: Received| {
        let delay = if request.target.contains("slow") { 8_000 } else { 1 };
        respond_after(Duration::from_millis(delay), 200, "")
    };
    let server = HttpServer::answering(slow).await;
    let names = ["slow", "a", "b", "c", "d"];
    for name in names {
        queue.submit_to(name, "first").await;
    }
    let _busy = [worker(&queue, &server, &[]), worker(&queue, &server, &[])];
    // Both have asked all lanes; one has the slow call.
    until("four calls have ended", async || (server.received().len() >= 5).then_some(())).await;
    let begun = Instant::now();
    for name in &names[1..] {
        queue.submit_to(name, "second").await;
    }
    until("they run at the other worker", async || (server.received().len() >= 9).then_some(()))
        .await;
    println!("after {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(5), "they waited for the slow call");
    queue.empties().await;
    assert_eq!(server.received().len(), 9);
}

#[tokio::test]
async fn calls_of_programs_without_lanes_are_found() {
    let queue = laned().await;
    let server = HttpServer::start().await;
    let _worker = worker(&queue, &server, &[]);
    queue.submit_to("known", "hi").await;
    queue.publish_to("unknown").await;
    let mut sweeper = Sweeper::new(queue.js.clone(), &queue.spec);
    let mut changes = Vec::new();
    while changes.is_empty() {
        changes = sweeper.sweep().await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("{changes:?}");
    server.receives(2).await;
    queue.empties().await;
    // What is no call of a function has a consumer too.
    let publish = async |subject: &str| {
        let message = r#"{"Function":"f","Body":"aGk=","Header":{},"Host":"h","Method":"POST"}"#;
        queue.js.publish(subject.to_owned(), message.into()).await.unwrap().await.unwrap();
    };
    publish("jobs").await;
    publish("jobs.a").await;
    queue.empties().await;
}

#[tokio::test]
async fn a_lane_removed_under_load_comes_back() {
    let (queue, server) = (Queue::standalone().await, HttpServer::start().await);
    let settings = [("ensure_stream", "true"), ("fairness", "function"), ("ack_wait", "3s")];
    let _worker = worker(&queue, &server, &settings);
    until("the consumer exists", async || queue.js.get_stream("jobs").await.ok()).await;
    let removed = lane_name(&queue.spec.queue, &function("f1"));
    for number in 0..200 {
        queue.submit_to(&format!("f{}", number % 4), &number.to_string()).await;
        if number == 100 {
            let stream = queue.js.get_stream("jobs").await.unwrap();
            stream.delete_consumer(&removed).await.unwrap();
            for _ in 0..20 {
                queue.publish_to("f1").await;
            }
        }
    }
    until_in(SWEPT * 2, "each call ran", async || {
        (queue.info("jobs").await.state.messages == 0).then_some(())
    })
    .await;
    assert!(server.received().len() >= 220, "{}", server.received().len());
}

#[tokio::test]
async fn calls_stored_directly_get_a_lane_within_30_seconds() {
    let (queue, server) = (Queue::standalone().await, HttpServer::start().await);
    let worker = worker(&queue, &server, &[("ensure_stream", "true"), ("fairness", "function")]);
    until("the stream exists", async || queue.js.get_stream("jobs").await.ok()).await;
    worker.logged("pulling from lanes").await;
    let begun = Instant::now();
    queue.publish_to("direct").await;
    until_in(SWEPT, "the call runs", async || last_call_of(&server, "direct")).await;
    println!("it ran after {:?}", begun.elapsed());
    let log = worker.logged("created lane jobs-fn-openfaas-fn=direct").await;
    assert!(log.contains("jobs.openfaas-fn.direct.*"), "{log}");
}

#[tokio::test]
async fn functions_beyond_the_maximum_share_lanes() {
    let queue = laned().await;
    let server = HttpServer::start().await;
    for number in 0..120 {
        queue.submit_to(&format!("f{number}"), "hi").await;
    }
    assert_eq!(queue.ensure_lane("f119").await, LaneOutcome::AtMaximum);
    assert_eq!(queue.lanes().await.len(), 90);
    let mut sweeper = Sweeper::new(queue.js.clone(), &queue.spec);
    assert_eq!(sweeper.sweep().await.unwrap(), Vec::<String>::new());
    assert_eq!(sweeper.sweep().await.unwrap().len(), 1);
    assert_eq!(sweeper.sweep().await.unwrap(), Vec::<String>::new());
    // A function that comes later has another one: the first does not see its stored calls.
    queue.submit_to("late", "hi").await;
    sweeper.sweep().await.unwrap();
    assert_eq!(sweeper.sweep().await.unwrap().len(), 1);
    let names = queue.lane_names().await;
    assert_eq!(names[..2], ["jobs-fn-=1", "jobs-fn-=2"]);
    assert_eq!(names.len(), 92);
    let _worker = worker(&queue, &server, &[("max_inflight", "5")]);
    server.receives(121).await;
    queue.empties().await;
}

#[tokio::test]
async fn a_suspended_queue_pauses_all_lanes_and_new_ones() {
    let queue = laned().await;
    let server = HttpServer::start().await;
    let _worker = worker(&queue, &server, &[]);
    queue.submit_to("a", "hi").await;
    server.receives(1).await;
    suspend(&queue, true).await;
    queue.submit_to("a", "hi").await;
    queue.submit_to("b", "hi").await;
    tokio::time::sleep(LEASE * 2).await;
    assert_eq!(server.received().len(), 1);
    assert!(queue.lanes().await.iter().all(|lane| lane.paused));
    suspend(&queue, false).await;
    server.receives(3).await;
    queue.empties().await;
}

#[tokio::test]
async fn only_a_lane_without_calls_is_removed() {
    let queue = laned().await;
    let server = HttpServer::start().await;
    queue.submit_to("waiting", "hi").await;
    for name in ["ended", "shared"] {
        queue.submit_to(name, "hi").await;
    }
    let idle = Duration::from_secs(1);
    let mut sweeper = Sweeper::new(queue.js.clone(), &queue.spec).keeping_lanes_for(idle);
    tokio::time::sleep(idle * 2).await;
    assert_eq!(sweeper.sweep().await.unwrap(), Vec::<String>::new());
    // Its calls end elsewhere.
    let stream = queue.js.get_stream("jobs").await.unwrap();
    stream.purge().filter("jobs.openfaas-fn.ended.*").await.unwrap();
    assert_eq!(sweeper.sweep().await.unwrap(), ["removed unused lane jobs-fn-openfaas-fn=ended"]);
    // It comes back, while a worker pulls from all lanes.
    let _worker = worker(&queue, &server, &[]);
    server.receives(2).await;
    queue.submit_to("ended", "hi").await;
    server.receives(3).await;
    queue.empties().await;
    tokio::time::sleep(idle * 2).await;
    sweeper.sweep().await.unwrap();
    assert_eq!(queue.lanes().await.len(), 0);
    queue.submit_to("ended", "hi").await;
    server.receives(4).await;
}

#[tokio::test]
async fn lanes_follow_a_changed_lease() {
    let queue = laned().await;
    queue.submit_to("a", "hi").await;
    let spec = QueueSpec { ack_wait: LEASE * 3, ..queue.spec.clone() };
    ensure_queue(&queue.js, &spec, false).await.unwrap();
    Sweeper::new(queue.js.clone(), &spec).sweep().await.unwrap();
    assert_eq!(queue.lanes().await[0].config.ack_wait, LEASE * 3);
}

#[tokio::test]
async fn a_program_does_not_start_on_the_other_fairness() {
    for (used, wanted) in [("fifo", "function"), ("function", "fifo")] {
        let (queue, server) = (Queue::standalone().await, HttpServer::start().await);
        let started = |fairness| {
            worker(&queue, &server, &[("ensure_stream", "true"), ("fairness", fairness)])
        };
        let first = started(used);
        until("the stream exists", async || queue.js.get_stream("jobs").await.ok()).await;
        let message = r#"{"Function":"f","Body":"aGk=","Header":{},"Host":"h","Method":"POST"}"#;
        queue.js.publish("jobs", message.into()).await.unwrap().await.unwrap();
        server.receives(1).await;
        queue.empties().await;
        let mut second = started(wanted);
        assert!(!second.ended().await.success());
        let log = second.logged("is used with fairness=").await;
        assert!(log.contains(&format!("fairness={used}, and fairness={wanted} is set")), "{log}");
        drop(first);
    }
}

#[tokio::test]
async fn an_unused_consumer_takes_the_wanted_fairness() {
    // A gateway that knows of no lanes has created the stream.
    let queue = Queue::start().await;
    queue.publish_to("a").await;
    let spec = QueueSpec { fairness: Fairness::Function, ..queue.spec.clone() };
    let ensured = ensure_queue(&queue.js, &spec, false).await.unwrap();
    assert_eq!(ensured.consumer.config.filter_subjects.len(), 4);
    assert_eq!(queue.ensure_lane("a").await, LaneOutcome::Created);
    let server = HttpServer::start().await;
    let _worker = worker(&queue, &server, &[]);
    server.receives(1).await;
    queue.empties().await;
}

/// Changes the fairness of a suspended queue, which then runs the calls that were waiting.
async fn changes_fairness(from: Fairness, to: Fairness) {
    let queue = Queue::start_with(QueueSpec { fairness: from, ..spec() }).await;
    let server = HttpServer::answering(|_| respond_after(Duration::from_secs(1), 200, "")).await;
    let worker = worker(&queue, &server, &[("max_inflight", "2")]);
    let ensure = async |fairness, suspended| {
        let spec = QueueSpec { fairness, suspended, ..queue.spec.clone() };
        let ensured = ensure_queue(&queue.js, &spec, false).await;
        Sweeper::new(queue.js.clone(), &spec).sweep().await.unwrap();
        ensured.map(|ensured| ensured.changes)
    };
    for name in ["a", "b", "a", "b", "a", "b"] {
        queue.submit_to(name, "hi").await;
    }
    server.receives(2).await;
    ensure(from, true).await.unwrap();
    let error = ensure(to, true).await.unwrap_err();
    assert!(error.to_string().contains("`kubectl aq fairness`"), "{error}");
    until("the running calls have ended", async || {
        (queue.info("jobs").await.state.messages <= 4).then_some(())
    })
    .await;
    // Those that were delivered after the suspension began have ended too.
    until_in(SWEPT, "the fairness changes", async || ensure(to, true).await.ok()).await;
    let left = queue.info("jobs").await.state.messages;
    assert!(left > 0, "no call was waiting");
    queue.submit_to("late", "hi").await;
    for name in ["a", "b"] {
        queue.ensure_lane(name).await;
    }
    ensure(to, false).await.unwrap();
    queue.empties().await;
    assert_eq!(server.received().len(), 7, "each call ran once");
    drop(worker);
}

#[tokio::test]
async fn a_suspended_queue_gets_lanes_without_losing_calls() {
    changes_fairness(Fairness::Fifo, Fairness::Function).await;
}

#[tokio::test]
async fn a_suspended_queue_loses_its_lanes_and_no_call() {
    changes_fairness(Fairness::Function, Fairness::Fifo).await;
}

#[tokio::test]
async fn the_operator_sweeps_lanes_and_suspends_them() {
    let nats = NatsServer::start().await;
    let queue = Queue { js: nats.jetstream().await, spec: spec(), nats };
    let server = HttpServer::start().await;
    let url = queue.nats.url();
    let address = format!("127.0.0.1:{}", free_port());
    let settings = [("nats_url", url.as_str()), ("http_addr", &address)];
    let api = ApiServer::with_spec(json!({ "fairness": "Function" })).await;
    let (operator, _kubeconfig) = api.operator(&settings);
    until("the stream exists", async || queue.js.get_stream("jobs").await.ok()).await;
    queue.publish_to("direct").await;
    let _worker = worker(&queue, &server, &[]);
    until_in(SWEPT, "the call runs", async || last_call_of(&server, "direct")).await;
    let entry = until("the directory has the queue", async || {
        let bucket = queue.js.get_key_value("asyncqueue-directory").await.ok()?;
        bucket.get("queue.jobs").await.ok()?
    })
    .await;
    assert!(String::from_utf8_lossy(&entry).contains(r#""fairness":"Function""#), "{entry:?}");
    drop(operator);
    // Another one, for which the queue is suspended.
    let spec = json!({ "fairness": "Function", "suspend": true });
    let api = ApiServer::with_spec(spec).await;
    let (_operator, _kubeconfig) = api.operator(&settings);
    until_in(SWEPT, "the lane is paused", async || {
        queue.lanes().await.iter().all(|lane| lane.paused).then_some(())
    })
    .await;
}

#[tokio::test]
async fn status_and_cancellation_know_the_lane_of_a_call() {
    let queue = laned().await;
    let gateway = Gateway::start(&queue.nats, "queues: {jobs: {fairness: Function}}", &[]).await;
    gateway.is_ready().await;
    let submit = async |name: &str| {
        let answer = gateway.call("POST", &format!("/async-function/{name}"), &[], "hi").await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        answer.header("x-call-id").to_owned()
    };
    let state = async |id: &str| {
        let answer = gateway.call("GET", &format!("/async-function/{id}"), &[], "").await;
        serde_json::from_str::<serde_json::Value>(&answer.text()).unwrap()["state"].clone()
    };
    // Another lane has delivered a call that was stored later.
    let first = submit("first").await;
    until("both have lanes", async || {
        submit("second").await;
        (queue.lanes().await.len() == 2).then_some(())
    })
    .await;
    let stream = queue.js.get_stream("jobs").await.unwrap();
    let lane = lane_name(&queue.spec.queue, &function("second"));
    let consumer: PullConsumer = stream.get_consumer(&lane).await.unwrap();
    let mut messages = consumer.fetch().max_messages(1).messages().await.unwrap();
    let delivered = messages.try_next().await.unwrap().unwrap();
    assert_eq!(state(&first).await, "queued");
    let id = delivered.subject.rsplit('.').next().unwrap();
    assert_eq!(state(id).await, "delivered");
    let answer = gateway.call("DELETE", &format!("/async-function/{first}"), &[], "").await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert_eq!(state(&first).await, "cancelled");
}

#[tokio::test]
async fn dead_letters_and_retries_of_a_lane_are_as_before() {
    let queue = laned().await;
    let (server, caller) = (
        HttpServer::answering(|_| respond_after(Duration::ZERO, 503, "")).await,
        HttpServer::start().await,
    );
    let _worker = worker(&queue, &server, &[("max_retry_attempts", "3")]);
    queue
        .submit(|call| {
            call.function = function("failing");
            call.callback_url = Some(callback_at(&caller));
        })
        .await;
    queue.ensure_lane("failing").await;
    caller.receives(1).await;
    queue.empties().await;
    assert_eq!(server.received().len(), 3);
    queue.holds("jobs-dead", 1).await;
}

#[tokio::test]
async fn calls_of_a_killed_worker_run_at_another() {
    let queue = laned().await;
    let server = HttpServer::answering(|_| respond_after(Duration::from_secs(2), 200, "")).await;
    let mut killed = worker(&queue, &server, &[("max_inflight", "2")]);
    for name in ["a", "b", "c", "d"] {
        queue.submit_to(name, "hi").await;
    }
    server.receives(2).await;
    killed.kill();
    let _other = worker(&queue, &server, &[("max_inflight", "4")]);
    queue.empties().await;
    assert!(server.received().len() <= 6 + 2, "{}", server.received().len());
}

#[tokio::test]
async fn lanes_survive_a_restart_of_the_server() {
    let mut queue = laned().await;
    let server = HttpServer::answering(|_| respond_after(Duration::from_millis(50), 200, "")).await;
    let _worker = worker(&queue, &server, &[]);
    for number in 0..60 {
        queue.submit_to(&format!("f{}", number % 3), &number.to_string()).await;
    }
    server.receives(10).await;
    queue.nats.restart().await;
    queue.submit_to("f9", "after").await;
    queue.empties().await;
    assert!(last_call_of(&server, "f9").is_some());
}
