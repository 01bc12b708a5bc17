//! Batches: calls that are stored together or not at all, and report their end together.

use std::{collections::HashMap, time::Duration};

use asyncqueue::{
    batch::{BatchId, BatchMember, CallEnd, EndEffect, record_end, sweep},
    call::CallRef,
    stream::{
        Limits, QueueSpec, Removal, RemovalPolicy, ensure_buckets, ensure_queue, remove_queue,
    },
};
use jiff::Timestamp;
use serde_json::{Value, json};
use test_support::{
    http::{HttpServer, Received, respond, respond_after},
    nats::NatsServer,
    program::Program,
    raw::RawResponse,
    wait::{WAIT_TIMEOUT, until, until_in},
};
use tokio::time::sleep;

use crate::{
    gateway::{Gateway, messages},
    support::{Queue, spec},
};

/// For a test that kills programs while a batch runs.
const LONG: Duration = WAIT_TIMEOUT.saturating_mul(3);

/// How long the receiver is watched for a second callback.
const WATCH: Duration = Duration::from_secs(1);

/// The stream of the bucket of batches.
const BATCHES: &str = "KV_asyncqueue-batches";

/// A queue `jobs`, a gateway before it, a function and the receiver of callbacks.
struct Stage {
    queue: Queue,
    gateway: Gateway,
    function: HttpServer,
    receiver: HttpServer,
}

impl Stage {
    async fn start() -> Self {
        Self::start_on(Queue::start().await).await
    }

    async fn start_on(queue: Queue) -> Self {
        let gateway = Gateway::before(&queue, &[]).await;
        let (function, receiver) = (answering_as_asked().await, HttpServer::start().await);
        Self { queue, gateway, function, receiver }
    }

    fn worker(&self, settings: &[(&str, &str)]) -> Program {
        self.queue.worker(&self.function, settings)
    }

    /// Submits a batch whose callback goes to the receiver.
    async fn submit(&self, target: &str, id: &str, lines: &[Value]) -> RawResponse {
        submit_to(&self.gateway, &self.receiver, target, id, &ndjson(lines)).await
    }

    async fn status(&self, id: &str) -> Value {
        let answer = self.gateway.call("GET", &format!("/async-batch/{id}"), &[], b"").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    /// Waits for the callback, and watches that there is no other.
    async fn callback(&self) -> (Received, Value) {
        let what = "the callback arrives";
        let received = until_in(LONG, what, async || self.receiver.received().pop()).await;
        sleep(WATCH).await;
        assert_eq!(self.receiver.received().len(), 1);
        let body = serde_json::from_slice(&received.body).unwrap();
        (received, body)
    }

    /// Number of entries of batches that have not ended.
    async fn open_entries(&self) -> usize {
        let Ok(stream) = self.queue.js.get_stream(BATCHES).await else { return 0 };
        let subjects = stream.info_with_subjects("$KV.asyncqueue-batches.*.open.>").await.unwrap();
        futures::StreamExt::count(subjects).await
    }
}

/// A function that answers with the status in the body, and slowly if it asks for that.
async fn answering_as_asked() -> HttpServer {
    HttpServer::answering(|request| {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        match body.split_once(' ') {
            Some((status, "slow")) => {
                respond_after(Duration::from_secs(2), status.parse().unwrap(), "")
            }
            _ => respond(body.parse().unwrap_or(200), ""),
        }
    })
    .await
}

async fn submit_to(
    gateway: &Gateway,
    receiver: &HttpServer,
    target: &str,
    id: &str,
    body: &str,
) -> RawResponse {
    let url = format!("{}/done", receiver.url());
    let mut headers = vec![("x-callback-url", url.as_str()), ("x-batch-id", id)];
    headers.retain(|(_, value)| !value.is_empty());
    gateway.call("POST", target, &headers, body).await
}

fn ndjson(lines: &[Value]) -> String {
    let lines: Vec<_> = lines.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

/// Calls of `figlet` with these bodies.
fn calls<'a>(bodies: impl IntoIterator<Item = &'a str>) -> Vec<Value> {
    bodies.into_iter().map(|body| json!({"function": "figlet", "body": body})).collect()
}

/// Counts that are not 0.
fn counts(report: &Value) -> HashMap<String, u64> {
    let counts: HashMap<String, u64> = serde_json::from_value(report["counts"].clone()).unwrap();
    counts.into_iter().filter(|(_, count)| *count > 0).collect()
}

fn expected<const N: usize>(counts: [(&str, u64); N]) -> HashMap<String, u64> {
    counts.into_iter().map(|(state, count)| (state.to_owned(), count)).collect()
}

fn ids(answer: &RawResponse) -> Vec<String> {
    serde_json::from_value(answer.json()["calls"].clone()).unwrap()
}

#[tokio::test]
async fn callback_has_the_end_of_each_call() {
    let stage = Stage::start().await;
    let mut lines = calls(["200", "404", "500", "200"]);
    lines[3]["callId"] = "order-7".into();
    lines[3]["path"] = "/p".into();
    lines[3]["query"] = "q=1".into();
    lines[3]["headers"] = json!({"X-Own": "1"});
    let answer = stage.submit("/async-batch", "", &lines).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    let (id, call_ids) = (answer.json()["batchId"].as_str().unwrap().to_owned(), ids(&answer));
    assert_eq!((answer.header("x-batch-id"), call_ids.len()), (&*id, 4));
    assert_eq!(answer.header("location"), format!("/async-batch/{id}"));
    assert_eq!(call_ids[3], "order-7");
    stage.queue.holds("jobs", 4).await;
    let report = stage.status(&id).await;
    assert_eq!(
        (&report["state"], counts(&report)),
        (&"pending".into(), expected([("pending", 4)]))
    );

    let _worker = stage.worker(&[("max_retry_attempts", "1")]);
    let (received, body) = stage.callback().await;
    assert_eq!(counts(&body), expected([("done", 2), ("failed", 1), ("dead", 1)]));
    let ends: Vec<_> = body["calls"]
        .as_array()
        .unwrap()
        .iter()
        .map(|call| {
            (call["callId"].as_str().unwrap(), call["state"].as_str().unwrap(), &call["status"])
        })
        .collect();
    let expected: Vec<_> = call_ids
        .iter()
        .map(String::as_str)
        .zip(["done", "failed", "dead", "done"])
        .zip([200, 404, 500, 200])
        .map(|((id, state), status)| (id, state, Value::from(status)))
        .collect();
    assert_eq!(
        ends,
        expected.iter().map(|(id, state, status)| (*id, *state, status)).collect::<Vec<_>>()
    );
    assert_eq!(received.header("x-batch-id"), id);
    assert_eq!(received.header("content-type"), "application/json");
    // Of a batch that has ended, GET answers with what the callback said.
    assert_eq!(stage.status(&id).await, body);
    assert_eq!(stage.open_entries().await, 0);
    let own = stage.function.received().into_iter().find(|call| call.target == "/p?q=1").unwrap();
    assert_eq!((own.header("x-own"), own.header("x-call-id")), ("1", "order-7"));
    let again = stage.gateway.call("DELETE", &format!("/async-batch/{id}"), &[], b"").await;
    assert_eq!(again.status, 409, "{}", again.text());
    let unknown = stage.gateway.call("GET", "/async-batch/other", &[], b"").await;
    assert_eq!(unknown.status, 404, "{}", unknown.text());
}

#[tokio::test]
async fn refused_batch_stores_nothing() {
    let spec = QueueSpec { limits: Limits { max_messages: 6, ..Limits::default() }, ..spec() };
    let nats = NatsServer::start().await;
    let js = nats.jetstream().await;
    ensure_queue(&js, &spec, false).await.unwrap();
    ensure_buckets(&js, 1).await.unwrap();
    let queue = Queue { nats, js, spec };
    let directory =
        "queues: {jobs: , other: }\nfunctions: {figlet: {queue: jobs}, far: {queue: other}}";
    let settings = [("unknown_function", "reject"), ("max_payload", "1000")];
    let gateway = Gateway::start(&queue.nats, directory, &settings).await;
    gateway.is_ready().await;
    let stage = Stage {
        queue,
        gateway,
        function: HttpServer::start().await,
        receiver: HttpServer::start().await,
    };
    let named = [("x-call-id", "pending-1")];
    assert_eq!(stage.gateway.call("POST", "/async-function/figlet", &named, "a").await.status, 202);

    let line = |extra: Value| {
        let mut line = json!({"function": "figlet", "body": "b"});
        line.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        line
    };
    let good = line(json!({}));
    for (bad, status, text) in [
        (json!({"function": "other"}), 404, "line 2: function `other.openfaas-fn`"),
        (json!({"function": "a.b.c"}), 400, "line 2: function name"),
        (json!({"function": "figlet.kube-system"}), 404, "line 2: "),
        (json!({"function": "far"}), 400, "line 2: its function belongs to queue `other`"),
        (line(json!({"body": "x".repeat(1001)})), 413, "line 2: the body is larger"),
        (line(json!({"path": "/%zz"})), 400, "line 2: path: `%zz`"),
        (line(json!({"headers": {"x": "y".repeat(40_000)}})), 413, "line 2: headers"),
        (line(json!({"headers": {"X-Callback-Url": "ftp://h"}})), 400, "line 2: X-Callback-Url"),
        (line(json!({"headers": {"X-Async-Depth": "101"}})), 508, "line 2: 101 calls"),
        (line(json!({"callId": "pending-1"})), 409, "line 2: a call of the function with this"),
        (json!({"funktion": "figlet"}), 400, "line 2: it is not a call"),
    ] {
        let answer =
            stage.submit("/async-batch", "b-1", &[good.clone(), bad.clone(), good.clone()]).await;
        assert_eq!(answer.status, status, "{bad}: {}", answer.text());
        assert!(answer.text().contains(text), "{bad}: {}", answer.text());
        assert_eq!(stage.queue.info("jobs").await.state.messages, 1, "{bad}");
        assert_eq!(stage.open_entries().await, 0, "{bad}");
    }
    for (lines, status, text) in [
        (vec![], 400, "the batch is empty"),
        (vec![json!({"function": "figlet"}); 1001], 413, "more than 1000 lines"),
        (vec![good.clone(); 6], 429, "queue_full"),
    ] {
        let headers = [("accept", "application/json")];
        let answer = stage.gateway.call("POST", "/async-batch", &headers, ndjson(&lines)).await;
        assert_eq!(answer.status, status, "{}", answer.text());
        assert!(answer.text().contains(text), "{}", answer.text());
        assert_eq!(stage.queue.info("jobs").await.state.messages, 1);
        assert_eq!(stage.open_entries().await, 0);
    }
    let answer = stage.submit("/async-batch?onFailure=stop", "", std::slice::from_ref(&good)).await;
    assert!(answer.status == 400 && answer.text().contains("`stop`"), "{}", answer.text());
    // What was refused before can be stored once there is room.
    assert_eq!(stage.submit("/async-batch", "b-1", &vec![good; 5]).await.status, 202);
}

#[tokio::test]
async fn repeat_with_the_same_id_stores_nothing() {
    let stage = Stage::start().await;
    let lines = calls(["200", "201"]);
    let first = stage.submit("/async-batch", "b-1", &lines).await;
    assert_eq!(first.status, 202, "{}", first.text());
    assert_eq!(first.header("x-call-duplicate"), "");
    let repeated = async || {
        let again = stage.submit("/async-batch", "b-1", &lines).await;
        assert_eq!((again.status, again.header("x-call-duplicate")), (202, "true"));
        assert_eq!(ids(&again), ids(&first));
    };
    let other_is_refused = async || {
        let other = stage.submit("/async-batch", "b-1", &lines[..1]).await;
        assert_eq!(other.status, 422, "{}", other.text());
    };
    repeated().await;
    other_is_refused().await;
    stage.queue.holds("jobs", 2).await;
    let _worker = stage.worker(&[]);
    stage.callback().await;
    // Also after the batch has ended.
    repeated().await;
    other_is_refused().await;
    assert_eq!(stage.function.received().len(), 2);
    // Without an id, each is another batch.
    let lines = calls(["200"]);
    let answers = [
        stage.submit("/async-batch", "", &lines).await,
        stage.submit("/async-batch", "", &lines).await,
    ];
    assert_ne!(answers[0].json()["batchId"], answers[1].json()["batchId"]);
}

#[tokio::test]
async fn repeat_after_a_dead_gateway_stores_the_batch_once() {
    let stage = Stage::start().await;
    let settings = [("publish_timeout", "1s")];
    let body = ndjson(&calls(std::iter::repeat_n("200", 300)));
    for round in 0..3_u64 {
        let id = format!("b-{round}");
        let mut dying = Gateway::before(&stage.queue, &settings).await;
        let kill = async {
            sleep(Duration::from_millis(10 + 25 * round)).await;
            dying.program.signal("KILL");
        };
        let headers = [("x-batch-id", &*id)];
        let submit = dying.try_call("POST", "/async-batch", &headers, &body);
        let (_, ()) = tokio::join!(submit, kill);
        dying.program.kill();
        let other = Gateway::before(&stage.queue, &settings).await;
        until_in(LONG, "the batch is stored", async || {
            let answer = other.call("POST", "/async-batch", &headers, &body).await;
            assert!([202, 503].contains(&answer.status), "{}", answer.text());
            (answer.status == 202).then_some(())
        })
        .await;
        stage.queue.holds("jobs", 300 * (round + 1)).await;
    }
}

#[tokio::test]
async fn batch_ends_once_though_workers_die() {
    let stage = Stage::start().await;
    let _second = stage.worker(&[("max_inflight", "4")]);
    let answer = stage.submit("/async-batch", "b-1", &calls(std::iter::repeat_n("200", 400))).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    for _ in 0..4 {
        let mut dying = stage.worker(&[("max_inflight", "4")]);
        let before = stage.function.received().len();
        until("it runs calls", async || {
            (stage.function.received().len() > before + 20
                || stage.queue.info("jobs").await.state.messages == 0)
                .then_some(())
        })
        .await;
        dying.kill();
    }
    let (_, body) = stage.callback().await;
    assert_eq!((counts(&body), &body["total"]), (expected([("done", 400)]), &400.into()));
    stage.queue.empties().await;
    assert_eq!(stage.open_entries().await, 0);
}

#[tokio::test]
async fn batch_ends_once_though_nats_restarts() {
    let mut stage = Stage::start().await;
    let _worker = stage.worker(&[("max_inflight", "4")]);
    let answer = stage.submit("/async-batch", "b-1", &calls(std::iter::repeat_n("200", 400))).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    stage.function.receives(40).await;
    stage.queue.nats.restart().await;
    let (_, body) = stage.callback().await;
    assert_eq!(counts(&body), expected([("done", 400)]));
}

#[tokio::test]
async fn end_that_was_recorded_before_a_crash_counts_once() {
    let stage = Stage::start().await;
    let answer = stage.submit("/async-batch", "b-1", &calls(["200", "200"])).await;
    let sequence = stage.queue.sequence("jobs", 1).await;
    let [first, second]: [_; 2] = [0, 1].map(|index| CallRef {
        id: ids(&answer)[index].parse().unwrap(),
        sequence: sequence + index as u64,
    });
    let member = BatchMember { id: "b-1".parse().unwrap(), size: 2 };
    let record = async |call: &CallRef, end, status| {
        record_end(&stage.queue.js, &member, call, end, status).await.unwrap()
    };
    // The worker died after that, and the call is still stored.
    for _ in 0..2 {
        assert_eq!(record(&first, CallEnd::Done, 200).await, EndEffect::None);
    }
    // A replay of the call has another sequence, and does not count.
    let replay = CallRef { sequence: sequence + 9, ..first.clone() };
    record(&replay, CallEnd::Dead, 500).await;
    assert_eq!(counts(&stage.status("b-1").await), expected([("done", 1), ("pending", 1)]));
    // The last worker dies before it reports the end of the batch: the next delivery does.
    record(&second, CallEnd::Failed, 404).await;
    record(&second, CallEnd::Failed, 404).await;
    stage.queue.holds("jobs-callbacks", 1).await;
    let _worker = stage.worker(&[]);
    let (_, body) = stage.callback().await;
    assert_eq!(counts(&body), expected([("done", 1), ("failed", 1)]));
    stage.queue.empties().await;
}

#[tokio::test]
async fn cancelled_batch_reports_its_end() {
    let stage = Stage::start().await;
    let lines = calls(["200 slow", "200", "200"]);
    assert_eq!(stage.submit("/async-batch", "b-1", &lines).await.status, 202);
    // Another call with the id of one of them is not cancelled.
    let worker = stage.worker(&[("max_inflight", "1")]);
    stage.function.receives(1).await;
    let answer = stage.gateway.call("DELETE", "/async-batch/b-1", &[], b"").await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert_eq!(answer.json(), json!({"cancelled": 3, "ended": 0}));
    let (_, body) = stage.callback().await;
    assert_eq!(counts(&body), expected([("cancelled", 3)]));
    drop(worker);
    let again = stage.gateway.call("DELETE", "/async-batch/b-1", &[], b"").await;
    assert_eq!(again.status, 409, "{}", again.text());

    // A single call that shares an id with one of a batch is not cancelled with it.
    let mut lines = calls(["200"]);
    lines[0]["callId"] = "shared".into();
    assert_eq!(stage.submit("/async-batch", "b-2", &lines).await.status, 202);
    stage.gateway.submit(&[("x-call-id", "shared")], "other").await;
    let answer = stage.gateway.call("DELETE", "/async-batch/b-2", &[], b"").await;
    assert_eq!(answer.json(), json!({"cancelled": 1, "ended": 0}), "{}", answer.status);
    stage.queue.holds("jobs", 1).await;
}

#[tokio::test]
async fn failed_call_cancels_the_rest_if_asked() {
    let stage = Stage::start().await;
    let lines = calls(["200", "404", "200", "200", "200"]);
    let answer = stage.submit("/async-batch?onFailure=cancel", "b-1", &lines).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    let _worker = stage.worker(&[("max_inflight", "1")]);
    let (_, body) = stage.callback().await;
    let counts = counts(&body);
    assert_eq!(counts.get("failed"), Some(&1), "{counts:?}");
    // The slot is free while the rest is cancelled, so that one more may run.
    assert!(counts["cancelled"] >= 2, "{counts:?}");
    stage.queue.empties().await;
}

#[tokio::test]
async fn rest_is_cancelled_though_the_worker_that_cancels_is_killed() {
    const SIZE: usize = 1_000;
    let stage = Stage::start().await;
    let mut bodies = vec!["200 slow"; SIZE];
    bodies[0] = "404";
    let answer = stage.submit("/async-batch?onFailure=cancel", "b-1", &calls(bodies)).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    let mut first = stage.worker(&[("max_inflight", "1")]);
    // The record, the mark that it is stored, and some ends.
    until("the rest is being cancelled", async || (stage.open_entries().await > 20).then_some(()))
        .await;
    first.kill();
    let ended = stage.open_entries().await;
    assert!(ended < SIZE, "all calls had ended before the kill");
    assert_eq!(stage.receiver.received().len(), 0);
    let _second = stage.worker(&[("max_inflight", "1")]);
    let (_, body) = stage.callback().await;
    let counts = counts(&body);
    assert_eq!((counts.get("failed"), &body["total"]), (Some(&1), &SIZE.into()), "{counts:?}");
    // The second worker gets the failed call after the lease of the first one, and runs others.
    assert!(counts["cancelled"] > SIZE as u64 / 2, "{counts:?}");
    stage.queue.empties().await;
    assert_eq!(stage.open_entries().await, 0);
}

/// Sweeps as if so much time had passed.
async fn sweep_after(queue: &Queue, seconds: i64) {
    let now = Timestamp::from_second(Timestamp::now().as_second() + seconds).unwrap();
    sweep(&queue.js, 0, now).await.unwrap();
}

#[tokio::test]
async fn calls_without_an_end_are_found_by_the_sweep() {
    const WEEK: i64 = 7 * 24 * 3600;
    let stage = Stage::start().await;
    let purged = stage.submit("/async-batch", "purged", &calls(["200", "200"])).await;
    stage.queue.js.get_stream("jobs").await.unwrap().purge().await.unwrap();
    sweep_after(&stage.queue, 0).await;
    assert_eq!(counts(&stage.status("purged").await), expected([("pending", 2)]));
    sweep_after(&stage.queue, 120).await;
    assert_eq!(counts(&stage.status("purged").await), expected([("unknown", 2)]));
    stage.queue.holds("jobs-callbacks", 1).await;
    assert_eq!(purged.status, 202);

    // What is stored stays pending until the deadline.
    stage.submit("/async-batch", "old", &calls(["200"])).await;
    sweep_after(&stage.queue, WEEK - 60).await;
    assert_eq!(counts(&stage.status("old").await), expected([("pending", 1)]));
    sweep_after(&stage.queue, WEEK + 60).await;
    assert_eq!(counts(&stage.status("old").await), expected([("unknown", 1)]));

    // A gateway died before it stored the calls.
    let record = json!({
        "queue": "jobs", "stream": "jobs", "subject": "jobs", "digest": "",
        "submittedAt": "2026-11-29T10:11:12Z",
        "calls": [{"callId": "c-1", "function": "figlet.openfaas-fn"}],
    });
    let subject = "$KV.asyncqueue-batches.never.open.record";
    stage.queue.js.publish(subject, record.to_string().into()).await.unwrap().await.unwrap();
    sweep_after(&stage.queue, 120).await;
    let never = stage.gateway.call("GET", "/async-batch/never", &[], b"").await;
    assert_eq!(never.status, 404, "{}", never.text());

    stage.submit("/async-batch", "deleted", &calls(["200"])).await;
    stage.queue.js.delete_stream("jobs").await.unwrap();
    sweep_after(&stage.queue, 120).await;
    assert_eq!(counts(&stage.status("deleted").await), expected([("cancelled", 1)]));
    assert_eq!(stage.open_entries().await, 0);
}

/// A batch of one call is published otherwise than a larger one, and is answered in the same way.
#[tokio::test]
async fn batch_of_one_call_is_answered_as_a_larger_one() {
    for size in [1, 2] {
        let stage = Stage::start().await;
        let lines = |body: &str, id: &str| {
            let mut lines = calls(std::iter::repeat_n(body, size));
            lines[0]["callId"] = id.into();
            lines
        };
        let submit = async |batch: &str, lines: &[Value], status| {
            let answer = stage.submit("/async-batch", batch, lines).await;
            assert_eq!(answer.status, status, "{size}, {batch}: {}", answer.text());
            answer
        };
        let first = submit("b-1", &lines("200", "order-7"), 202).await;
        assert_eq!(first.header("x-call-duplicate"), "");
        let again = submit("b-1", &lines("200", "order-7"), 202).await;
        assert_eq!((again.header("x-call-duplicate"), ids(&again)), ("true", ids(&first)));
        submit("b-1", &lines("201", "order-7"), 422).await;
        let stored = messages(&stage.queue, "jobs").await;
        assert_eq!(stored.len(), size);
        let is_atomic = stored[0].headers.iter().any(|(name, _)| {
            let name: &str = name.as_ref();
            name.starts_with("Nats-Batch")
        });
        assert_eq!(is_atomic, size > 1, "{:?}", stored[0].headers);
        // A call of the function with this id is pending, then it was stored a moment ago.
        let used = submit("b-2", &lines("200", "order-7"), 409).await;
        assert!(used.text().contains("line 1: a call"), "{}", used.text());
        let _worker = stage.worker(&[]);
        let (_, body) = stage.callback().await;
        assert_eq!(counts(&body), expected([("done", size as u64)]));
        stage.queue.empties().await;
        submit("b-2", &lines("200", "order-7"), 409).await;
        assert_eq!((stage.function.received().len(), stage.open_entries().await), (size, 0));
    }
}

/// The queue has no room, and its stream is one of an earlier version.
#[tokio::test]
async fn refused_batch_of_one_call_stores_nothing() {
    let limits = Limits { max_messages: 1, ..Limits::default() };
    let queue = Queue::start_with(QueueSpec { limits, ..spec() }).await;
    let stage = Stage::start_on(queue).await;
    assert_eq!(stage.submit("/async-batch", "b-1", &calls(["200"])).await.status, 202);
    let entries = stage.open_entries().await;
    let full = stage.submit("/async-batch", "b-2", &calls(["200"])).await;
    assert_eq!(full.status, 429, "{}", full.text());
    let mut config = stage.queue.info("jobs").await.config;
    config.allow_atomic_publish = false;
    config.max_messages = 2;
    stage.queue.js.update_stream(&config).await.unwrap();
    let refused = stage.submit("/async-batch", "b-2", &calls(["200"])).await;
    assert!(refused.status == 503 && refused.text().contains("allow_atomic"), "{}", refused.text());
    assert_eq!(stage.open_entries().await, entries);
    stage.queue.holds("jobs", 1).await;
    config.allow_atomic_publish = true;
    stage.queue.js.update_stream(&config).await.unwrap();
    assert_eq!(stage.submit("/async-batch", "b-2", &calls(["200"])).await.status, 202);
}

#[tokio::test]
async fn batch_of_a_deleted_queue_ends_as_cancelled() {
    let stage = Stage::start().await;
    let answer = stage.submit("/async-batch", "b-1", &calls(["200", "200"])).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    // A batch that can't be read does not keep the sweep from the others.
    let broken = "$KV.asyncqueue-batches.a-broken.open.record";
    stage.queue.js.publish(broken, "?".into()).await.unwrap().await.unwrap();
    let removal = remove_queue(&stage.queue.js, &stage.queue.spec, RemovalPolicy::Delete).await;
    assert!(matches!(removal, Ok(Removal::Deleted)), "{removal:?}");
    sweep_after(&stage.queue, 120).await;
    let report = stage.status("b-1").await;
    assert_eq!(
        (&report["state"], counts(&report)),
        (&"ended".into(), expected([("cancelled", 2)]))
    );
    // No worker is left to post its callback.
    assert_eq!((stage.open_entries().await, stage.receiver.received().len()), (1, 0));
}

#[tokio::test]
async fn stream_of_an_earlier_version_takes_no_batches_yet() {
    let stage = Stage::start().await;
    let mut config = stage.queue.info("jobs").await.config;
    assert!(config.allow_atomic_publish);
    config.allow_atomic_publish = false;
    stage.queue.js.update_stream(&config).await.unwrap();
    let answer = stage.submit("/async-batch", "b-1", &calls(["200"])).await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.text().contains("allow_atomic"), "{}", answer.text());
    // What ensures the streams allows it.
    ensure_queue(&stage.queue.js, &stage.queue.spec, false).await.unwrap();
    let id: BatchId = "b-1".parse().unwrap();
    assert_eq!(stage.submit("/async-batch", id.as_str(), &calls(["200"])).await.status, 202);
}
