//! What is not ours: sent on as it comes, and the answer back.

use test_support::{
    http::{HttpServer, respond},
    loopback::free_port,
    nats::NatsServer,
    raw::{Connection, Listener},
    wait::until,
};

use crate::gateway::Gateway;

/// A gateway that needs no NATS for what it is asked here.
async fn before(upstream_url: &str) -> (NatsServer, Gateway) {
    let nats = NatsServer::prepare();
    let gateway = Gateway::start(&nats, "queues: {}", &[("upstream_url", upstream_url)]).await;
    (nats, gateway)
}

/// A connection through a gateway to an upstream that is answered by hand: the client's end, and
/// the upstream's with the head of the request read.
async fn pass(request: &str) -> (NatsServer, Gateway, Connection, Connection, String) {
    let upstream = Listener::start().await;
    let (nats, gateway) = before(&upstream.url()).await;
    let mut client = gateway.connect().await;
    client.send(request).await;
    let mut upstream = upstream.accept().await;
    let head = upstream.head().await;
    (nats, gateway, client, upstream, head)
}

fn has_line(head: &str, line: &str) -> bool {
    head.split("\r\n").any(|other| other.eq_ignore_ascii_case(line))
}

#[tokio::test]
async fn a_request_goes_upstream_with_its_path_and_headers_as_they_are() {
    let upstream = HttpServer::answering(|_| respond(418, "tea")).await;
    let (_nats, gateway) = before(&upstream.url()).await;
    let headers = [
        ("x-multi", "a"),
        ("x-multi", "b"),
        ("authorization", "Basic dTpw"),
        ("x-forwarded-for", "10.0.0.1"),
        ("proxy-connection", "x"),
        ("accept-encoding", "gzip"),
    ];
    for (method, target) in [
        ("GET", "/system/functions?namespace=a%2Fb"),
        ("PUT", "/system//a/../%2F%3F?x=%zz&&"),
        ("DELETE", "/function/figlet/p"),
        ("POST", "/function/figlet"),
        ("PROPFIND", "/ui/"),
        ("HEAD", "/"),
        ("OPTIONS", "/async-functions"),
    ] {
        let body = if method == "HEAD" { "" } else { "body" };
        let answer = gateway.call(method, target, &headers, body).await;
        assert_eq!((answer.status, answer.header("x-mine")), (418, "1"), "{method} {target}");
        assert_eq!(answer.header("content-length"), "3");
        let received = upstream.received().pop().unwrap();
        assert_eq!((received.method.as_str(), received.target.as_str()), (method, target));
        assert_eq!(received.body, body);
        assert_eq!(received.headers.get_all("x-multi").iter().count(), 2);
        assert_eq!(received.header("authorization"), "Basic dTpw");
        assert_eq!(received.header("accept-encoding"), "gzip");
        assert_eq!(received.header("x-forwarded-for"), "10.0.0.1, 127.0.0.1");
        assert_eq!(received.header("x-forwarded-host"), gateway.addr.to_string());
        assert_eq!(received.header("x-forwarded-proto"), "http");
        assert_eq!(received.header("proxy-connection"), "");
        assert_eq!(format!("http://{}", received.header("host")), upstream.url());
    }
}

#[tokio::test]
async fn a_redirect_is_the_clients_to_follow() {
    let elsewhere = HttpServer::start().await;
    let location = elsewhere.url();
    let upstream = HttpServer::answering(move |_| {
        let (answer, location) = (respond(302, ""), location.parse().unwrap());
        Box::pin(async {
            let mut answer = answer.await;
            answer.headers_mut().insert("location", location);
            answer
        })
    })
    .await;
    let (_nats, gateway) = before(&upstream.url()).await;
    let answer = gateway.call("GET", "/", &[], "").await;
    assert_eq!((answer.status, answer.header("location")), (302, elsewhere.url().as_str()));
    assert!(elsewhere.received().is_empty());
}

#[tokio::test]
async fn bodies_flow_both_ways_while_they_arrive() {
    let request =
        "POST /function/f HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nping\r\n";
    let (_nats, _gateway, mut client, mut upstream, head) = pass(request).await;
    assert!(has_line(&head, "transfer-encoding: chunked"), "{head}");
    assert_eq!(upstream.bytes(9).await, b"4\r\nping\r\n");
    upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npong\r\n").await;
    // The head and the first chunk are here though neither body has ended.
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(client.bytes(9).await, b"4\r\npong\r\n");
    client.send("1\r\n!\r\n0\r\n\r\n").await;
    assert_eq!(upstream.bytes(11).await, b"1\r\n!\r\n0\r\n\r\n");
    upstream.send("0\r\n\r\n").await;
    assert_eq!(client.bytes(5).await, b"0\r\n\r\n");
}

#[tokio::test]
async fn a_body_whose_length_is_said_in_two_ways_goes_on_with_one() {
    // The beginning of a request that would be smuggled past one who reads the length.
    let request = "POST /function/f HTTP/1.1\r\nHost: g\r\nContent-Length: 4\r\n\
                   Transfer-Encoding: chunked\r\n\r\n\
                   2\r\nhi\r\n0\r\n\r\nGET /system/secrets HTTP/1.1\r\nHost: g\r\nX: ";
    let (_nats, _gateway, mut client, mut upstream, head) = pass(request).await;
    assert!(has_line(&head, "transfer-encoding: chunked"), "{head}");
    assert!(!head.to_ascii_lowercase().contains("content-length"), "{head}");
    assert_eq!(upstream.bytes(12).await, b"2\r\nhi\r\n0\r\n\r\n");
    upstream.send("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await;
    assert_eq!(client.response().await.status, 204);
    drop(client);
    assert!(upstream.closed().await.is_empty());
}

#[tokio::test]
async fn trailers_go_through_both_ways() {
    let request = "POST /function/f HTTP/1.1\r\nHost: g\r\nTE: trailers\r\nConnection: TE\r\n\
                   Trailer: X-Sum\r\n\
                   Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 2\r\n\r\n";
    let (_nats, _gateway, mut client, mut upstream, head) = pass(request).await;
    assert!(has_line(&head, "te: trailers") && has_line(&head, "trailer: x-sum"), "{head}");
    let body =
        String::from_utf8(upstream.bytes("2\r\nhi\r\n0\r\nx-sum: 2\r\n\r\n".len()).await).unwrap();
    assert_eq!(body.to_ascii_lowercase(), "2\r\nhi\r\n0\r\nx-sum: 2\r\n\r\n");
    upstream
        .send(
            "HTTP/1.1 200 OK\r\nTrailer: X-Status\r\nTransfer-Encoding: chunked\r\n\r\n\
             2\r\nho\r\n0\r\nX-Status: fine\r\n\r\n",
        )
        .await;
    let answer = client.response().await;
    assert_eq!((answer.text().as_str(), answer.header("trailer")), ("ho", "X-Status"));
    assert_eq!(answer.trailers, [("x-status".to_owned(), "fine".to_owned())]);
}

#[tokio::test]
async fn an_upgraded_connection_carries_what_both_sides_say() {
    let request = "GET /function/chat HTTP/1.1\r\nHost: g\r\nConnection: keep-alive, Upgrade\r\n\
                   Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let (_nats, gateway, mut client, mut upstream, head) = pass(request).await;
    let memory = || gateway.metric(r#"gateway_memory_used_bytes{use="passed_on"}"#);
    for line in
        ["upgrade: websocket", "connection: upgrade", "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ=="]
    {
        assert!(has_line(&head, line), "{line}: {head}");
    }
    upstream
        .send(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        )
        .await;
    let answer = client.response().await;
    assert_eq!((answer.status, answer.header("upgrade")), (101, "websocket"));
    assert_eq!(answer.header("connection").to_ascii_lowercase(), "upgrade");
    assert_eq!(answer.header("sec-websocket-accept"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    // Masked from the client, plain from the server: frames of text, `Hello` and its echo.
    let (question, echo) = (b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", b"\x81\x05Hello");
    for _ in 0..3 {
        client.send(question).await;
        assert_eq!(upstream.bytes(question.len()).await, question);
        upstream.send(echo).await;
        assert_eq!(client.bytes(echo.len()).await, echo);
    }
    assert!(memory().await > 0, "a tunnel takes memory for as long as it is open");
    drop(upstream);
    assert!(client.closed().await.is_empty());
    drop(client);
    until("its memory is given back", async || (memory().await == 0).then_some(())).await;
}

#[tokio::test]
async fn an_upgrade_that_is_declined_is_an_answer_like_any_other() {
    let request = "GET / HTTP/1.1\r\nHost: g\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let (_nats, _gateway, mut client, mut upstream, _head) = pass(request).await;
    upstream.send("HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\n\r\nno").await;
    let answer = client.response().await;
    assert_eq!((answer.status, answer.text().as_str()), (426, "no"));
}

#[tokio::test]
async fn large_bodies_go_through_whole_and_are_not_held() {
    const SIZE: usize = 32 << 20;
    let upstream =
        HttpServer::answering(|request| respond(200, &"y".repeat(request.body.len()))).await;
    // Larger than all memory that the gateway may hold for others.
    let nats = NatsServer::prepare();
    let settings = [
        ("upstream_url", upstream.url()),
        ("memory_budget", "16Mi".into()),
        ("max_payload", "1Ki".into()),
    ];
    let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let gateway = Gateway::start(&nats, "queues: {}", &settings).await;
    let answer = gateway.call("POST", "/function/f", &[], "x".repeat(SIZE)).await;
    assert_eq!((answer.status, answer.body.len()), (200, SIZE));
    assert_eq!(answer.header("content-length"), SIZE.to_string());
    let received = upstream.received().remove(0);
    assert_eq!(received.header("content-length"), SIZE.to_string());
    assert!(received.body.iter().all(|byte| *byte == b'x'));
}

#[tokio::test]
async fn a_client_that_goes_away_ends_the_request_upstream() {
    let request = "GET /slow HTTP/1.1\r\nHost: g\r\n\r\n";
    let (_nats, _gateway, client, mut upstream, _head) = pass(request).await;
    drop(client);
    upstream.closed().await;
}

#[tokio::test]
async fn only_an_unreachable_upstream_is_marked_internal() {
    let url = format!("http://127.0.0.1:{}", free_port());
    let (_nats, gateway) = before(&url).await;
    let answer = gateway.call("GET", "/", &[], "").await;
    assert_eq!((answer.status, answer.header("x-openfaas-internal")), (502, "asyncqueue-gateway"));
    assert!(answer.text().contains("can't reach the gateway at upstream_url"), "{}", answer.text());

    let (_nats, _gateway, mut client, upstream, _head) =
        pass("GET / HTTP/1.1\r\nHost: g\r\n\r\n").await;
    drop(upstream);
    let answer = client.response().await;
    assert_eq!((answer.status, answer.header("x-openfaas-internal")), (502, ""));
    assert!(answer.text().contains("before it responded"), "{}", answer.text());
}

#[tokio::test]
async fn function_is_called_directly_without_upstream() {
    let (figlet, other) =
        (HttpServer::start().await, HttpServer::answering(|_| respond(201, "other")).await);
    let nats = NatsServer::prepare();
    let directory = format!("functions: {{figlet: {{url: \"{}/base\"}}}}", figlet.url());
    let function_url = format!("{}/{{namespace}}/{{function}}", other.url());
    let gateway = Gateway::start(
        &nats,
        &directory,
        &[("function_url", &function_url), ("function_namespaces", "dev")],
    )
    .await;
    assert_eq!(gateway.call("GET", "/function/figlet/a%2Fb?x", &[], "").await.status, 200);
    assert_eq!(figlet.received()[0].target, "/base/a%2Fb?x");
    assert_eq!(gateway.call("POST", "/function/cows.dev", &[], "").await.status, 201);
    assert_eq!(other.received()[0].target, "/dev/cows/");
    assert_eq!(gateway.call("GET", "/ui/", &[], "").await.status, 404);
}

#[tokio::test]
async fn a_tunnel_is_not_what_this_gateway_is_for() {
    let upstream = HttpServer::start().await;
    let (_nats, gateway) = before(&upstream.url()).await;
    let answer = gateway.call("CONNECT", "elsewhere:443", &[], "").await;
    assert_eq!(answer.status, 405, "{}", answer.text());
    until("nothing went upstream", async || upstream.received().is_empty().then_some(())).await;
}
