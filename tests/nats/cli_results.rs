//! `kubectl aq invoke`, `result`, `batch` and `cancel --batch`.

use serde_json::{Value, json};
use tempfile::NamedTempFile;
use test_support::{
    http::{HttpServer, respond, respond_after},
    program::Ended,
    wait::{WAIT_TIMEOUT, until},
};

use crate::{
    cli::{aq, aq_ok},
    gateway::{Gateway, calls},
    support::Queue,
};

/// What the function answers, unchanged on the standard output.
const BODY: &str = "\0\nmade\r\n";

const KEEP: (&str, &str) = ("x-keep-result", "1h");

/// Submits calls of `figlet` as one batch.
async fn submit_batch(gateway: &Gateway, id: &str, bodies: &[&str]) {
    let lines = bodies.iter().map(|body| json!({"function": "figlet", "body": body}).to_string());
    let body = lines.collect::<Vec<_>>().join("\n");
    let answer = gateway.call("POST", "/async-batch", &[("x-batch-id", id)], body).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
}

#[tokio::test]
async fn result_is_printed_with_an_exit_code() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    let call = async |id: &'static str, keep: bool, body: &'static str| {
        let headers = [("x-call-id", id), KEEP];
        let _ = gateway.submit(&headers[..if keep { 2 } else { 1 }], body).await;
    };
    call("good", true, "200").await;
    let ended = aq(&queue, &["result", "good"]).await;
    assert_eq!((ended.code, ended.text().as_str()), (Some(3), ""), "{ended:?}");
    assert!(ended.stderr.contains("`good` has not ended"), "{ended:?}");

    let function = HttpServer::answering(|request| {
        let status = str::from_utf8(&request.body).unwrap_or_default().parse().unwrap_or(200);
        respond(status, BODY)
    })
    .await;
    let worker = async {
        // The command polls before there is a result.
        tokio::time::sleep(std::time::Duration::from_millis(700)).await;
        queue.worker(&function, &[("max_retry_attempts", "1")])
    };
    let wait = format!("{}s", WAIT_TIMEOUT.as_secs());
    let arguments = ["result", "good", "--wait", &wait];
    let (ended, _worker) = tokio::join!(aq(&queue, &arguments), worker);
    assert_eq!((ended.code, ended.text().as_str()), (Some(0), BODY), "{ended:?}");
    assert!(ended.stderr.starts_with("call good is done, status 200\n"), "{ended:?}");

    call("failed", true, "404").await;
    call("dead", true, "500").await;
    for (id, state, status) in [("failed", "done", 404), ("dead", "dead", 500)] {
        let ended = aq(&queue, &["result", id, "--queue=jobs", "-ojson", "--wait", &wait]).await;
        assert_eq!(ended.code, Some(5), "{ended:?}");
        let result: Value = serde_json::from_slice(&ended.stdout).unwrap();
        assert_eq!((&result["state"], &result["status"]), (&json!(state), &json!(status)));
        assert_eq!((&result["callId"], &result["body"]), (&json!(id), &json!(BODY)));
        assert!(ended.stderr.contains(&format!("with status {status}")), "{ended:?}");
    }

    // A dead letter is known, its result is not.
    call("plain", false, "500").await;
    queue.empties().await;
    for (id, expected) in [("plain", "not kept"), ("unknown", "`unknown` not found")] {
        let ended = aq(&queue, &["result", id, "--wait", &wait]).await;
        assert!(ended.code == Some(4) && ended.stderr.contains(expected), "{ended:?}");
    }
}

#[tokio::test]
async fn batch_is_shown_and_cancelled() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    submit_batch(&gateway, "report-7", &["slow", "slow", ""]).await;
    let text = aq_ok(&queue, &["batch", "report-7"]).await;
    assert!(text.contains("pending\n") && text.contains("3: 3 pending\n"), "{text}");

    let function = HttpServer::answering(|request| match &request.body[..] {
        b"slow" => respond_after(WAIT_TIMEOUT, 200, ""),
        _ => respond(404, ""),
    })
    .await;
    let _worker = queue.worker(&function, &[("max_inflight", "3")]);
    until("one call has ended", async || {
        let report: Value =
            serde_json::from_str(&aq_ok(&queue, &["batch", "report-7", "-o", "json"]).await)
                .unwrap();
        assert_eq!((&report["batchId"], &report["total"]), (&json!("report-7"), &json!(3)));
        (report["counts"]["failed"] == 1).then_some(())
    })
    .await;

    let text = aq_ok(&queue, &["cancel", "--batch", "report-7"]).await;
    assert_eq!(text, "report-7: calls cancelled: 2, ended before: 1\n");
    let text = until("the batch has ended", async || {
        let text = aq_ok(&queue, &["batch", "report-7"]).await;
        text.contains("ended\n").then_some(text)
    })
    .await;
    assert!(text.contains("3: 1 failed, 2 cancelled\n"), "{text}");
    assert_eq!(text.lines().filter(|line| line.contains("figlet.openfaas-fn")).count(), 3);

    let ended = aq(&queue, &["cancel", "--batch", "report-7"]).await;
    assert!(ended.code == Some(1) && ended.stderr.contains("have ended"), "{ended:?}");
    for arguments in [&["batch", "unknown"][..], &["cancel", "--batch", "unknown"]] {
        let ended = aq(&queue, arguments).await;
        assert!(ended.code == Some(1) && ended.stderr.contains("batch `unknown`"), "{ended:?}");
    }
}

/// Runs `kubectl aq` with the content of a file in the last argument.
async fn aq_with_file(queue: &Queue, arguments: &[&str], content: &str) -> Ended {
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), content).unwrap();
    let mut all = arguments.to_vec();
    all.push(file.path().to_str().unwrap());
    aq(queue, &all).await
}

#[tokio::test]
async fn call_is_invoked_without_a_gateway() {
    let queue = Queue::start().await;
    let function = HttpServer::answering(|request| {
        let status = str::from_utf8(&request.body).unwrap_or_default().parse().unwrap_or(201);
        respond(status, BODY)
    })
    .await;
    let worker = queue.worker(&function, &[("max_retry_attempts", "1")]);
    let wait = format!("{}s", WAIT_TIMEOUT.as_secs());
    let arguments = [
        "invoke",
        "figlet/p%20q?a=b",
        "--default-queue=jobs",
        "-dhi",
        "-HX-Own: 1",
        "--wait",
        &wait,
    ];
    let ended = aq(&queue, &arguments).await;
    assert_eq!((ended.code, ended.text().as_str()), (Some(0), BODY), "{ended:?}");
    assert!(ended.stderr.contains("is done, status 201\n"), "{ended:?}");
    assert!(ended.stderr.contains("`figlet.openfaas-fn` is not in the directory"), "{ended:?}");
    let received = function.received().pop().unwrap();
    assert_eq!((&*received.target, &received.body[..]), ("/p%20q?a=b", &b"hi"[..]));
    assert_eq!(received.header("x-own"), "1");

    // Without a wait, the id is printed; a repeat is the same call.
    let to_jobs = ["invoke", "figlet", "--queue=jobs"];
    let order = [&to_jobs[..], &["--id=order-7", "--keep-result=1h", "-d404"]].concat();
    assert_eq!(aq_ok(&queue, &order).await, "order-7\n");
    let ended = aq(&queue, &["result", "order-7", "--wait", &wait]).await;
    assert_eq!(ended.code, Some(5), "{ended:?}");
    let repeat = [&order[..], &["--wait", &wait, "-ojson"]].concat();
    let ended = aq(&queue, &repeat).await;
    assert!(ended.stderr.contains("`order-7` was stored before"), "{ended:?}");
    let result: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!((ended.code, &result["status"]), (Some(5), &json!(404)), "{ended:?}");
    assert_eq!(function.received().len(), 2);

    drop(worker);
    let pending = [&to_jobs[..], &["--wait=1s", "--id=late"]].concat();
    let ended = aq_with_file(&queue, &[&pending[..], &["--file"]].concat(), "from a file").await;
    assert!(ended.code == Some(3) && ended.stderr.contains("`late` has not ended"), "{ended:?}");
    let _ = aq_ok(&queue, &[&to_jobs[..], &["--id=due", "--delay=1h"]].concat()).await;
    assert!(aq_ok(&queue, &["status", "due"]).await.contains("scheduled"));
    let stored = calls(&queue).await;
    assert_eq!((&stored[0].body[..], stored.len()), (&b"from a file"[..], 2));
    for (options, expected) in [
        (&["--delay=30d"][..], "X-Delay: `30d` is not"),
        (&["--delay=200h"], "limits.maxDelay"),
        (&["--keep-result=48h"], "X-Keep-Result `48h` is not valid"),
        (&["--callback-url=ftp://h"], "`ftp://h`"),
        (&["--id=a.b"], "call id `a.b`"),
        (&["--id=a", "-HX-Call-Id: b"], "X-Call-Id is given more than once"),
    ] {
        let ended = aq(&queue, &[&to_jobs[..], options].concat()).await;
        assert!(ended.stderr.contains(expected), "{options:?}: {ended:?}");
        assert!(matches!(ended.code, Some(1 | 2)), "{options:?}: {ended:?}");
    }
    queue.holds("jobs", 2).await;
}

#[tokio::test]
async fn batch_is_submitted_without_a_gateway() {
    let queue = Queue::start().await;
    let (function, receiver) = (HttpServer::start().await, HttpServer::start().await);
    let lines = "{\"function\":\"figlet\",\"body\":\"a\",\"headers\":{\"X-Delay\":\"1s\"}}\n\
                 {\"function\":\"figlet.openfaas-fn\",\"callId\":\"own\"}\n";
    let done = format!("--callback-url={}/done", receiver.url());
    let submit = ["batch", "report-7", "--queue=jobs", &done, "--submit"];
    let ended = aq_with_file(&queue, &submit, lines).await;
    assert_eq!((ended.code, ended.text().as_str()), (Some(0), "report-7\n"), "{ended:?}");
    let repeat = [&["batch", "report-7", "-ojson"], &submit[2..]].concat();
    let ended = aq_with_file(&queue, &repeat, lines).await;
    assert!(ended.stderr.contains("`report-7` was stored before"), "{ended:?}");
    let stored: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!((&stored["batchId"], &stored["calls"][1]), (&json!("report-7"), &json!("own")));
    queue.holds("jobs", 2).await;

    let other = "{\"function\":\"figlet\"}\n{\"function\":\"a b\"}";
    for (content, expected, code) in [
        (other, "line 2: function name `a b`", 1),
        ("{}", "line 1: it is not a call", 2),
        ("", "the batch is empty", 2),
        ("{\"function\":\"figlet\"}", "`report-7` belongs to another batch", 1),
    ] {
        let ended = aq_with_file(&queue, &submit, content).await;
        assert!(ended.code == Some(code) && ended.stderr.contains(expected), "{ended:?}");
    }
    queue.holds("jobs", 2).await;

    let _worker = queue.worker(&function, &[]);
    let callback = receiver.receives(1).await.remove(0);
    let report: Value = serde_json::from_slice(&callback.body).unwrap();
    assert_eq!((&report["state"], &report["counts"]["done"]), (&json!("ended"), &json!(2)));
}
