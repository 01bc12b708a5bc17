//! The KV buckets are created before a queue's streams, by each program that creates them: where
//! NATS has no room for all, calls that are stored can be cancelled, and go where the directory
//! says.

use async_nats::jetstream::{Context, stream::Info};
use asyncqueue::kv::Bucket;
use serde_json::json;
use test_support::{http::HttpServer, loopback::free_port, wait::until};

use crate::{
    api_server::ApiServer,
    gateway::Gateway,
    support::{Queue, start_worker},
};

/// The streams of the queue `jobs`.
const STREAMS: [&str; 3] = ["jobs", "jobs-callbacks", "jobs-dead"];

async fn info(js: &Context, stream: &str) -> Option<Info> {
    Some(js.get_stream(stream).await.ok()?.cached_info().clone())
}

/// Waits for the queue's streams. Each of these buckets is there then, and older than each of them.
async fn assert_older(queue: &Queue, buckets: &[Bucket]) {
    let mut first_stream = None;
    for name in STREAMS {
        let info =
            until(&format!("stream {name} is there"), async || info(&queue.js, name).await).await;
        first_stream = Some(first_stream.map_or(info.created, |first| info.created.min(first)));
    }
    for bucket in buckets {
        let info = info(&queue.js, &bucket.stream()).await;
        let created = info.unwrap_or_else(|| panic!("there is no bucket {}", bucket.name)).created;
        assert!(Some(created) < first_stream, "{}: {created}, {first_stream:?}", bucket.name);
    }
}

#[tokio::test]
async fn an_operator_creates_buckets_before_streams() {
    let queue = Queue::standalone().await;
    // Without functions, the operator does not write the directory, which would create the buckets,
    // too.
    let api = ApiServer::withholding("services", json!({})).await;
    let (url, admin) = (queue.nats.url(), format!("127.0.0.1:{}", free_port()));
    let (_operator, _kubeconfig) = api.operator(&[("nats_url", &url), ("http_addr", &admin)]);
    assert_older(
        &queue,
        &[&[asyncqueue::buckets::DIRECTORY][..], &asyncqueue::buckets::OF_WORKERS[..]].concat(),
    )
    .await;
}

#[tokio::test]
async fn a_gateway_creates_buckets_before_streams() {
    let queue = Queue::standalone().await;
    let _gateway =
        Gateway::start(&queue.nats, "queues: {jobs: }", &[("ensure_stream", "true")]).await;
    assert_older(
        &queue,
        &[&[asyncqueue::buckets::DIRECTORY][..], &asyncqueue::buckets::OF_WORKERS[..]].concat(),
    )
    .await;
}

#[tokio::test]
async fn a_worker_creates_buckets_before_streams() {
    let (queue, function) = (Queue::standalone().await, HttpServer::start().await);
    let _worker = start_worker(&queue.nats, &function, &[("ensure_stream", "true")]);
    assert_older(&queue, &asyncqueue::buckets::OF_WORKERS).await;
}
