//! What functions may answer, and what receivers of callbacks may.

use std::{net::SocketAddr, time::Duration};

use test_support::{
    http::{HttpServer, respond, respond_after},
    loopback::free_port,
    raw,
    wait::until,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{
    gateway::Gateway,
    support::{Queue, callback_at},
};

/// A function that writes these bytes to each connection, in pieces with a pause between them, and
/// then does nothing more, or closes it.
async fn speaking(pieces: &'static [&'static str], pause: Duration, closes: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(speak(stream, pieces, pause, closes));
        }
    });
    url
}

async fn speak(mut stream: TcpStream, pieces: &[&str], pause: Duration, closes: bool) {
    let mut request = [0; 4096];
    let _ = stream.read(&mut request).await;
    for piece in pieces {
        if stream.write_all(piece.as_bytes()).await.is_err() {
            return;
        }
        tokio::time::sleep(pause).await;
    }
    if !closes {
        std::future::pending::<()>().await;
    }
}

/// Runs one call against such a function, with one attempt, and returns the status that its client
/// receives.
async fn status_of(url: &str) -> String {
    let (queue, caller) = (Queue::start().await, HttpServer::start().await);
    let settings = [("function_url", url), ("upstream_timeout", "1s"), ("max_retry_attempts", "1")];
    let _worker = queue.worker(&caller, &settings);
    queue.submit(|call| call.callback_url = Some(callback_at(&caller))).await;
    let status = caller.receives(1).await[0].header("x-function-status").to_owned();
    queue.empties().await;
    status
}

#[tokio::test]
async fn incomplete_response_is_a_failed_attempt() {
    let half =
        speaking(&["HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"], Duration::ZERO, true)
            .await;
    assert_eq!(status_of(&half).await, "503");
    let reset = speaking(&[], Duration::ZERO, true).await;
    assert_eq!(status_of(&reset).await, "503");
    let garbage = speaking(&["SSH-2.0-OpenSSH_9.2\r\n"], Duration::ZERO, true).await;
    assert_eq!(status_of(&garbage).await, "502");
}

#[tokio::test]
async fn an_answer_that_does_not_end_in_time_is_cut_off() {
    let silent = speaking(&[], Duration::ZERO, false).await;
    assert_eq!(status_of(&silent).await, "504");
    let slow = speaking(&["H"; 200], Duration::from_millis(50), false).await;
    assert_eq!(status_of(&slow).await, "504");
    let unfinished =
        speaking(&["HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"], Duration::ZERO, false)
            .await;
    assert_eq!(status_of(&unfinished).await, "504");
}

#[tokio::test]
async fn an_endless_answer_takes_no_more_memory_than_is_kept() {
    let (queue, caller) = (Queue::start().await, HttpServer::start().await);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let endless = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
        // Until the worker has had enough.
        while stream.write_all(chunk.as_bytes()).await.is_ok() {}
    });
    let worker = queue.worker(&caller, &[("function_url", &url), ("max_response_bytes", "100Ki")]);
    queue.submit(|call| call.callback_url = Some(callback_at(&caller))).await;
    let result = caller.receives(1).await.remove(0);
    assert_eq!((result.header("x-function-status"), result.body.len()), ("200", 100 << 10));
    worker.logged("exceeds max_response_bytes").await;
    until("the function's connection is closed", async || endless.is_finished().then_some(()))
        .await;
}

#[tokio::test]
async fn redirects_are_results_and_not_followed() {
    let (queue, elsewhere, caller) =
        (Queue::start().await, HttpServer::start().await, HttpServer::start().await);
    let location = elsewhere.url();
    let redirecting = HttpServer::answering(move |_| {
        let location = location.clone();
        Box::pin(async move {
            let mut response = respond(302, "over there").await;
            response.headers_mut().insert("location", location.parse().unwrap());
            response
        })
    })
    .await;
    let _worker = queue.worker(&redirecting, &[]);
    queue.submit(|call| call.callback_url = Some(callback_at(&caller))).await;
    let result = caller.receives(1).await.remove(0);
    assert_eq!(
        (result.header("x-function-status"), result.header("location")),
        ("302", &*elsewhere.url())
    );
    queue.holds("jobs-callbacks", 0).await;
    assert!(elsewhere.received().is_empty());
}

#[tokio::test]
async fn a_callback_may_be_another_call_and_so_on() {
    let (queue, caller) = (Queue::start().await, HttpServer::start().await);
    let gateway = Gateway::before(&queue, &[]).await;
    let function = HttpServer::start().await;
    let _worker = queue.worker(&function, &[]);
    // first -> (its result is the input of) second -> the caller
    let next = format!("http://{}/async-function/second?of=chain", gateway.addr);
    gateway.submit(&[("X-Callback-Url", &next), ("X-Call-Id", "chain")], "begin").await;
    let received = function.receives(2).await;
    assert_eq!((received[0].body.as_ref(), received[1].body.as_ref()), (&b"begin"[..], &b"ok"[..]));
    assert_eq!(received[1].target, "/?of=chain");
    queue.empties().await;
    queue.holds("jobs-callbacks", 0).await;
    assert!(caller.received().is_empty());
}

#[tokio::test]
async fn callbacks_are_signed_and_a_rotated_secret_counts_at_once() {
    // "whsec_" and base64 of 24 bytes.
    const OLD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const NEW: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";
    let (queue, function, caller) =
        (Queue::start().await, HttpServer::start().await, HttpServer::start().await);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), OLD).unwrap();
    let path = file.path().to_str().unwrap();
    let _worker = queue.worker(&function, &[("callback_signing_secret_file", path)]);
    let id = queue.submit(|call| call.callback_url = Some(callback_at(&caller))).await;
    let first = caller.receives(1).await.remove(0);
    let event_id = first.header("webhook-id");
    assert!(event_id.starts_with(&format!("{id}_")) && event_id.ends_with("_done"), "{event_id}");
    assert!(first.header("webhook-timestamp").parse::<u64>().is_ok());
    assert_eq!(first.header("webhook-signature").split(' ').count(), 1);
    assert!(first.header("webhook-signature").starts_with("v1,"));

    std::fs::write(file.path(), format!("{NEW}\n{OLD}\n")).unwrap();
    queue.submit(|call| call.callback_url = Some(callback_at(&caller))).await;
    let second = caller.receives(2).await.remove(1);
    assert_eq!(
        second.header("webhook-signature").split(' ').count(),
        2,
        "both sign while one replaces the other"
    );
}

#[tokio::test]
async fn credentials_in_a_callback_url_are_sent_and_never_logged() {
    let (queue, function, caller) =
        (Queue::start().await, HttpServer::start().await, HttpServer::start().await);
    let worker = queue.worker(&function, &[]);
    let url = callback_at(&caller).as_url().as_str().replace("http://", "http://user:hunter2@");
    queue
        .submit(|call| {
            call.callback_url = Some(asyncqueue::CallbackUrl::parse(&url).unwrap());
            call.headers.insert("authorization", "Bearer hunter2".parse().unwrap());
            call.query = Some("token=hunter2".to_owned());
            call.body = "hunter2".into();
        })
        .await;
    let result = caller.receives(1).await.remove(0);
    assert_eq!(result.header("authorization"), "Basic dXNlcjpodW50ZXIy");
    assert_eq!(function.received()[0].header("authorization"), "Bearer hunter2");
    worker.logged("Posted result").await;
    let log = worker.log().join("\n");
    assert!(!log.contains("hunter2") && !log.contains("dXNlcjpodW50ZXIy"), "{log}");
}

#[tokio::test]
async fn headers_and_bodies_are_logged_if_that_is_asked_for_and_only_then() {
    let queue = Queue::start().await;
    let function = HttpServer::answering(|_| respond(200, "the answer")).await;
    let submit = async || {
        let change = |call: &mut asyncqueue::Invocation| {
            call.headers.insert("x-mine", "seen".parse().unwrap());
            call.body = "the body".into();
        };
        queue.submit(change).await
    };
    let by_default = queue.worker(&function, &[]);
    submit().await;
    by_default.logged("Invoked figlet [200]").await;
    queue.empties().await;
    let log = by_default.log().join("\n");
    for secret in ["seen", "the body", "the answer"] {
        assert!(!log.contains(secret), "{log}");
    }
    drop(by_default);
    let verbose = queue.worker(&function, &[("write_debug", "true")]);
    submit().await;
    let request = verbose.logged("Request").await;
    assert!(request.contains("seen") && request.contains("the body"), "{request}");
    assert!(verbose.logged("Response").await.contains("the answer"));
}

#[tokio::test]
async fn metrics_have_the_names_that_dashboards_know() {
    let (queue, caller) = (Queue::start().await, HttpServer::start().await);
    let function = HttpServer::answering(|request| match &request.body[..] {
        b"fails" => respond(500, "no"),
        _ => respond_after(Duration::from_millis(10), 200, "ok"),
    })
    .await;
    let admin: SocketAddr = ([127, 0, 0, 1], free_port()).into();
    let _worker =
        queue.worker(&function, &[("http_addr", &admin.to_string()), ("max_retry_attempts", "2")]);
    queue.submit(|call| call.callback_url = Some(callback_at(&caller))).await;
    queue.submit(|call| call.body = "fails".into()).await;
    queue.holds("jobs-dead", 1).await;
    caller.receives(1).await;
    queue.empties().await;
    let expected = [
        r#"queue_worker_messages_processed_total{queue_name="jobs",outcome="done"} 1"#,
        r#"queue_worker_messages_processed_total{queue_name="jobs",outcome="retry"} 1"#,
        r#"queue_worker_messages_processed_total{queue_name="jobs",outcome="dead"} 1"#,
        r#"queue_worker_callbacks_total{queue_name="jobs",outcome="accepted"} 1"#,
        r#"queue_worker_function_invocation_inflight{queue_name="jobs",function_name="other"} 0"#,
        r#"queue_worker_pending_messages{queue_name="jobs",function_name=""} 0"#,
        r#"queue_worker_messages_submitted_total{queue_name="jobs"} "#,
        "queue_worker_nats_reconnect_total 0",
        r#"queue_worker_function_duration_seconds_count{queue_name="jobs"} 3"#,
        r#"queue_worker_waiting_seconds_count{queue_name="jobs"} 2"#,
    ];
    until(&format!("{expected:?}"), async || {
        let text = raw::try_request(admin, "GET", "/metrics", &[], b"").await.ok()?.text();
        expected.iter().all(|line| text.contains(line)).then_some(())
    })
    .await;
}
