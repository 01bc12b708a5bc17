//! Callbacks by Standard Webhooks: what a receiver is sent, and what happens to a result that it
//! does not take.

use std::{
    fs,
    io::{Read, Write},
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use asyncqueue::{
    CallbackUrl,
    message::dead_letter::{H_ATTEMPTS, H_REASON},
};
use http::{HeaderName, HeaderValue};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use test_support::{
    http::{Answer, HttpServer, respond, respond_after},
    wait::until,
};

use crate::{
    gateway::{Gateway, messages},
    support::{Queue, callback_at},
};

/// An answer with headers.
fn with(answer: Answer, headers: &'static [(&'static str, &'static str)]) -> Answer {
    Box::pin(async move {
        let mut response = answer.await;
        for (name, value) in headers {
            let (name, value) = (HeaderName::from_static(name), HeaderValue::from_static(value));
            response.headers_mut().insert(name, value);
        }
        response
    })
}

/// The headers of the only dead letter, once it is there.
async fn dead_letter(queue: &Queue) -> async_nats::HeaderMap {
    queue.holds("jobs-dead", 1).await;
    messages(queue, "jobs-dead").await.remove(0).headers
}

#[tokio::test]
async fn a_redirect_of_a_receiver_is_a_failure() {
    const NEW: &[(&str, &str)] = &[("location", "https://new.example/hooks?token=secret")];
    let (queue, function) = (Queue::start().await, HttpServer::start().await);
    let receiver = HttpServer::answering(|_| with(respond(308, ""), NEW)).await;
    let _worker = queue.worker(&function, &[("callback_max_attempts", "2")]);
    queue.submit(|call| call.callback_url = Some(callback_at(&receiver))).await;
    let letter = dead_letter(&queue).await;
    let reason = letter.get(H_REASON).unwrap().as_str();
    assert!(reason.contains("308") && reason.contains("`https://new.example/hooks`"), "{reason}");
    assert!(!reason.contains("secret"), "{reason}");
    assert_eq!(letter.get(H_ATTEMPTS).unwrap().as_str(), "2");
    let posts = receiver.received();
    assert_eq!((function.received().len(), posts.len(), &posts[1].body[..]), (1, 2, &b"ok"[..]));
}

#[tokio::test]
async fn a_retry_after_is_kept_beyond_the_longest_wait() {
    const LATER: &[(&str, &str)] = &[("retry-after", "3")];
    let queue = Queue::start().await;
    let once_busy = || async {
        let was_asked = Arc::new(AtomicBool::new(false));
        HttpServer::answering(move |_| {
            let is_second = was_asked.swap(true, Ordering::SeqCst);
            if is_second { respond(200, "ok") } else { with(respond(503, ""), LATER) }
        })
        .await
    };
    let (function, receiver) = (once_busy().await, once_busy().await);
    let _worker = queue.worker(&function, &[("max_retry_wait", "1s")]);
    queue.submit(|call| call.callback_url = Some(callback_at(&receiver))).await;
    let calls = function.receives(2).await;
    let results = receiver.receives(2).await;
    for requests in [calls, results] {
        let waited = requests[1].at - requests[0].at;
        assert!(waited >= Duration::from_millis(2900), "{waited:?}");
    }
}

#[tokio::test]
async fn a_receiver_that_hangs_holds_up_no_other() {
    let (queue, function, good) =
        (Queue::start().await, HttpServer::start().await, HttpServer::start().await);
    let hangs = HttpServer::answering(|_| respond_after(Duration::from_secs(3600), 200, "")).await;
    let worker = queue.worker(&function, &[("max_inflight", "50")]);
    for _ in 0..200 {
        queue.submit(|call| call.callback_url = Some(callback_at(&hangs))).await;
    }
    queue.empties().await;
    queue.submit(|call| call.callback_url = Some(callback_at(&good))).await;
    good.receives(1).await;
    // None of these has ended.
    assert_eq!((hangs.most_running(), hangs.received().len()), (64, 64));
    let warning = worker.logged("it has reached its limit of 64 concurrent callbacks").await;
    assert!(warning.contains(&hangs.url().replace("http://", "")), "{warning}");
}

#[tokio::test]
async fn a_result_that_waits_for_its_host_uses_no_attempt() {
    let (queue, function) = (Queue::start().await, HttpServer::start().await);
    let is_awake = Arc::new(AtomicBool::new(false));
    let awake = is_awake.clone();
    let receiver = HttpServer::answering(move |_| {
        let awake = awake.clone();
        Box::pin(async move {
            while !awake.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            respond(200, "").await
        })
    })
    .await;
    let settings = [("max_inflight", "50"), ("callback_max_attempts", "1")];
    let worker = queue.worker(&function, &settings);
    for _ in 0..88 {
        queue.submit(|call| call.callback_url = Some(callback_at(&receiver))).await;
    }
    queue.empties().await;
    // Each of those that wait has been delivered more than once by then.
    until("results are delivered again", async || {
        let waits = worker.log().iter().filter(|line| line.contains("deferred: its host")).count();
        (waits > 2 * 24).then_some(())
    })
    .await;
    is_awake.store(true, Ordering::SeqCst);
    queue.holds("jobs-callbacks", 0).await;
    assert_eq!((receiver.received().len(), queue.info("jobs-dead").await.state.messages), (88, 0));
}

#[tokio::test]
async fn a_truncated_result_says_so() {
    const OF_THE_WHOLE: &[(&str, &str)] = &[
        ("etag", "\"1\""),
        ("digest", "sha-256=x"),
        ("content-digest", "sha-256=:x=:"),
        ("repr-digest", "sha-256=:x=:"),
        ("content-md5", "x"),
        ("accept-ranges", "bytes"),
        ("last-modified", "Tue, 24 Nov 2026 10:00:00 GMT"),
        ("content-type", "text/plain"),
    ];
    let (queue, receiver) = (Queue::start().await, HttpServer::start().await);
    let function = HttpServer::answering(|request| match &request.body[..] {
        b"long" => with(respond(200, &"x".repeat(100)), OF_THE_WHOLE),
        _ => with(respond(200, "short"), OF_THE_WHOLE),
    })
    .await;
    let _worker = queue.worker(&function, &[("max_response_bytes", "10")]);
    for (number, body) in ["long", "short"].into_iter().enumerate() {
        queue
            .submit(|call| {
                call.callback_url = Some(callback_at(&receiver));
                call.body = body.into();
            })
            .await;
        let result = receiver.receives(number + 1).await.remove(number);
        let is_long = body == "long";
        assert_eq!(result.header("x-result-truncated"), if is_long { "true" } else { "" });
        assert_eq!(result.header("content-length"), result.body.len().to_string());
        assert_eq!(result.header("content-type"), "text/plain");
        for (name, value) in &OF_THE_WHOLE[..7] {
            assert_eq!(result.header(name), if is_long { "" } else { value }, "{name}");
        }
    }
}

#[tokio::test]
async fn a_callback_has_the_trace_and_the_name_of_its_call() {
    let (queue, function, receiver) =
        (Queue::start().await, HttpServer::start().await, HttpServer::start().await);
    let settings = [("function_namespaces", "dev")];
    let gateway = Gateway::before(&queue, &settings).await;
    let _worker = queue.worker(&function, &settings);
    let url = callback_at(&receiver).as_url().to_string();
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    for (number, name) in ["figlet", "figlet.openfaas-fn", "figlet.dev"].into_iter().enumerate() {
        let headers = [
            ("X-Callback-Url", url.as_str()),
            ("traceparent", trace),
            ("tracestate", "a=1"),
            ("baggage", "user=7"),
        ];
        let path = format!("/async-function/{name}");
        let answer = gateway.call("POST", &path, &headers, "hi").await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        let result = receiver.receives(number + 1).await.remove(number);
        assert_eq!(result.header("x-function-name"), name);
        assert_eq!(result.header("x-start-time"), answer.header("x-start-time"));
        let values = ["traceparent", "tracestate", "baggage"].map(|name| result.header(name));
        assert_eq!(values, [trace, "a=1", "user=7"]);
    }
    assert_eq!(function.received()[0].header("traceparent"), trace);
}

#[tokio::test]
async fn variables_that_name_a_proxy_are_warned_of() {
    let (queue, function) = (Queue::start().await, HttpServer::start().await);
    let settings = [("HTTPS_PROXY", "http://user:hunter2@proxy:3128"), ("NO_PROXY", "10.0.0.0/8")];
    let worker = queue.worker(&function, &settings);
    worker.logged("HTTPS_PROXY is set and not followed").await;
    let gateway = Gateway::before(&queue, &settings).await;
    gateway.program.logged("HTTPS_PROXY is set and not followed").await;
    for program in [&worker, &gateway.program] {
        assert!(!program.log().join("\n").contains("hunter2"));
    }
}

/// Makes a certificate for 127.0.0.1, which is its own authority, and its key, as `NAME.crt` and
/// `NAME.key`.
fn make_certificate(folder: &Path, name: &str) {
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
        ])
        .args(["-days=2", "-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1", "-subj", &format!("/CN={name}")])
        .args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.crt")])
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// A receiver with TLS that accepts each result. Returns its URL.
fn start_tls_receiver(folder: &Path, name: &str) -> String {
    let certificate = CertificateDer::from_pem_file(folder.join(format!("{name}.crt"))).unwrap();
    let key = PrivateKeyDer::from_pem_file(folder.join(format!("{name}.key"))).unwrap();
    let config =
        ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key);
    let config = Arc::new(config.unwrap());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/callback", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = ServerConnection::new(config.clone()).unwrap();
            let mut stream = StreamOwned::new(connection, stream.unwrap());
            // A handshake that the client ends is its matter.
            if stream.read(&mut [0; 8192]).is_ok() {
                let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        }
    });
    url
}

#[tokio::test]
async fn a_receiver_with_a_private_authority_is_trusted_once_it_is_named() {
    let (queue, function) = (Queue::start().await, HttpServer::start().await);
    let folder = tempfile::tempdir().unwrap();
    for name in ["receiver", "other"] {
        make_certificate(folder.path(), name);
    }
    let file = |name: &str| folder.path().join(name);
    fs::copy(file("other.crt"), file("ca.crt")).unwrap();
    let url = CallbackUrl::parse(&start_tls_receiver(folder.path(), "receiver")).unwrap();
    let ca_file = file("ca.crt");
    let settings =
        [("callback_ca_file", ca_file.to_str().unwrap()), ("callback_max_attempts", "20")];
    let worker = queue.worker(&function, &settings);
    queue.submit(|call| call.callback_url = Some(url)).await;
    let failed = worker.logged("failed, retrying").await;
    assert!(failed.contains("UnknownIssuer"), "{failed}");
    fs::copy(file("receiver.crt"), file("new")).unwrap();
    fs::rename(file("new"), file("ca.crt")).unwrap();
    worker.logged("Posted result").await;
    queue.holds("jobs-callbacks", 0).await;
}
