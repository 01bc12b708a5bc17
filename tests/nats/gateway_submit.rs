//! Submitting, request by request: what is stored, what is refused, and what the client hears.

use test_support::{http::HttpServer, raw::RawResponse, wait::until};

use crate::{
    gateway::{Gateway, calls, messages},
    support::Queue,
};

fn one_line(answer: &RawResponse, status: u16, text: &str) {
    let body = answer.text();
    assert_eq!(answer.status, status, "{body}");
    assert!(body.contains(text), "{body}");
    assert!(body.ends_with('\n') && body.lines().count() == 1, "{body}");
    assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
}

async fn taken(gateway: &Gateway, target: &str) {
    let answer = gateway.call("POST", target, &[], "hi").await;
    assert_eq!(answer.status, 202, "{target}: {}", answer.text());
}

#[tokio::test]
async fn a_call_is_answered_202_with_an_empty_body_and_stored_as_it_came() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    let headers = [
        ("content-type", "text/plain"),
        ("x-multi", "a"),
        ("x-multi", "b"),
        ("authorization", "Bearer t"),
        ("x-callback-url", "http://user:p@caller/cb?x"),
        // No header of a client becomes one of NATS.
        ("nats-rollup", "all"),
        ("nats-msg-id", "forged"),
    ];
    let answer = gateway
        .call("POST", "/async-function/figlet/a//b/../%2F%3f?x=%zz&&y", &headers, "hi")
        .await;
    assert_eq!((answer.status, answer.text().as_str()), (202, ""));
    assert_eq!(answer.header("content-length"), "0");
    assert_eq!(answer.header("content-type"), "");
    assert!(answer.header("x-start-time").parse::<u64>().unwrap() > 1_600_000_000_000_000_000);

    let stored = calls(&queue).await.remove(0);
    assert_eq!(stored.call_id.as_str(), answer.header("x-call-id"));
    assert_eq!(
        (stored.method.as_str(), stored.function.to_string().as_str()),
        ("POST", "figlet.openfaas-fn")
    );
    assert_eq!(
        (stored.path.as_str(), stored.query.as_deref()),
        ("/a//b/../%2F%3f", Some("x=%zz&&y"))
    );
    assert_eq!(stored.callback_url.unwrap().as_url().as_str(), "http://user:p@caller/cb?x");
    assert_eq!(&stored.body[..], b"hi");
    let values =
        |name| stored.headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(values("x-multi"), ["a", "b"]);
    assert_eq!(values("authorization"), ["Bearer t"]);
    assert_eq!(values("nats-msg-id"), ["forged"]);
    assert_eq!(values("x-start-time"), [answer.header("x-start-time")]);
    assert!(values("connection").is_empty() && values("host").is_empty());
    let message = messages(&queue, "jobs").await.remove(0);
    assert!(message.headers.get("Nats-Rollup").is_none());
    assert_eq!(message.subject.as_str(), format!("jobs.openfaas-fn.figlet.{}", stored.call_id));
}

#[tokio::test]
async fn every_form_of_a_name_and_of_a_path_is_taken_as_it_is() {
    let queue = Queue::start().await;
    let settings = [("function_namespace", "fn"), ("function_namespaces", "dev")];
    let gateway = Gateway::before(&queue, &settings).await;
    let targets = [
        ("/async-function/figlet", "figlet.fn", "", None),
        ("/async-function/figlet/", "figlet.fn", "/", None),
        ("/async-function/Fig_let-1.dev", "Fig_let-1.dev", "", None),
        ("/async-function/figlet//", "figlet.fn", "//", None),
        ("/async-function/figlet/../secret", "figlet.fn", "/../secret", None),
        ("/async-function/figlet/./a?", "figlet.fn", "/./a", Some("")),
        ("/async-function/figlet/%2e%2e/%00", "figlet.fn", "/%2e%2e/%00", None),
        ("/async-function/figlet?a?b#", "figlet.fn", "", Some("a?b")),
        ("http://elsewhere/async-function/figlet/abs", "figlet.fn", "/abs", None),
    ];
    for (target, ..) in &targets {
        taken(&gateway, target).await;
    }
    let stored = calls(&queue).await;
    for (call, (target, function, path, query)) in stored.iter().zip(targets) {
        let as_stored = (call.function.to_string(), call.path.as_str(), call.query.as_deref());
        assert_eq!(as_stored, (function.to_owned(), path, query), "{target}");
    }
}

#[tokio::test]
async fn a_chunked_body_is_read_to_its_end_and_its_trailers_are_not_stored() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    let mut connection = gateway.connect().await;
    connection
        .send(
            "POST /async-function/figlet HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\
             Trailer: X-Sum\r\n\r\n3;ext=1\r\nabc\r\n",
        )
        .await;
    connection.send("2\r\nde\r\n0\r\nX-Sum: 5\r\n\r\n").await;
    assert_eq!(connection.response().await.status, 202);
    let stored = calls(&queue).await.remove(0);
    assert_eq!(&stored.body[..], b"abcde");
    for name in ["x-sum", "trailer", "transfer-encoding"] {
        assert!(!stored.headers.contains_key(name), "{name}");
    }
}

#[tokio::test]
async fn too_large_content_length_is_refused_before_the_body() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[("max_payload", "10")]).await;
    for expect in ["", "Expect: 100-continue\r\n"] {
        let mut connection = gateway.connect().await;
        let head = format!(
            "POST /async-function/figlet HTTP/1.1\r\nHost: g\r\nContent-Length: 11\r\n{expect}\r\n"
        );
        connection.send(head).await;
        let answer = connection.response().await;
        one_line(
            &answer,
            413,
            "larger than the limit of 10 bytes, set by max_payload of the gateway",
        );
    }
    assert_eq!(gateway.submit(&[], "0123456789").await.len(), 36);
    queue.holds("jobs", 1).await;
}

#[tokio::test]
async fn a_chunked_body_that_grows_too_large_is_refused_while_it_is_read() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[("max_payload", "10")]).await;
    let mut connection = gateway.connect().await;
    let head =
        "POST /async-function/figlet HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n";
    connection.send(format!("{head}8\r\n01234567\r\n3\r\n89a\r\n")).await;
    one_line(&connection.response().await, 413, "limit of 10 bytes");
    queue.holds("jobs", 0).await;
}

#[tokio::test]
async fn expect_100_continue_is_answered() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    let mut connection = gateway.connect().await;
    let head = "POST /async-function/figlet HTTP/1.1\r\nHost: g\r\nContent-Length: 2\r\n\
                Expect: 100-continue\r\n\r\n";
    connection.send(head).await;
    assert_eq!(connection.response().await.status, 100);
    connection.send("hi").await;
    assert_eq!(connection.response().await.status, 202);
    assert!(!calls(&queue).await[0].headers.contains_key("expect"));
}

#[tokio::test]
async fn too_large_headers_are_a_client_error() {
    let queue = Queue::start().await;
    let settings = [("max_payload", "2Mi"), ("max_header_bytes", "64Ki")];
    let gateway = Gateway::before(&queue, &settings).await;
    let (long, body) = ("x".repeat(40_000), "x".repeat((1 << 20) - 8 * 1024));
    let answer = gateway.call("POST", "/async-function/figlet", &[("x-long", &long)], &body).await;
    one_line(
        &answer,
        413,
        "larger than NATS takes: at most 1048576 bytes with its headers: send a smaller body",
    );
    let answer = gateway.call("POST", "/async-function/figlet", &[], format!("{body}x")).await;
    one_line(&answer, 413, "set by max_payload of the NATS server");
    assert_eq!(gateway.call("POST", "/async-function/figlet", &[], body).await.status, 202);
    // A stream may take less.
    let mut config = queue.info("jobs").await.config;
    config.max_message_size = 1000;
    queue.js.update_stream(config).await.unwrap();
    let answer = gateway.call("POST", "/async-function/figlet", &[], "x".repeat(1000)).await;
    one_line(
        &answer,
        413,
        "larger than the queue's stream takes: its max_msg_size counts body and headers",
    );
}

#[tokio::test]
async fn a_head_beyond_all_measure_is_refused() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    let long = "x".repeat(70_000);
    let many: Vec<_> = (0..150).map(|_| ("x-many", "1")).collect();
    for headers in [&[("x-long", &long[..])][..], &many] {
        let answer = gateway.call("POST", "/async-function/figlet", headers, "").await;
        // The parser's own, before there is a request, and as docs/gateway.md says without a body.
        assert_eq!((answer.status, answer.text().as_str()), (431, ""));
    }
}

#[tokio::test]
async fn requests_that_are_sent_at_once_are_answered_in_order() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    let mut connection = gateway.connect().await;
    let request = |id: &str, body: &str| {
        format!(
            "POST /async-function/figlet HTTP/1.1\r\nHost: g\r\nX-Call-Id: {id}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    connection
        .send([request("a", "hi"), request("a.b", "refused"), request("c", "ho")].concat())
        .await;
    for (status, id) in [(202, "a"), (400, ""), (202, "c")] {
        let answer = connection.response().await;
        assert_eq!((answer.status, answer.header("x-call-id")), (status, id));
    }
    let bodies: Vec<_> = calls(&queue).await.into_iter().map(|call| call.body).collect();
    assert_eq!(bodies, ["hi", "ho"]);
}

#[tokio::test]
async fn interrupted_request_stores_nothing() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    for framing in
        ["Content-Length: 10\r\n\r\nhalf", "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"]
    {
        let mut connection = gateway.connect().await;
        connection
            .send(format!("POST /async-function/figlet HTTP/1.1\r\nHost: g\r\n{framing}"))
            .await;
    }
    until("both are counted", async || {
        let body = gateway.metric(r#"gateway_submissions_total{outcome="body"}"#).await;
        (body == 2).then_some(())
    })
    .await;
    gateway.submit(&[], "whole").await;
    assert_eq!(calls(&queue).await.len(), 1);
}

#[tokio::test]
async fn a_body_that_comes_too_slowly_is_given_up() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[("read_timeout", "300ms")]).await;
    let mut connection = gateway.connect().await;
    connection
        .send("POST /async-function/figlet HTTP/1.1\r\nHost: g\r\nContent-Length: 10\r\n\r\nslow")
        .await;
    one_line(&connection.response().await, 408, "did not arrive within 300ms");
    // And so is the connection, on which the rest may come at any time.
    connection.closed().await;
}

#[tokio::test]
async fn a_refusal_is_a_problem_in_json_for_who_asks_for_it() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    let headers = [("accept", "text/html, application/json;q=0.9"), ("x-call-id", "mine")];
    let answer = gateway.call("POST", "/async-function/figlet/%", &headers, "hi").await;
    assert_eq!(answer.header("content-type"), "application/problem+json");
    let problem = answer.json();
    assert_eq!((&problem["status"], &problem["title"]), (&400.into(), &"Bad Request".into()));
    assert_eq!((&problem["code"], &problem["callId"]), (&"path".into(), &"mine".into()));
    assert!(problem["detail"].as_str().unwrap().contains("write two hex digits"), "{problem}");
    // Python's requests accepts anything.
    let answer = gateway.call("POST", "/async-function/figlet/%", &[("accept", "*/*")], "hi").await;
    one_line(&answer, 400, "`%`");
}

#[tokio::test]
async fn other_methods_are_405_with_allow() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    for (method, target, allow) in [
        ("PUT", "/async-function/figlet", "POST, GET, HEAD, DELETE"),
        ("OPTIONS", "/async-function/figlet", "POST, GET, HEAD, DELETE"),
        ("BREW", "/async-function/figlet/a/b", "POST, GET, HEAD, DELETE"),
        ("GET", "/async-function/figlet/a/b", "POST"),
        ("DELETE", "/async-function/figlet/a/b", "POST"),
    ] {
        let answer = gateway.call(method, target, &[], "").await;
        assert_eq!((answer.status, answer.header("allow")), (405, allow), "{method} {target}");
    }
}

#[tokio::test]
async fn an_unknown_function_is_taken_or_refused_as_the_setting_says() {
    let queue = Queue::start().await;
    let directory = "queues: {jobs: }\nfunctions: {figlet: {}}";
    // As it is where nothing is set: the file has all functions.
    let gateway = Gateway::start(&queue.nats, directory, &[("unknown_function", "")]).await;
    until("it takes calls of known functions", async || {
        let answer = gateway.call("POST", "/async-function/figlet", &[], "hi").await;
        (answer.status == 202).then_some(())
    })
    .await;
    let answer = gateway.call("POST", "/async-function/unknown", &[], "hi").await;
    one_line(
        &answer,
        404,
        "function `unknown.openfaas-fn` not found: check its name and namespace",
    );
    let answer = gateway.call("POST", "/async-function/figlet.dev", &[], "hi").await;
    one_line(&answer, 404, "`figlet.dev`");
    let rejected = || gateway.metric(r#"gateway_unknown_function_calls_total{outcome="rejected"}"#);
    assert_eq!(rejected().await, 2);
    let line =
        gateway.program.logged("rejecting a call of an unknown function: check its name").await;
    assert!(line.contains("unknown.openfaas-fn"), "{line}");
    // One line for both: they come in floods.
    assert_eq!(
        gateway.program.log().iter().filter(|line| line.contains("rejecting a call")).count(),
        1
    );

    let gateway = Gateway::before(&queue, &[]).await;
    taken(&gateway, "/async-function/unknown").await;
    let accepted = r#"gateway_unknown_function_calls_total{outcome="accepted"}"#;
    assert_eq!(gateway.metric(accepted).await, 1);
    let line =
        gateway.program.logged("storing a call of an unknown function on the default queue").await;
    assert!(line.contains("unknown.openfaas-fn") && line.contains("queue=jobs"), "{line}");
}

#[tokio::test]
async fn unknown_function_without_directory_is_accepted_and_counted() {
    let queue = Queue::standalone().await;
    let settings = [("directory_file", ""), ("unknown_function", ""), ("ensure_stream", "true")];
    let gateway = Gateway::start(&queue.nats, "", &settings).await;
    gateway.is_ready().await;
    taken(&gateway, "/async-function/figlet").await;
    let accepted = r#"gateway_unknown_function_calls_total{outcome="accepted"}"#;
    assert_eq!(gateway.metric(accepted).await, 1);
    // No function is known there, so that a line would say nothing.
    let warning = "storing a call of an unknown function on the default queue";
    assert!(!gateway.program.log().iter().any(|line| line.contains(warning)));
}

#[tokio::test]
async fn a_full_queue_refuses_and_takes_calls_again_when_there_is_room() {
    let (queue, function) = (Queue::start().await, HttpServer::start().await);
    let gateway = Gateway::before(&queue, &[]).await;
    let mut config = queue.info("jobs").await.config;
    config.max_messages = 2;
    queue.js.update_stream(config.clone()).await.unwrap();
    gateway.submit(&[], "a").await;
    gateway.submit(&[], "b").await;
    let answer = gateway.call("POST", "/async-function/figlet", &[], "c").await;
    one_line(&answer, 429, "queue `jobs`: the queue is full");
    assert_eq!(answer.header("retry-after"), "10");

    config.max_messages = -1;
    config.max_bytes = 2_000;
    queue.js.update_stream(config).await.unwrap();
    let answer = gateway.call("POST", "/async-function/figlet", &[], "x".repeat(2_000)).await;
    one_line(&answer, 429, "the queue is full");
    assert_eq!(gateway.metric(r#"gateway_submissions_total{outcome="queue_full"}"#).await, 2);

    let _worker = queue.worker(&function, &[]);
    queue.empties().await;
    gateway.submit(&[], "d").await;
}

#[tokio::test]
async fn missing_stream_is_503_and_named() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    queue.js.delete_stream("jobs").await.unwrap();
    let answer = gateway.call("POST", "/async-function/figlet", &[], "hi").await;
    one_line(&answer, 503, "no stream stores calls of this queue: is there an AsyncQueue for it?");
    assert_eq!(answer.header("retry-after"), "5");
}
