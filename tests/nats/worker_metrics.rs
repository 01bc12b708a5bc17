//! What a worker exports by function: no client adds a series.

use std::collections::BTreeSet;

use asyncqueue::{
    FunctionName,
    directory::{Directory, FunctionEntry, store::DirectoryStore},
};
use test_support::{
    http::HttpServer,
    loopback::free_port,
    raw,
    wait::{WAIT_TIMEOUT, until_in},
};

use crate::support::Queue;

/// Waits until the calls that run are exported for these functions and no others.
async fn exported(admin: &str, functions: &[&str]) {
    const NAME: &str = "queue_worker_function_invocation_inflight{";
    let expected: BTreeSet<&str> = functions.iter().copied().collect();
    until_in(WAIT_TIMEOUT, &format!("series of {functions:?}"), async || {
        let text = raw::try_request(admin.parse().unwrap(), "GET", "/metrics", &[], b"")
            .await
            .ok()?
            .text();
        let series = text.lines().filter_map(|line| line.strip_prefix(NAME));
        let names =
            series.filter_map(|line| line.split_once("function_name=\"")?.1.split_once('"'));
        (names.map(|(name, _)| name).collect::<BTreeSet<_>>() == expected).then_some(())
    })
    .await;
}

#[tokio::test]
async fn invented_functions_share_one_series() {
    let (queue, function) = (Queue::start().await, HttpServer::start().await);
    let store = DirectoryStore::open(&queue.js, 1).await.unwrap();
    let mut directory = Directory::default();
    directory
        .functions
        .insert(FunctionName::new("figlet", "openfaas-fn").unwrap(), FunctionEntry::default());
    store.sync(&directory).await.unwrap();
    let admin = format!("127.0.0.1:{}", free_port());
    let _worker = queue.worker(&function, &[("http_addr", &admin)]);
    queue.submit(|_| {}).await;
    for number in 0..200 {
        let name = FunctionName::new(&format!("invented-{number}"), "openfaas-fn").unwrap();
        queue.submit(|call| call.function = name).await;
    }
    function.receives(201).await;
    exported(&admin, &["figlet.openfaas-fn", "other"]).await;
    // Gone from the directory, and idle.
    store.sync(&Directory::default()).await.unwrap();
    exported(&admin, &["other"]).await;
}
