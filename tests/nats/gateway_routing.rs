//! To which queue a call goes, and what the gateway does when that changes.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use asyncqueue::directory::{Directory, FunctionEntry, QueueEntry, store::DirectoryStore};
use test_support::{
    http::{HttpServer, respond},
    nats::NatsServer,
    wait::until,
};

use crate::{
    gateway::Gateway,
    support::{Queue, spec, start_worker},
};

/// Writes a file as Kubernetes does a `ConfigMap`'s: a new one takes the place of the old.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, path).unwrap();
}

async fn pending(js: &async_nats::jetstream::Context, stream: &str) -> u64 {
    js.get_stream(stream).await.map_or(0, |stream| stream.cached_info().state.messages)
}

async fn ready(gateway: &Gateway) {
    until("the gateway is ready", async || {
        (gateway.call("GET", "/readyz", &[], "").await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_gateway_creates_streams_of_directory_file_without_operator() {
    let nats = NatsServer::start().await;
    let js = nats.jetstream().await;
    let settings = [("ensure_stream", "true")];
    let gateway = Gateway::start(&nats, "queues: {}", &settings).await;
    ready(&gateway).await;
    let cancelled = gateway.submit(&[], "cancelled").await;
    let answer = gateway.call("DELETE", &format!("/async-function/{cancelled}"), &[], "").await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    gateway.submit(&[], "default").await;
    assert_eq!(pending(&js, "jobs").await, 1);

    let directory =
        "queues: {slow: {stream: SLOW, subject: calls.slow}}\nfunctions: {figlet: {queue: slow}}";
    replace(gateway.directory.path(), directory);
    gateway.program.logged("reloaded the directory").await;
    until("the new stream is there and takes calls", async || {
        let answer = gateway.call("POST", "/async-function/figlet", &[], "slow").await;
        (answer.status == 202).then_some(())
    })
    .await;
    assert_eq!((pending(&js, "jobs").await, pending(&js, "SLOW").await), (1, 1));
}

#[tokio::test]
async fn workers_apply_retries_of_the_directory_file() {
    let nats = NatsServer::start().await;
    let js = nats.jetstream().await;
    let function = HttpServer::answering(|_| respond(503, "no")).await;
    let directory = "queues: {jobs: }\nfunctions: {figlet: {retry: {attempts: 2, minWait: 10ms}}}";
    let gateway = Gateway::start(&nats, directory, &[("ensure_stream", "true")]).await;
    ready(&gateway).await;
    let settings = [("max_retry_attempts", "5"), ("ensure_stream", "true")];
    let _worker = start_worker(&nats, &function, &settings);
    gateway.submit(&[], "hi").await;
    until("the call is dead", async || (pending(&js, "jobs-dead").await == 1).then_some(())).await;
    assert_eq!(function.received().len(), 2);

    // What is taken out of the file is taken out of the bucket.
    replace(gateway.directory.path(), "queues: {jobs: }");
    let bucket = js.get_key_value("asyncqueue-directory").await.unwrap();
    until("the function is no longer there", async || {
        bucket.get("function.openfaas-fn.figlet").await.unwrap().is_none().then_some(())
    })
    .await;
}

#[tokio::test]
async fn invalid_directory_file_keeps_the_last_valid_one() {
    let queue = Queue::start().await;
    let directory = "queues: {jobs: }\nfunctions: {figlet: {}}";
    let gateway = Gateway::start(&queue.nats, directory, &[("unknown_function", "reject")]).await;
    ready(&gateway).await;
    let valid = || gateway.metric("gateway_directory_file_valid");
    until("the file counts as valid", async || (valid().await == 1).then_some(())).await;
    for broken in ["queues: [", "functions: {figlet: {queue: lost}}"] {
        replace(gateway.directory.path(), broken);
        until("the file counts as not valid", async || (valid().await == 0).then_some(())).await;
        gateway.submit(&[], "hi").await;
        replace(gateway.directory.path(), directory);
        until("the file counts as valid", async || (valid().await == 1).then_some(())).await;
    }
    // It stays ready, and says what is wrong.
    replace(gateway.directory.path(), "queues: {asyncqueue: }");
    until("the file counts as not valid", async || (valid().await == 0).then_some(())).await;
    let readiness = gateway.call("GET", "/readyz", &[], "").await;
    let warning = "warning: directory_file: directory_file `";
    assert!(readiness.status == 200 && readiness.text().contains(warning), "{}", readiness.text());
    assert!(
        readiness.text().contains("queue name `asyncqueue` is reserved"),
        "{}",
        readiness.text()
    );
    replace(gateway.directory.path(), directory);
    until("the file counts as valid", async || (valid().await == 1).then_some(())).await;
    assert_eq!(gateway.call("GET", "/readyz", &[], "").await.text(), "ok\n");
    std::fs::remove_file(gateway.directory.path()).unwrap();
    let line = gateway.program.logged("failed to read directory_file").await;
    assert!(line.contains("using the previous contents"), "{line}");
    gateway.submit(&[], "hi").await;
    let line = gateway.program.logged("functions.figlet.queue `lost`").await;
    assert!(line.contains("line 1") && line.contains("using the previous contents"), "{line}");
    // A file that was read again and is the same is not reported.
    assert!(!gateway.program.log().iter().any(|line| line.contains("reloaded the directory")));
}

#[tokio::test]
async fn invalid_directory_file_ends_the_start_with_its_line() {
    let mut program = test_support::program::Program::start(
        "asyncqueue-gateway",
        &[("directory_file", "/does/not/exist.yaml"), ("http_addr", "127.0.0.1:0")],
    );
    assert!(!program.ended().await.success());
    program.logged("failed to read directory_file `/does/not/exist.yaml`: No such file").await;
}

#[tokio::test]
async fn calls_follow_the_last_directory_while_nats_is_unavailable() {
    let mut queue = Queue::start().await;
    let gateway =
        Gateway::start(&queue.nats, "", &[("directory_file", ""), ("unknown_function", "reject")])
            .await;
    let answer = gateway.call("POST", "/async-function/figlet", &[], "hi").await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, "5"));
    assert!(answer.text().contains("asyncqueue-directory was not read yet"), "{}", answer.text());
    let readiness = gateway.call("GET", "/readyz", &[], "").await;
    assert!(
        readiness.text().contains("directory: waiting for the KV bucket"),
        "{}",
        readiness.text()
    );

    let store = DirectoryStore::open(&queue.js, 1).await.unwrap();
    let mut directory = Directory::default();
    let entry = QueueEntry::new(&*queue.spec.stream, &*queue.spec.subject);
    directory.queues.insert(queue.spec.queue.clone(), entry);
    store.sync(&directory).await.unwrap();
    ready(&gateway).await;
    assert_eq!(gateway.call("POST", "/async-function/figlet", &[], "hi").await.status, 404);

    let json = format!(r#"{{"queue":"{}"}}"#, queue.spec.queue);
    let entry: FunctionEntry = serde_json::from_str(&json).unwrap();
    directory
        .functions
        .insert(asyncqueue::FunctionName::new("figlet", "openfaas-fn").unwrap(), entry);
    store.sync(&directory).await.unwrap();
    until("the function is known", async || {
        let answer = gateway.call("POST", "/async-function/figlet", &[], "hi").await;
        (answer.status == 202).then_some(())
    })
    .await;

    queue.nats.restart().await;
    until("calls are taken again", async || {
        let answer = gateway.call("POST", "/async-function/figlet", &[], "hi").await;
        // Known all the time.
        assert_ne!(answer.status, 404);
        (answer.status == 202).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_queue_may_take_less_than_the_gateway() {
    let queue = Queue::start().await;
    let gateway = Gateway::start(&queue.nats, "", &[("directory_file", "")]).await;
    let store = DirectoryStore::open(&queue.js, 1).await.unwrap();
    let mut directory = Directory::default();
    let entry = QueueEntry {
        max_payload: Some(10),
        ..QueueEntry::new(&*queue.spec.stream, &*queue.spec.subject)
    };
    directory.queues.insert(queue.spec.queue.clone(), entry);
    let small = FunctionEntry { queue: Some(queue.spec.queue.clone()), ..FunctionEntry::default() };
    directory
        .functions
        .insert(asyncqueue::FunctionName::new("small", "openfaas-fn").unwrap(), small);
    store.sync(&directory).await.unwrap();
    ready(&gateway).await;
    let refused = gateway.call("POST", "/async-function/small", &[], "x".repeat(11)).await;
    assert_eq!(refused.status, 413);
    assert!(refused.text().contains("limits.maxPayload of the queue"), "{}", refused.text());
    assert_eq!(
        gateway.call("POST", "/async-function/small", &[], "x".repeat(10)).await.status,
        202
    );
}

#[tokio::test]
async fn a_suspended_queue_takes_calls() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    let stream = queue.js.get_stream(&queue.spec.stream).await.unwrap();
    let in_an_hour = SystemTime::now() + Duration::from_secs(3600);
    stream.pause_consumer(&spec().durable, in_an_hour.into()).await.unwrap();
    let id = gateway.submit(&[], "hi").await;
    let answer = gateway.call("GET", &format!("/async-function/{id}"), &[], "").await;
    assert_eq!(answer.json()["state"], "queued");
}
