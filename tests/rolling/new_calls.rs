//! What the worker of the last version does with calls that only this version can submit, and what
//! this version does with what that worker leaves: no call is lost, run twice or unreadable.

use std::{net::SocketAddr, time::Duration};

use async_nats::jetstream::Context;
use asyncqueue::{
    batch::sweep,
    stream::{Owner, QueueSpec, ensure_buckets, ensure_queue},
};
use jiff::Timestamp;
use serde_json::Value;
use test_support::{
    http::{HttpServer, Received, respond, respond_after},
    loopback::{at, free_port},
    nats::NatsServer,
    program::Program,
    raw::{self, RawResponse},
    versions,
    wait::{until, until_in},
};

use crate::stage::{DEAD, LEASE, QUEUE, Version, WAIT_TIMEOUT, write_directory};

/// A queue of this version with its gateway, whose workers are of either.
struct Stage {
    nats: NatsServer,
    js: Context,
    gateway: SocketAddr,
    function: HttpServer,
    receiver: HttpServer,
    folder: tempfile::TempDir,
    _gateway: Program,
}

impl Stage {
    async fn start(function: HttpServer) -> Self {
        let nats = NatsServer::start().await;
        let js = nats.jetstream().await;
        let owner = Owner { name: "rolling/jobs".to_owned(), uid: "1".to_owned() };
        let spec = QueueSpec { ack_wait: LEASE, ..QueueSpec::new(QUEUE.parse().unwrap(), owner) };
        ensure_queue(&js, &spec, false).await.unwrap();
        ensure_buckets(&js, 1).await.unwrap();
        write_directory(&js).await;
        let folder = tempfile::TempDir::with_prefix("asyncqueue-rolling-").unwrap();
        let directory = folder.path().join("directory.yaml");
        std::fs::write(&directory, format!("queues: {{{QUEUE}: }}")).unwrap();
        let (gateway, metrics) = (at(free_port()), at(free_port()));
        let settings = [
            ("nats_url", &*nats.url()),
            ("http_addr", &*gateway.to_string()),
            ("metrics_addr", &*metrics.to_string()),
            ("default_queue", QUEUE),
            ("directory_file", directory.to_str().unwrap()),
            ("unknown_function", "accept"),
        ];
        let program = Program::start("asyncqueue-gateway", &settings);
        until("the gateway is ready", async || {
            let answer = raw::try_request(gateway, "GET", "/readyz", &[], b"").await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await;
        let receiver = HttpServer::start().await;
        Self { nats, js, gateway, function, receiver, folder, _gateway: program }
    }

    fn worker(&self, version: Version) -> Program {
        self.worker_with_attempts(version, "3")
    }

    fn worker_with_attempts(&self, version: Version, attempts: &str) -> Program {
        let (url, function) = (self.nats.url(), self.function.url());
        let settings = [
            ("nats_url", &*url),
            ("queue_name", QUEUE),
            ("ack_wait", &*format!("{}s", LEASE.as_secs())),
            ("function_url", &function),
            ("http_addr", &*at(free_port()).to_string()),
            ("callback_allowed_hosts", "127.0.0.1"),
            ("max_inflight", "4"),
            ("max_retry_attempts", attempts),
            ("initial_retry_wait", "500ms"),
            ("max_retry_wait", "1s"),
            ("RUST_LOG", "info,asyncqueue_worker=debug"),
        ];
        let name = "asyncqueue-worker";
        match version {
            Version::This => Program::start(name, &settings),
            Version::Last => {
                let (folder, log) = (versions::folder(versions::LAST), self.folder.path());
                Program::start_logging_from(&folder, name, &settings, &log.join("worker.log"))
            }
        }
    }

    async fn request(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> RawResponse {
        raw::request(self.gateway, method, target, headers, body.as_bytes()).await
    }

    /// Submits a call, and returns its id.
    async fn submit(&self, headers: &[(&str, &str)], body: &str) -> String {
        let answer = self.request("POST", "/async-function/figlet", headers, body).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        answer.header("x-call-id").to_owned()
    }

    /// Submits a batch of calls with these bodies, whose callback goes to the receiver.
    async fn submit_batch(&self, id: &str, bodies: &[&str]) {
        let url = format!("{}/done", self.receiver.url());
        let headers = [("x-batch-id", id), ("x-callback-url", url.as_str())];
        let lines: Vec<_> = bodies
            .iter()
            .map(|body| serde_json::json!({"function": "figlet", "body": body}).to_string())
            .collect();
        let answer = self.request("POST", "/async-batch", &headers, &lines.join("\n")).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
    }

    async fn result(&self, id: &str) -> RawResponse {
        self.request("GET", &format!("/async-function/{id}/result"), &[], "").await
    }

    async fn batch(&self, id: &str) -> Value {
        self.request("GET", &format!("/async-batch/{id}"), &[], "").await.json()
    }

    async fn messages(&self, stream: &str) -> u64 {
        self.js.get_stream(stream).await.unwrap().cached_info().state.messages
    }

    /// Waits until no call is left. Checks that these were run, once for each time that a body is
    /// named, and that none is dead.
    async fn calls_ran(&self, bodies: &[&str]) {
        until_in(WAIT_TIMEOUT, "all calls end", async || {
            (self.messages(QUEUE).await == 0).then_some(())
        })
        .await;
        let mut ran: Vec<_> =
            self.function.received().into_iter().map(|call| text(&call)).collect();
        ran.sort();
        let mut expected = bodies.to_vec();
        expected.sort_unstable();
        assert_eq!(ran, expected);
        assert_eq!(self.messages(DEAD).await, 0);
    }
}

fn text(received: &Received) -> String {
    String::from_utf8_lossy(&received.body).into_owned()
}

fn ran_at(stage: &Stage, body: &str) -> Timestamp {
    let received = stage.function.received();
    let call = received.iter().find(|call| call.body == body).unwrap();
    Timestamp::now() - call.at.elapsed()
}

const KEEP: (&str, &str) = ("x-keep-result", "1h");

#[tokio::test]
async fn worker_of_the_last_version_runs_new_calls_once() {
    let stage = Stage::start(HttpServer::answering(|_| respond(200, "done")).await).await;
    let kept = stage.submit(&[KEEP], "kept").await;
    let delayed = stage.submit(&[("x-delay", "1h")], "delayed").await;
    stage.submit_batch("b-1", &["first", "second"]).await;
    stage.submit_batch("b-2", &["alone"]).await;
    let _worker = stage.worker(Version::Last);
    // No result is stored that could end the wait.
    let waited = stage.submit(&[("prefer", "wait=2")], "waited").await;
    // A delayed call runs at once.
    let bodies = ["kept", "delayed", "first", "second", "alone", "waited"];
    stage.calls_ran(&bodies).await;
    for call in stage.function.received() {
        assert_eq!(call.header("x-retry"), "1", "{call:?}");
        assert!(
            !call.headers.keys().any(|name| name.as_str().starts_with("async-")),
            "{:?}",
            call.headers
        );
    }
    // No result is kept, and no end is recorded.
    for id in [&kept, &waited] {
        assert_eq!(stage.result(id).await.status, 404);
    }
    assert!(stage.js.get_stream("jobs-results").await.is_err());
    let status = stage.request("GET", &format!("/async-function/{delayed}"), &[], "").await;
    assert_eq!(status.status, 404, "{}", status.text());
    assert_eq!(stage.batch("b-1").await["counts"]["pending"], 2);
    // What sweeps ends the batches, and the worker of the last version posts their callbacks.
    let later = Timestamp::now() + Duration::from_secs(120);
    sweep(&stage.js, 0, later).await.unwrap();
    let callbacks = stage.receiver.receives(2).await;
    for (id, calls) in [("b-1", 2), ("b-2", 1)] {
        let report = stage.batch(id).await;
        assert_eq!(
            (&report["state"], &report["counts"]["unknown"]),
            (&"ended".into(), &calls.into())
        );
        let callback = callbacks.iter().find(|callback| callback.header("x-batch-id") == id);
        let body: Value = serde_json::from_slice(&callback.unwrap().body).unwrap();
        assert_eq!(body, report);
    }
}

#[tokio::test]
async fn new_worker_ends_what_the_last_version_began() {
    let function = HttpServer::answering(|request| {
        let is_first = request.header("x-retry") == "1";
        if is_first { respond_after(LEASE * 20, 200, "late") } else { respond(200, "done") }
    })
    .await;
    let stage = Stage::start(function).await;
    let kept = stage.submit(&[KEEP], "kept").await;
    stage.submit_batch("b-1", &["first", "second"]).await;
    let mut last = stage.worker(Version::Last);
    stage.function.receives(3).await;
    last.kill();
    let _worker = stage.worker(Version::This);
    stage.calls_ran(&["kept", "kept", "first", "first", "second", "second"]).await;
    let result = stage.result(&kept).await;
    assert_eq!((result.status, result.text().as_str()), (200, "done"));
    let report: Value = serde_json::from_slice(&stage.receiver.receives(1).await[0].body).unwrap();
    assert_eq!(report["counts"]["done"], 2, "{report}");
}

/// A delayed call that a worker of this version has handed back once, and when it is due.
async fn handed_back() -> (Stage, Timestamp) {
    let stage = Stage::start(HttpServer::answering(|_| respond(200, "done")).await).await;
    let due = Timestamp::now() + Duration::from_secs(12);
    stage.submit(&[("x-delay", "12s")], "delayed").await;
    let mut worker = stage.worker(Version::This);
    worker.logged("scheduled: handed back").await;
    worker.signal("TERM");
    assert!(worker.ended().await.success());
    (stage, due)
}

#[tokio::test]
async fn delayed_call_that_was_handed_back_is_not_early_after_a_rollback() {
    let (stage, due) = handed_back().await;
    let _last = stage.worker(Version::Last);
    stage.calls_ran(&["delayed"]).await;
    assert!(ran_at(&stage, "delayed") >= due);
    // For it, the delivery that was handed back is an attempt.
    assert_eq!(stage.function.received()[0].header("x-retry"), "2");
}

#[tokio::test]
async fn delayed_call_without_attempts_is_a_dead_letter_after_a_rollback() {
    let (stage, due) = handed_back().await;
    let _last = stage.worker_with_attempts(Version::Last, "1");
    until_in(WAIT_TIMEOUT, "it is a dead letter", async || {
        (stage.messages(DEAD).await == 1).then_some(())
    })
    .await;
    assert!(Timestamp::now() >= due);
    assert_eq!((stage.messages(QUEUE).await, stage.function.received().len()), (0, 0));
}
