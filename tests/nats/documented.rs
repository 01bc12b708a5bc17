//! What OpenFaaS's page on asynchronous functions says and no other test shows: docs/openfaas.md
//! names each test.

use std::time::{Duration, Instant};

use asyncqueue::{
    CallbackUrl,
    stream::{ensure_buckets, ensure_queue},
};
use test_support::{
    http::{HttpServer, respond, respond_after},
    nats::NatsServer,
    raw::Listener,
    wait::until,
};

use crate::{
    gateway::{Gateway, calls},
    support::{Queue, spec},
};

/// How long a partner's webhook waits for an answer.
const WEBHOOK_WAITS: Duration = Duration::from_secs(1);

/// Longer than any test: a function that takes this long has not answered by then.
const TWO_MINUTES: Duration = Duration::from_secs(120);

const MEBIBYTE: usize = 1 << 20;

#[tokio::test]
async fn slow_calls_are_accepted_within_a_second_while_they_run() {
    let queue = Queue::start().await;
    let function = HttpServer::answering(|_| respond_after(TWO_MINUTES, 200, "late")).await;
    let gateway = Gateway::before(&queue, &[]).await;
    let _worker = queue.worker(&function, &[("max_inflight", "100")]);
    let mut times = Vec::new();
    for _ in 0..100 {
        let submitted = Instant::now();
        gateway.submit(&[], "hi").await;
        times.push(submitted.elapsed());
    }
    until("all of them run", async || (function.running() == 100).then_some(())).await;
    // The median, so that one pause of the machine does not count.
    times.sort();
    assert!(times[50] < WEBHOOK_WAITS, "{times:?}");
}

#[tokio::test]
async fn either_route_reaches_the_function_with_the_same_request() {
    let (queue, function) = (Queue::start().await, HttpServer::start().await);
    let directory =
        format!("queues: {{jobs: }}\nfunctions: {{figlet: {{url: \"{}\"}}}}", function.url());
    let gateway = Gateway::start(&queue.nats, &directory, &[]).await;
    gateway.is_ready().await;
    let _worker = queue.worker(&function, &[]);
    let headers = [("x-mine", "1"), ("content-type", "text/csv"), ("authorization", "Bearer t")];
    for (route, status) in [("/function/", 200), ("/async-function/", 202)] {
        let answer =
            gateway.call("POST", &format!("{route}figlet/a%2Fb?x=%2F&y"), &headers, "hi").await;
        assert_eq!(answer.status, status, "{route}");
    }
    let received = function.receives(2).await;
    for request in &received {
        assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/a%2Fb?x=%2F&y"));
        assert_eq!(request.body, "hi");
        for (name, value) in headers {
            assert_eq!(request.header(name), value);
        }
    }
}

#[tokio::test]
async fn a_get_looks_for_a_call_and_stores_none() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    for method in ["GET", "HEAD"] {
        for target in ["/async-function/figlet", "/async-function/figlet/path"] {
            let answer = gateway.call(method, target, &[], "").await;
            assert_eq!(answer.status, 404, "{method} {target}");
        }
    }
    assert!(calls(&queue).await.is_empty());
}

#[tokio::test]
async fn a_listener_that_only_prints_gets_the_documented_callback() {
    let queue = Queue::start().await;
    let function = HttpServer::answering(|_| respond(200, " _   _ \n| | | |\n")).await;
    let gateway = Gateway::before(&queue, &[]).await;
    let worker = queue.worker(&function, &[]);
    // As `nc -l` does: it takes one connection, prints what comes, and never answers.
    let netcat = Listener::start().await;
    let url = CallbackUrl::parse(&netcat.url()).unwrap().as_url().to_string();
    let answer =
        gateway.call("POST", "/async-function/figlet", &[("X-Callback-Url", &url)], "Hi").await;
    let mut connection = netcat.accept().await;
    let head = connection.head().await;
    let field = |name: &str| {
        let fields = head.lines().filter_map(|line| line.split_once(": "));
        let named =
            fields.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value);
        named.collect::<Vec<_>>().join(", ")
    };
    assert!(head.starts_with("POST / HTTP/1.1"), "{head}");
    assert_eq!(
        (field("content-length").as_str(), field("x-function-status").as_str()),
        ("16", "200")
    );
    assert_eq!(field("x-call-id"), answer.header("x-call-id"));
    assert_eq!(field("x-start-time"), answer.header("x-start-time"));
    assert_eq!(field("x-function-name"), "figlet");
    assert!(!field("date").is_empty(), "{head}");
    let (seconds, decimals) = field("x-duration-seconds").split_once('.').map(owned).unwrap();
    assert!(seconds.parse::<u64>().is_ok() && decimals.len() == 6, "{head}");
    assert_eq!(connection.bytes(16).await, b" _   _ \n| | | |\n");
    // A netcat that is stopped has not answered: the result is posted again, and the function does
    // not run again.
    drop(connection);
    assert!(netcat.accept().await.head().await.contains(answer.header("x-call-id")));
    assert_eq!(function.received().len(), 1);
    drop(worker);
}

fn owned((left, right): (&str, &str)) -> (String, String) {
    (left.to_owned(), right.to_owned())
}

#[tokio::test]
async fn a_slow_call_holds_up_those_behind_it_on_its_queue() {
    const SLOW: Duration = Duration::from_secs(1);
    let queue = Queue::start().await;
    let function = HttpServer::answering(|request| match &request.body[..] {
        b"slow" => respond_after(SLOW, 200, "ok"),
        _ => respond(200, "ok"),
    })
    .await;
    let bodies = ["slow", "second", "third", "fourth"];
    for body in bodies {
        queue.submit(|call| call.body = body.into()).await;
    }
    let _worker = queue.worker(&function, &[]);
    let received = function.receives(bodies.len()).await;
    let order: Vec<_> = received.iter().map(|request| request.body.clone()).collect();
    assert_eq!(order, bodies);
    assert!(received[1].at - received[0].at >= SLOW);
}

#[tokio::test]
async fn one_worker_of_100_slots_runs_100_calls_and_three_run_300() {
    let queue = Queue::start().await;
    let function = HttpServer::answering(|_| respond_after(TWO_MINUTES, 200, "late")).await;
    for _ in 0..310 {
        queue.submit(|_| {}).await;
    }
    let mut workers = Vec::new();
    for (count, at_once) in [(1, 100), (3, 300)] {
        workers.resize_with(count, || queue.worker(&function, &[("max_inflight", "100")]));
        until(&format!("{at_once} calls run"), async || {
            (function.running() == at_once).then_some(())
        })
        .await;
        // One more would have been started by then.
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(function.most_running(), at_once);
    }
}

#[tokio::test]
async fn a_body_of_1_mb_is_taken_and_the_limit_can_be_changed() {
    let function = HttpServer::start().await;
    // As nats-server comes: 1 MiB with headers, for which there is room.
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    let _worker = queue.worker(&function, &[]);
    submits_up_to(&gateway, MEBIBYTE - 8 * 1024, "set by max_payload of the NATS server").await;
    // As in manifests/nats: the gateway's own limit counts, and may be raised.
    let mut nats = NatsServer::prepare().with_max_payload("8MB");
    nats.run().await;
    let js = nats.jetstream().await;
    ensure_queue(&js, &spec(), false).await.unwrap();
    ensure_buckets(&js, 1).await.unwrap();
    let queue = Queue { nats, js, spec: spec() };
    let _worker = queue.worker(&function, &[]);
    for (settings, limit) in [(&[][..], MEBIBYTE), (&[("max_payload", "4Mi")], 4 * MEBIBYTE)] {
        let gateway = Gateway::before(&queue, settings).await;
        submits_up_to(&gateway, limit, "set by max_payload of the gateway").await;
    }
    let received = function.receives(3).await;
    let sizes: Vec<_> = received.iter().map(|request| request.body.len()).collect();
    assert_eq!(sizes, [MEBIBYTE - 8 * 1024, MEBIBYTE, 4 * MEBIBYTE]);
}

/// Submits a body of this size, and sees that one of a byte more is refused because of this.
async fn submits_up_to(gateway: &Gateway, size: usize, because: &str) {
    let refused = gateway.call("POST", "/async-function/figlet", &[], "x".repeat(size + 1)).await;
    assert_eq!(refused.status, 413);
    assert!(refused.text().contains(because), "{}", refused.text());
    gateway.submit(&[], &"x".repeat(size)).await;
}
