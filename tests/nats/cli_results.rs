//! `kubectl aq result`, `batch` and `cancel --batch`.

use serde_json::{Value, json};
use test_support::{
    http::{HttpServer, respond, respond_after},
    wait::{WAIT_TIMEOUT, until},
};

use crate::{
    cli::{aq, aq_ok},
    gateway::Gateway,
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
    for (id, expected) in [("plain", "not kept"), ("unknown", "not found on any queue")] {
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
