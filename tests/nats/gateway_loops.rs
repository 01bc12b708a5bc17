//! Requests that come back to the gateway that sent them on.

use test_support::{http::HttpServer, nats::NatsServer, wait::until};

use crate::{
    gateway::{Gateway, calls},
    support::Queue,
};

/// The setting `max_hops` by default.
const MAX_HOPS: usize = 10;

/// This gateway in a `Via`.
const OWN: &str = "1.1 asyncqueue-gateway";

/// Has a gateway read another directory.
async fn read_directory(gateway: &Gateway, directory: &str) {
    std::fs::write(gateway.directory.path(), directory).unwrap();
    gateway.program.logged("reloaded the directory").await;
}

/// How many requests a gateway has answered 508.
async fn loops_found(gateway: &Gateway) -> u64 {
    let labels = r#"{method="GET",path="/function",status="508"}"#;
    gateway.metric(&format!("http_requests_total{labels}")).await
}

#[tokio::test]
async fn a_request_that_nests_the_gateway_ends_early() {
    let nats = NatsServer::prepare();
    let gateway = Gateway::start(&nats, "functions: {}", &[]).await;
    read_directory(&gateway, &format!("functions: {{self: {{url: \"http://{}\"}}}}", gateway.addr))
        .await;
    // As much as one request of 64 KiB holds.
    let target = "/function/self".repeat(1748);
    let answer = gateway.call("GET", &target, &[], "").await;
    assert_eq!(answer.status, 508, "{}", answer.text());
    assert!(answer.text().contains("max_hops of the gateway is 10"), "{}", answer.text());
    // The one that is refused, and those that carried its answer back.
    until("all have been answered", async || {
        (loops_found(&gateway).await == MAX_HOPS as u64 + 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_loop_over_two_replicas_is_found() {
    let nats = NatsServer::prepare();
    let first = Gateway::start(&nats, "functions: {}", &[]).await;
    let upstream = format!("http://{}", first.addr);
    let second = Gateway::start(&nats, "functions: {}", &[("upstream_url", &upstream)]).await;
    let url = format!("http://{}/function/around", second.addr);
    read_directory(&first, &format!("functions: {{around: {{url: \"{url}\"}}}}")).await;
    let answer = first.call("GET", "/function/around", &[], "").await;
    assert_eq!(answer.status, 508, "{}", answer.text());
    assert_eq!(loops_found(&first).await + loops_found(&second).await, MAX_HOPS as u64 + 1);
}

#[tokio::test]
async fn a_chain_of_functions_is_bounded_by_via() {
    let (nats, function) = (NatsServer::prepare(), HttpServer::start().await);
    let directory = format!("functions: {{figlet: {{url: \"{}\"}}}}", function.url());
    let gateway = Gateway::start(&nats, &directory, &[("POD_NAMESPACE", "openfaas")]).await;
    let own = format!("{OWN}.openfaas");
    let ask = async |via: &[String]| {
        let headers: Vec<_> = via.iter().map(|value| ("Via", value.as_str())).collect();
        gateway.call("GET", "/function/figlet", &headers, "").await.status
    };
    let sent = || function.received().pop().unwrap().headers.get_all("via").iter().count();
    assert_eq!((ask(&[]).await, sent()), (200, 1));
    // A function that passes on all headers that it was sent is no loop.
    assert_eq!((ask(&vec![own.clone(); MAX_HOPS - 1]).await, sent()), (200, MAX_HOPS));
    assert_eq!(ask(&vec![own.clone(); MAX_HOPS]).await, 508);
    assert_eq!(ask(&[vec![own.clone(); MAX_HOPS].join(", ")]).await, 508);
    // Other proxies, and gateways of other installations, are not counted.
    assert_eq!(ask(&[vec!["1.1 fred"; 50].join(", "), vec![OWN; 50].join(",")]).await, 200);
    assert_eq!(function.received().len(), 3);
}

#[tokio::test]
async fn a_stored_call_begins_with_no_via() {
    let (queue, function) = (Queue::start().await, HttpServer::start().await);
    let gateway = Gateway::before(&queue, &[]).await;
    gateway.submit(&[("Via", &vec![OWN; 50].join(","))], "hi").await;
    assert!(!calls(&queue).await[0].headers.contains_key("via"));
    // Its worker calls it through the gateway, which enters itself.
    let url = format!("http://{}", gateway.addr);
    let directory =
        format!("queues: {{jobs: }}\nfunctions: {{figlet: {{url: \"{}\"}}}}", function.url());
    read_directory(&gateway, &directory).await;
    let _worker = queue.worker(&function, &[("gateway_url", &url)]);
    assert_eq!(function.receives(1).await[0].header("via"), OWN);
}
