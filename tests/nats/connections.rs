//! Connections to functions and receivers: how long they are used, and what comes of a request on
//! one that was closed.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use test_support::{http::HttpServer, raw::Listener};
use tokio::net::{TcpListener, TcpStream};

use crate::{
    gateway::Gateway,
    support::{Queue, callback_at},
};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A balancer of connections, as a Service of Kubernetes: each goes to one backend, in turn.
async fn balance(first: &HttpServer, second: &HttpServer, is_second_up: Arc<AtomicBool>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let backends = [first, second].map(|server| server.url().replace("http://", ""));
    tokio::spawn(async move {
        let mut turn = 0;
        while let Ok((mut client, _)) = listener.accept().await {
            turn += 1;
            let index = if is_second_up.load(Ordering::SeqCst) { turn % 2 } else { 0 };
            let backend = backends[index].clone();
            tokio::spawn(async move {
                let mut backend = TcpStream::connect(backend).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut backend).await;
            });
        }
    });
    url
}

#[tokio::test]
async fn a_backend_that_is_added_gets_its_share_of_calls() {
    let (queue, first, second) =
        (Queue::start().await, HttpServer::start().await, HttpServer::start().await);
    let is_second_up = Arc::new(AtomicBool::new(false));
    let url = balance(&first, &second, is_second_up.clone()).await;
    let settings = [("function_url", &*url), ("max_inflight", "4"), ("max_connection_age", "1s")];
    let _worker = queue.worker(&first, &settings);
    for _ in 0..20 {
        queue.submit(|_| {}).await;
    }
    queue.empties().await;
    assert_eq!((first.received().len(), second.received().len()), (20, 0));
    is_second_up.store(true, Ordering::SeqCst);
    let added = Instant::now();
    while added.elapsed() < Duration::from_secs(4) {
        queue.submit(|_| {}).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    queue.empties().await;
    let (before, after) = (first.received().len() - 20, second.received().len());
    assert!(after * 4 > before, "{before} calls to the first backend, {after} to the second");
}

#[tokio::test]
async fn a_call_on_a_connection_that_was_closed_is_no_attempt() {
    let (queue, caller, function) =
        (Queue::start().await, HttpServer::start().await, Listener::start().await);
    let heads = Arc::new(Mutex::new(Vec::new()));
    let url = function.url();
    let seen = heads.clone();
    tokio::spawn(async move {
        // The first connection answers one call, and is closed when the next has come.
        let mut connection = function.accept().await;
        for answer in [Some(OK), None] {
            let head = connection.head().await;
            connection.bytes(2).await;
            seen.lock().unwrap().push(head);
            if let Some(answer) = answer {
                connection.send(answer).await;
            }
        }
        drop(connection);
        let mut connection = function.accept().await;
        let head = connection.head().await;
        seen.lock().unwrap().push(head);
        connection.send(OK).await;
        std::future::pending::<()>().await;
    });
    let _worker = queue.worker(&caller, &[("function_url", &url), ("max_retry_attempts", "1")]);
    for count in 1..=2 {
        queue.submit(|call| call.callback_url = Some(callback_at(&caller))).await;
        let received = caller.receives(count).await;
        let result = &received[count - 1];
        assert_eq!((result.header("x-function-status"), result.header("x-retry")), ("200", "1"));
    }
    let heads = heads.lock().unwrap();
    let key = |head: &str| {
        head.lines().find(|line| line.starts_with("idempotency-key")).map(str::to_owned)
    };
    assert!(key(&heads[1]).is_some() && key(&heads[1]) == key(&heads[2]), "{heads:?}");
}

#[tokio::test]
async fn a_result_on_a_connection_that_was_closed_is_no_attempt() {
    let (queue, function, receiver) =
        (Queue::start().await, HttpServer::start().await, Listener::start().await);
    let url = format!("{}/callback", receiver.url());
    let worker = queue.worker(&function, &[("callback_max_attempts", "1")]);
    let submit = async || {
        queue
            .submit(|call| call.callback_url = Some(asyncqueue::CallbackUrl::parse(&url).unwrap()))
            .await
    };
    submit().await;
    let mut first = receiver.accept().await;
    first.head().await;
    first.bytes(2).await;
    first.send(OK).await;
    worker.logged("Posted result").await;
    submit().await;
    first.head().await;
    drop(first);
    let mut second = receiver.accept().await;
    second.head().await;
    second.send(OK).await;
    queue.holds("jobs-callbacks", 0).await;
    queue.holds("jobs-dead", 0).await;
}

#[tokio::test]
async fn requests_without_a_body_say_so() {
    let (queue, caller) = (Queue::start().await, HttpServer::start().await);
    let function = HttpServer::answering(|_| test_support::http::respond(204, "")).await;
    let gateway = Gateway::before(&queue, &[("function_url", &function.url())]).await;
    let _worker = queue.worker(&function, &[]);
    queue
        .submit(|call| {
            call.callback_url = Some(callback_at(&caller));
            call.body = "".into();
        })
        .await;
    let result = caller.receives(1).await.remove(0);
    assert_eq!((result.header("x-function-status"), result.header("content-length")), ("204", "0"));
    gateway.call("PUT", "/function/figlet", &[], "").await;
    gateway.call("GET", "/function/figlet", &[], "").await;
    let received = function.receives(3).await;
    let lengths: Vec<_> = received.iter().map(|request| request.header("content-length")).collect();
    assert_eq!(lengths, ["0", "0", ""]);
}

#[tokio::test]
async fn a_gateway_sends_again_only_what_may_be_repeated() {
    let (queue, function) = (Queue::start().await, Listener::start().await);
    let gateway = Gateway::before(&queue, &[("function_url", &function.url())]).await;
    for (method, body, expected) in [("GET", "", 200), ("POST", "hi", 502), ("POST", "", 502)] {
        let answers = async {
            // The first request leaves a connection that is kept alive.
            let mut connection = function.accept().await;
            connection.head().await;
            connection.send(OK).await;
            connection.head().await;
            drop(connection);
            if expected == 200 {
                let mut connection = function.accept().await;
                connection.head().await;
                connection
                    .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
                    .await;
            }
        };
        let asks = async {
            assert_eq!(gateway.call("GET", "/function/figlet", &[], "").await.status, 200);
            gateway.call(method, "/function/figlet", &[], body).await
        };
        let ((), answer) = tokio::join!(answers, asks);
        assert_eq!(answer.status, expected, "{method} {body}: {}", answer.text());
    }
}
