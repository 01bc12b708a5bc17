//! The directory, when its bucket is deleted and created again, and functions called in another
//! case.

use std::time::Duration;

use asyncqueue::{
    FunctionName,
    buckets::DIRECTORY,
    directory::{
        Contents, Directory, FunctionEntry, MARKER, QueueEntry, store::DirectoryStore,
        watch::watch_as_writer,
    },
    stream::{Owner, QueueSpec, ensure_queue},
};
use test_support::{
    http::HttpServer,
    nats::NatsServer,
    wait::{WAIT_TIMEOUT, until},
};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    gateway::Gateway,
    support::{Queue, publish_raw},
};

/// How long clients of a directory that is not whole are watched: longer than an unchanged one
/// takes to count.
const WATCHED: Duration = Duration::from_secs(14);

/// The queue of `fast` and of nothing else.
const OWN_QUEUE: &str = "own";

/// A directory in which `fast` belongs to [`OWN_QUEUE`] and is at `url`.
fn directory(url: &str) -> Directory {
    let mut directory = Directory::default();
    for queue in ["jobs", OWN_QUEUE] {
        directory.queues.insert(queue.parse().unwrap(), QueueEntry::new(queue, queue));
    }
    let entry = FunctionEntry {
        queue: Some(OWN_QUEUE.parse().unwrap()),
        url: Some(url.to_owned()),
        ..FunctionEntry::default()
    };
    directory.functions.insert(FunctionName::new("fast", "openfaas-fn").unwrap(), entry);
    directory
}

#[tokio::test]
async fn a_bucket_is_created_where_there_are_fewer_servers_than_replicas() {
    let nats = NatsServer::start().await;
    let js = nats.jetstream().await;
    // A queue may ask for three replicas, which must not keep the directory from all others.
    for _ in 0..2 {
        let store = DIRECTORY.ensure(&js, 3).await.unwrap();
        assert_eq!(store.status().await.unwrap().info.config.num_replicas, 1);
    }
}

/// `jobs` next to [`OWN_QUEUE`].
async fn start() -> (Queue, DirectoryStore) {
    let queue = Queue::start().await;
    let owner = Owner { name: "test/own".to_owned(), uid: "2".to_owned() };
    let own = QueueSpec::new(OWN_QUEUE.parse().unwrap(), owner);
    ensure_queue(&queue.js, &own, false).await.unwrap();
    let store = DirectoryStore::open(&queue.js, 1).await.unwrap();
    (queue, store)
}

async fn start_gateway(queue: &Queue) -> Gateway {
    let gateway =
        Gateway::start(&queue.nats, "", &[("directory_file", ""), ("unknown_function", "reject")])
            .await;
    until("the gateway is ready", async || {
        (gateway.call("GET", "/readyz", &[], "").await.status == 200).then_some(())
    })
    .await;
    gateway
}

#[tokio::test]
async fn a_recreated_directory_bucket_sends_no_call_astray() {
    let (queue, store) = start().await;
    let (right, wrong) = (HttpServer::start().await, HttpServer::start().await);
    store.sync(&directory(&right.url())).await.unwrap();
    let gateway = start_gateway(&queue).await;
    let _worker = queue.worker(&wrong, &[("queue_name", OWN_QUEUE)]);
    let submit = async || {
        let answer = gateway.call("POST", "/async-function/fast", &[], "hi").await;
        assert_eq!(answer.status, 202, "{}", answer.text());
    };
    submit().await;
    right.receives(1).await;

    // Deleted, created again by another program, and written by half.
    queue.js.delete_key_value(DIRECTORY.name).await.unwrap();
    submit().await;
    let bucket = DIRECTORY.ensure(&queue.js, 1).await.unwrap();
    let (mut calls, begun) = (2, Instant::now());
    while begun.elapsed() < WATCHED {
        submit().await;
        calls += 1;
        sleep(Duration::from_millis(500)).await;
    }
    bucket.put("queue.jobs", r#"{"stream":"jobs","subject":"jobs"}"#.into()).await.unwrap();
    submit().await;
    right.receives(calls + 1).await;
    assert_eq!(
        (wrong.received().len(), queue.info("jobs").await.state.last_sequence),
        (0, before_first(&queue).await)
    );

    // Whole again, and another: both follow it.
    let elsewhere = HttpServer::start().await;
    store.sync(&directory(&elsewhere.url())).await.unwrap();
    assert!(bucket.get(MARKER).await.unwrap().is_some());
    until("calls go to the new URL", async || {
        submit().await;
        sleep(Duration::from_millis(500)).await;
        (!elsewhere.received().is_empty()).then_some(())
    })
    .await;
    assert!(wrong.received().is_empty());
}

/// The last sequence of `jobs` before its first call.
async fn before_first(queue: &Queue) -> u64 {
    queue.info("jobs").await.config.first_sequence.unwrap() - 1
}

#[tokio::test]
async fn a_writer_fills_a_recreated_bucket() {
    let (queue, store) = start().await;
    let mut seen = watch_as_writer(queue.js.clone());
    let directory = directory("http://fast:8080");
    let mut is_whole = async |whole: bool, functions: usize| {
        let seen = seen.wait_for(|seen| {
            let is_seen = |seen: &Contents| {
                (seen.is_complete, seen.directory.functions.len()) == (whole, functions)
            };
            seen.as_ref().is_some_and(is_seen)
        });
        timeout(WAIT_TIMEOUT, seen).await.unwrap().unwrap().clone().unwrap()
    };
    let empty = is_whole(false, 0).await;
    store.update(&empty, &directory).await.unwrap();
    is_whole(true, 1).await;
    queue.js.delete_key_value(DIRECTORY.name).await.unwrap();
    let store = DirectoryStore::open(&queue.js, 1).await.unwrap();
    let empty = is_whole(false, 0).await;
    store.update(&empty, &directory).await.unwrap();
    assert_eq!(*is_whole(true, 1).await.directory, directory);
}

#[tokio::test]
async fn a_function_in_upper_case_has_its_own_queue() {
    let (queue, store) = start().await;
    let function = HttpServer::start().await;
    store.sync(&directory(&function.url())).await.unwrap();
    let gateway = start_gateway(&queue).await;
    for (number, name) in ["FAST", "Fast.OPENFAAS-FN"].into_iter().enumerate() {
        let id = format!("order-{number}");
        let path = format!("/async-function/{name}");
        let answer = gateway.call("POST", &path, &[("X-Call-Id", &id)], "hi").await;
        assert_eq!(answer.status, 202, "{name}: {}", answer.text());
        let subject = format!("{OWN_QUEUE}.openfaas-fn.fast.{id}");
        let stream = queue.js.get_stream(OWN_QUEUE).await.unwrap();
        assert!(stream.direct_get_last_for_subject(&*subject).await.is_ok(), "{subject}");

        let path = format!("{path}/{id}");
        let status = gateway.call("GET", &path, &[], "").await;
        assert_eq!((status.status, &status.json()["queue"]), (200, &OWN_QUEUE.into()), "{name}");
        assert_eq!(gateway.call("DELETE", &path, &[], "").await.status, 202, "{name}");
    }
    assert_eq!(gateway.call("POST", "/function/FAST/path", &[], "hi").await.status, 200);
    assert_eq!(function.receives(1).await[0].target, "/path");
    assert_eq!(gateway.call("POST", "/async-function/FASTER", &[], "hi").await.status, 404);
}

#[tokio::test]
async fn entries_that_break_a_watch_are_passed_over() {
    let (queue, store) = start().await;
    let function = HttpServer::start().await;
    store.sync(&directory(&function.url())).await.unwrap();
    let gateway = start_gateway(&queue).await;
    gateway.is_ready().await;
    let worker = queue.worker(&function, &[]);
    worker.logged("connected to NATS at").await;
    let headers = &b"NATS/1.0\r\nno colon\r\n\r\n"[..];
    publish_raw(&queue, b"$KV.asyncqueue-directory.function.openfaas-fn.\xff", b"", b"{}").await;
    publish_raw(&queue, b"$KV.asyncqueue-directory.function.openfaas-fn.x", headers, b"{}").await;
    publish_raw(&queue, b"$KV.asyncqueue-cancelled.jobs.\xff.1", b"", b"cancelled").await;
    // A client takes longer to connect each time that a connection lasts no moment.
    for program in [&gateway.program, &worker] {
        program.logged_in(WAIT_TIMEOUT * 4, "repeatedly: polling the bucket").await;
    }
    worker.logged("bucket=\"asyncqueue-cancelled\"").await;
    // From now on the connections last.
    let cuts = || {
        let logs = [gateway.program.log(), worker.log()].concat();
        logs.iter().filter(|line| line.contains("disconnected from NATS")).count()
    };
    sleep(Duration::from_secs(5)).await;
    let before = cuts();
    // And changes arrive.
    let mut changed = directory(&function.url());
    let new = FunctionName::new("new", "openfaas-fn").unwrap();
    changed
        .functions
        .insert(new, FunctionEntry { url: Some(function.url()), ..FunctionEntry::default() });
    let (Some(entry), key) = (changed.functions.values().next(), "function.openfaas-fn.new") else {
        panic!()
    };
    let entry = serde_json::to_vec(entry).unwrap();
    let bucket = queue.js.get_key_value(DIRECTORY.name).await.unwrap();
    bucket.put(key, entry.into()).await.unwrap();
    until("the function is known", async || {
        (gateway.call("POST", "/async-function/new", &[], "hi").await.status == 202).then_some(())
    })
    .await;
    queue.submit(|_| {}).await;
    function.receives(1).await;
    assert_eq!(cuts(), before);
}
