//! HTTP as clients and servers of other makers speak it: what RFC 9110 and RFC 9112 leave to none
//! of them.

use std::time::{Duration, Instant};

use asyncqueue_runtime::server::HALF_CLOSED_WAIT;
use test_support::{
    http::{HttpServer, respond_after},
    nats::NatsServer,
    raw::Connection,
    wait::{WAIT_TIMEOUT, until},
};

use crate::{
    gateway::{Gateway, calls},
    support::Queue,
};

/// A gateway before an upstream that stores whatever it is asked for, as an existing OpenFaaS
/// would.
async fn before_upstream(upstream: &HttpServer) -> (NatsServer, Gateway) {
    let nats = NatsServer::prepare();
    let gateway = Gateway::start(&nats, "queues: {}", &[("upstream_url", &upstream.url())]).await;
    (nats, gateway)
}

#[tokio::test]
async fn a_client_that_closes_its_side_hears_that_its_call_is_stored() {
    const CLIENTS: usize = 30;
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    let ask = async || {
        let mut client = gateway.connect().await;
        client
            .send("POST /async-function/figlet HTTP/1.1\r\nHost: g\r\nContent-Length: 2\r\n\r\nhi")
            .await;
        client.close_side().await;
        client
    };
    let mut clients: Vec<Connection> = futures::future::join_all((0..CLIENTS).map(|_| ask())).await;
    for client in &mut clients {
        assert_eq!(client.response().await.status, 202);
    }
    assert_eq!(calls(&queue).await.len(), CLIENTS);
}

#[tokio::test]
async fn a_client_that_closes_its_side_hears_the_functions_answer() {
    let upstream =
        HttpServer::answering(|_| respond_after(Duration::from_millis(300), 200, "late")).await;
    let (_nats, gateway) = before_upstream(&upstream).await;
    for body in ["", "hi"] {
        let mut client = gateway.connect().await;
        let length = body.len();
        client
            .send(format!(
                "POST /function/f HTTP/1.1\r\nHost: g\r\nContent-Length: {length}\r\n\r\n{body}"
            ))
            .await;
        client.close_side().await;
        let answer = client.response().await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "late"));
    }
}

#[tokio::test]
async fn a_client_that_is_gone_ends_its_request() {
    let upstream = HttpServer::answering(|_| respond_after(WAIT_TIMEOUT * 20, 200, "never")).await;
    let (_nats, gateway) = before_upstream(&upstream).await;
    for resets in [false, true] {
        let mut client = gateway.connect().await;
        client.send("GET /function/f HTTP/1.1\r\nHost: g\r\n\r\n").await;
        until("the function runs", async || (upstream.running() == 1).then_some(())).await;
        let begun = Instant::now();
        if resets {
            client.reset();
        } else {
            drop(client);
        }
        until("the request upstream ends", async || (upstream.running() == 0).then_some(())).await;
        // One that may still read has some seconds more.
        assert_eq!(begun.elapsed() < HALF_CLOSED_WAIT, resets);
    }
}

#[tokio::test]
async fn no_path_is_passed_on_that_an_upstream_reads_as_a_call() {
    let upstream = HttpServer::start().await;
    let (_nats, gateway) = before_upstream(&upstream).await;
    for target in [
        "/%61sync-function/f",
        "/%2561sync-function/f",
        "//async-function/f",
        "/./async-function/f",
        "/system/../async-function/f",
        "/async-function%2Ff",
        "/async-function;a=b/f",
        "/\\async-function/f",
        "/function/../async-function/f",
        "/function//../async-function/f",
        "/function/f/../../async-function/g",
        "/function/f/%2e%2e/%2e%2e/async-function/g",
        "http://elsewhere//async-function/f",
    ] {
        let answer = gateway.call("POST", target, &[], "hi").await;
        assert_eq!(answer.status, 400, "{target}");
        assert!(
            answer.text().contains("other servers may interpret it differently"),
            "{}",
            answer.text()
        );
    }
    // These are calls of this gateway, whose directory is not read from NATS.
    for target in ["/async-function/../async-function/f", "/async-function/./f", "/async-function/"]
    {
        let status = gateway.call("POST", target, &[], "hi").await.status;
        assert!(matches!(status, 400 | 404), "{target}: {status}");
    }
    assert!(upstream.received().is_empty());
    for target in
        ["/function/f/a%2Fb//c/../d;e?x=%zz", "/system//a/../%2F%3F", "/ui/%61sync-function"]
    {
        assert_eq!(gateway.call("POST", target, &[], "hi").await.status, 200, "{target}");
        assert_eq!(upstream.received().last().unwrap().target, target);
    }
}

/// What belongs to the connection, if the client is believed.
const NAMED_IN_CONNECTION: [(&str, &str); 2] = [
    ("connection", "via, x-forwarded-for, x-forwarded-host, x-forwarded-proto"),
    ("x-forwarded-for", "10.0.0.1"),
];

#[tokio::test]
async fn no_client_hides_what_the_gateway_says_of_a_request() {
    let upstream = HttpServer::start().await;
    let (_nats, gateway) = before_upstream(&upstream).await;
    gateway.call("POST", "/function/f", &NAMED_IN_CONNECTION, "hi").await;
    let received = upstream.received().pop().unwrap();
    assert_eq!(received.header("x-forwarded-for"), "127.0.0.1");
    assert_eq!(received.header("x-forwarded-host"), gateway.addr.to_string());
    assert_eq!(received.header("x-forwarded-proto"), "http");
    assert_eq!(received.header("via"), "1.1 asyncqueue-gateway");
}

#[tokio::test]
async fn a_call_keeps_the_host_protocol_and_address_of_its_client() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    gateway.submit(&[], "direct").await;
    let proxied = [
        ("x-forwarded-for", "10.0.0.1"),
        ("x-forwarded-host", "public.example"),
        ("x-forwarded-proto", "https"),
    ];
    gateway.submit(&proxied, "behind a proxy").await;
    let target = "http://absolute.example:8080/async-function/figlet";
    assert_eq!(gateway.call("POST", target, &[], "absolute").await.status, 202);
    gateway.submit(&NAMED_IN_CONNECTION, "hidden").await;
    let host = gateway.addr.to_string();
    let expected = [
        [host.as_str(), "http", "127.0.0.1"],
        ["public.example", "https", "10.0.0.1, 127.0.0.1"],
        ["absolute.example:8080", "http", "127.0.0.1"],
        [host.as_str(), "http", "127.0.0.1"],
    ];
    for (call, expected) in calls(&queue).await.iter().zip(expected) {
        let names = ["x-forwarded-host", "x-forwarded-proto", "x-forwarded-for"];
        let stored = names.map(|name| call.headers[name].to_str().unwrap());
        assert_eq!(stored, expected);
        assert!(!call.headers.contains_key("host"));
    }
}

#[tokio::test]
async fn broken_chunks_of_a_client_are_its_own_fault() {
    let upstream = HttpServer::start().await;
    let (_nats, gateway) = before_upstream(&upstream).await;
    for body in ["nonsense\r\n", "2\r\nhi\r\nnonsense\r\n", "2\r\nhiXX", "fffffffffffffffff\r\n"] {
        let mut client = gateway.connect().await;
        client
            .send(format!(
                "POST /function/f HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n{body}"
            ))
            .await;
        let answer = client.response().await;
        assert_eq!(answer.status, 400, "{body:?}: {}", answer.text());
        assert!(answer.text().contains("failed to read the body"), "{body:?}: {}", answer.text());
    }
    // One that ends before its body does gets an answer as well, if it still reads.
    let mut client = gateway.connect().await;
    client.send("POST /function/f HTTP/1.1\r\nHost: g\r\nContent-Length: 10\r\n\r\nhalf").await;
    client.close_side().await;
    assert_eq!(client.response().await.status, 400);
}

#[tokio::test]
async fn the_largest_head_is_a_setting() {
    let queue = Queue::start().await;
    let usual = Gateway::before(&queue, &[]).await;
    let more = Gateway::before(&queue, &[("max_header_bytes", "48Ki")]).await;
    for (gateway, bytes, status) in
        [(&usual, 30, 202), (&usual, 40, 431), (&more, 40, 202), (&more, 50, 431)]
    {
        let long = "x".repeat(bytes * 1024);
        let answer =
            gateway.call("POST", "/async-function/figlet", &[("x-long", &long)], "hi").await;
        assert_eq!(answer.status, status, "{bytes} KiB");
    }
}
