//! Results and calls that are larger than NATS stores.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_nats::HeaderMap as NatsHeaders;
use asyncqueue::message::{dead_letter, native};
use http::HeaderValue;
use test_support::{
    http::{Answer, HttpServer, Received, respond, respond_after},
    program::{Program, run},
};

use crate::{
    gateway::{Gateway, messages},
    support::{Queue, callback_at},
};

/// 200, with headers or a body that no message of NATS holds, by what the call asks for.
fn respond_with_much(request: &Received) -> Answer {
    let (headers, body) = match &request.body[..] {
        // As much as the receiver takes, and more than NATS does, which has each after a name of
        // its own.
        b"many headers" => (vec!["x".repeat(798).into_bytes(); 80], "ok".to_owned()),
        // Escaped to three times as much.
        b"one header" => (vec!["ä".repeat(11_500).into_bytes()], "ok".to_owned()),
        b"body" => (vec![], "x".repeat(2 << 20)),
        _ => (vec![], "ok".to_owned()),
    };
    Box::pin(async move {
        let mut response = respond(200, &body).await;
        for value in headers {
            response.headers_mut().append("x-much", HeaderValue::from_bytes(&value).unwrap());
        }
        response
    })
}

/// The warnings that a program has logged about a call.
fn warnings(program: &Program, call: &str) -> Vec<String> {
    let is_about = |line: &String| line.contains(" WARN ") && line.contains(call);
    program.log().into_iter().filter(is_about).collect()
}

#[tokio::test]
async fn an_oversized_result_is_posted_directly() {
    let queue = Queue::start().await;
    let function = HttpServer::answering(|request| respond_with_much(&request)).await;
    // It answers a result once this is set.
    let may_answer = Arc::new(AtomicBool::new(false));
    let answers = may_answer.clone();
    let receiver = HttpServer::answering(move |_| {
        let answers = answers.clone();
        Box::pin(async move {
            while !answers.swap(false, Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            respond(200, "ok").await
        })
    })
    .await;
    let gateway = Gateway::before(&queue, &[("max_header_bytes", "64Ki")]).await;
    let worker = queue.worker(&function, &[("max_inflight", "1")]);
    let callback = callback_at(&receiver).as_url().to_string();
    for (number, kind) in ["many headers", "one header", "body"].into_iter().enumerate() {
        let id = gateway.submit(&[("x-callback-url", &callback)], kind).await;
        gateway.submit(&[], "next").await;
        let next = function.receives(2 * number + 2).await.remove(2 * number + 1);
        assert_eq!(next.body, "next");
        // Its slot is free while the receiver has not answered, and it can't be cancelled any more.
        let posting = receiver.receives(number + 1).await.remove(number);
        let cancel =
            async || gateway.call("DELETE", &format!("/async-function/{id}"), &[], "").await;
        assert_eq!(cancel().await.status, 409, "{kind}");
        may_answer.store(true, Ordering::SeqCst);
        queue.empties().await;
        assert_eq!(cancel().await.status, 404, "{kind}");

        assert_eq!(
            (posting.header("x-call-id"), posting.header("x-function-status")),
            (&*id, "200")
        );
        let much: usize = posting.headers.get_all("x-much").iter().map(HeaderValue::len).sum();
        let expected = [798 * 80, 23_000, 0][number];
        assert_eq!((much, posting.body.len() > 1 << 20), (expected, kind == "body"));
        let warnings = warnings(&worker, &id);
        assert_eq!(warnings.len(), 1, "{warnings:#?}");
        assert!(warnings[0].contains("posting it directly") && warnings[0].contains("too_large"));
        assert_eq!(queue.info("jobs-callbacks").await.state.messages, 0);
    }
    assert_eq!((function.received().len(), receiver.received().len()), (6, 3));
}

#[tokio::test]
async fn a_worker_killed_while_it_posts_directly_loses_no_result() {
    let queue = Queue::start().await;
    let function = HttpServer::answering(|request| respond_with_much(&request)).await;
    let slow = HttpServer::answering(|_| respond_after(Duration::from_secs(60), 200, "late")).await;
    let mut worker = queue.worker(&function, &[]);
    queue
        .submit(|call| {
            call.body = "many headers".into();
            call.callback_url = Some(callback_at(&slow));
        })
        .await;
    slow.receives(1).await;
    worker.kill();
    let _next = queue.worker(&function, &[]);
    slow.receives(2).await;
    assert_eq!(function.received().len(), 2);
}

/// Fills the headers of a call until its message has so many bytes.
fn fill(call: &mut asyncqueue::Invocation, bytes: usize) {
    // As they are on the wire: "NATS/1.0\r\n", "Name: value\r\n" each, and "\r\n".
    let size = |call: &asyncqueue::Invocation| {
        let lines = native::encode(call);
        let lines = lines.iter().flat_map(|(name, values)| {
            values.iter().map(move |value| name.to_string().len() + 2 + value.as_str().len() + 2)
        });
        12 + lines.sum::<usize>() + call.body.len()
    };
    call.body = Vec::new().into();
    call.body = vec![b'x'; bytes - size(call)].into();
    assert_eq!(size(call), bytes);
}

/// The one dead letter of a queue: its headers that begin with `Async-Dead-Omitted`, and the size
/// of its body.
async fn letter(queue: &Queue) -> (Option<String>, Option<String>, usize) {
    queue.holds("jobs-dead", 1).await;
    queue.empties().await;
    let letter = messages(queue, "jobs-dead").await.remove(0);
    let header = |name: &str| letter.headers.get(name).map(|value| value.as_str().to_owned());
    queue.js.get_stream("jobs-dead").await.unwrap().purge().await.unwrap();
    (
        header(dead_letter::H_OMITTED_HEADERS),
        header(dead_letter::H_OMITTED_BODY),
        letter.payload.len(),
    )
}

#[tokio::test]
async fn a_dead_letter_that_does_not_fit_lacks_what_is_noted() {
    let queue = Queue::start().await;
    let function = HttpServer::answering(|_| respond(500, "no")).await;
    let _worker = queue.worker(&function, &[("max_retry_attempts", "1"), ("max_inflight", "1")]);
    let max = queue.js.client().max_payload();
    for (short, http_headers) in [(100, 2_000), (350, 2_000), (200, 0)] {
        let id = queue
            .submit(|call| {
                if http_headers > 0 {
                    call.headers.insert("x-much", "x".repeat(http_headers).parse().unwrap());
                }
                fill(call, max - short);
            })
            .await;
        queue.holds("jobs-dead", 1).await;
        let nats = queue.nats.url();
        let shown =
            run("kubectl-aq", &["dead", "show", "jobs", id.as_str()], &[("nats_url", &nats)]).await;
        assert_eq!(shown.code, Some(0), "{}", shown.stderr);
        assert!(shown.text().contains("Omitted "), "{}", shown.text());
        let (headers, body, left) = letter(&queue).await;
        let is_noted = if http_headers > 0 {
            headers.is_some_and(|bytes| bytes.parse::<usize>().unwrap() >= http_headers)
                && body.is_none()
        } else {
            body.is_some_and(|bytes| bytes.parse::<usize>().unwrap() > max / 2) && left == 0
        };
        assert!(is_noted, "{short} bytes less, {http_headers} of HTTP headers");
    }
    // In the form of OpenFaaS all is in the body.
    let head = r#"{"Header":{"X-Call-Id":["big"]},"Method":"POST","Function":"figlet","Body":""#;
    let fill = (max - head.len() - 2) / 4 * 4;
    let message = format!("{head}{}\"}}", "A".repeat(fill));
    let message = format!("{message}{}", " ".repeat(max - message.len()));
    queue
        .js
        .publish_with_headers("jobs", NatsHeaders::new(), message.into())
        .await
        .unwrap()
        .await
        .unwrap();
    let (_, body, left) = letter(&queue).await;
    assert_eq!((body.as_deref(), left), (Some(max.to_string().as_str()), 0));
    assert_eq!(function.received().len(), 4);
    let delivered = queue.consumer().await.cached_info().delivered.consumer_sequence;
    assert_eq!(delivered, 4, "a letter that does not fit was tried again");
}

#[tokio::test]
async fn a_call_no_dead_letter_could_hold_is_refused() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[("max_header_bytes", "64Ki")]).await;
    let submit = async |target: &str, headers: &[(&str, &str)]| {
        let answer =
            gateway.call("POST", &format!("/async-function/figlet{target}"), headers, "hi").await;
        (answer.status, answer.text())
    };
    let path = format!("/{}", "p".repeat(20_000));
    let query = format!("?{}", "q".repeat(20_000));
    let callback = format!("http://127.0.0.1/{}", "c".repeat(21_000));
    let (status, text) = submit(&format!("{path}{query}"), &[("x-callback-url", &callback)]).await;
    assert_eq!(status, 413, "{text}");
    let limit = dead_letter::max_target(queue.js.client().max_payload());
    assert!(text.contains(&format!("X-Callback-Url are longer than {limit} bytes")), "{text}");
    // What is just as large as that limit becomes one.
    let function = HttpServer::answering(|_| respond(500, "no")).await;
    assert_eq!(submit(&format!("/{}", "p".repeat(limit - 1)), &[]).await.0, 202);
    let _worker = queue.worker(&function, &[("max_retry_attempts", "1")]);
    queue.holds("jobs-dead", 1).await;
    queue.empties().await;

    for (value, times) in [("x".repeat(798), 80), ("ä".repeat(11_500), 1)] {
        let (status, text) = submit("", &vec![("x-much", value.as_str()); times]).await;
        assert_eq!(status, 413, "{text}");
        assert!(text.contains("64 KiB, escapes included"), "{text}");
    }
}
