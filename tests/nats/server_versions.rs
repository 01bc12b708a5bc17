//! The oldest nats-server that is supported, and one before it, which each program refuses.
//! `nats_release=oldest` in the environment runs all other tests on the oldest one, too.

use asyncqueue::stream::{QueueSpec, ensure_queue};
use asyncqueue_runtime::nats::server_version::OLDEST;
use test_support::{
    http::{HttpServer, Received, respond},
    nats::{NatsServer, Release},
    program::{self, Program},
};

use crate::{
    gateway::Gateway,
    support::{Queue, start_operator, start_worker},
};

async fn start(release: Release) -> NatsServer {
    let mut nats = NatsServer::prepare().of(release);
    nats.run().await;
    nats
}

/// The version that a server says it has.
async fn version(nats: &NatsServer) -> String {
    nats.client().await.server_info().version
}

/// Fails the calls whose body says so.
fn function(request: &Received) -> test_support::http::Answer {
    let status = if request.body == "fails" { 500 } else { 200 };
    respond(status, "result")
}

#[tokio::test]
async fn the_oldest_server_runs_retries_suspends_and_cancels() {
    let nats = start(Release::Oldest).await;
    assert!(version(&nats).await.starts_with(&format!("{OLDEST}.")), "tests use another version");
    let queue = Queue::start_on(nats).await;
    let function = HttpServer::answering(|request| function(&request)).await;
    let receiver = HttpServer::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    let _worker = queue.worker(&function, &[("max_retry_attempts", "2")]);

    let callback = receiver.url();
    let headers = [("x-callback-url", callback.as_str()), ("idempotency-key", "1")];
    let first = gateway.submit(&headers, "works").await;
    assert_eq!(gateway.submit(&headers, "works").await, first, "a repeat is the same call");
    assert_eq!(&receiver.receives(1).await[0].body[..], b"result");
    gateway.submit(&[], "fails").await;
    queue.holds("jobs-dead", 1).await;
    queue.empties().await;
    assert_eq!(function.received().len(), 3, "one call that works, and two attempts");

    let suspended = QueueSpec { suspended: true, ..queue.spec.clone() };
    assert!(ensure_queue(&queue.js, &suspended, false).await.unwrap().consumer.paused);
    let waiting = gateway.submit(&[], "is cancelled").await;
    let target = format!("/async-function/{waiting}");
    let status = gateway.call("GET", &target, &[], "").await;
    assert!(status.text().contains("queued"), "{}", status.text());
    assert_eq!(gateway.call("DELETE", &target, &[], "").await.status, 202);
    ensure_queue(&queue.js, &queue.spec, false).await.unwrap();
    queue.empties().await;
    assert_eq!(function.received().len(), 3, "the cancelled call did not run");
}

/// Asserts that a program ended because of its server's version.
async fn assert_refuses(program: &mut Program, nats: &NatsServer) {
    let message = format!(
        "JetStream on {} is too old: nats-server {OLDEST} or later is required, and the connected \
         server is {}. Upgrade nats-server",
        nats.url(),
        version(nats).await
    );
    let line = program.logged(&message).await;
    assert!(line.starts_with("asyncqueue-"), "{line}");
    assert_eq!(program.ended().await.code(), Some(1));
}

#[tokio::test]
async fn each_program_refuses_a_server_that_is_too_old() {
    let nats = start(Release::Unsupported).await;
    let function = HttpServer::start().await;
    let url = nats.url();
    // Neither the worker nor the gateway waits for streams first.
    let mut gateway = Gateway::start(&nats, "queues: {jobs: }", &[]).await.program;
    let mut worker = start_worker(&nats, &function, &[]);
    let (mut operator, _kubeconfig) = start_operator("http://127.0.0.1:1", &[("nats_url", &url)]);
    for program in [&mut gateway, &mut worker, &mut operator] {
        assert_refuses(program, &nats).await;
    }
    let ended = program::run("kubectl-aq", &["queues"], &[("nats_url", &url)]).await;
    assert_eq!((ended.code, ended.text().as_str()), (Some(1), ""));
    assert!(ended.stderr.contains(&format!("{OLDEST} or later is required")), "{}", ended.stderr);
}
