//! The console: what clients, functions and workers send is text on its pages.

use async_nats::HeaderMap;
use asyncqueue::{
    QueueName,
    message::dead_letter::{H_ATTEMPTS, H_REASON},
    stats::STATS_REQUEST,
    worker_requests::status_request_subject,
};
use futures::StreamExt;
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use test_support::raw::RawResponse;

use crate::console::Stage;

/// Ends an attribute and an element, and begins a script and an element with an event.
const HOSTILE: &str = "\"'></td><script>alert(1)</script><img src=x onerror=alert(1)>";

/// What is shown of [`HOSTILE`]: `maud` escapes quotes and angle brackets.
const ESCAPED: &str = "&lt;script&gt;alert(1)&lt;/script&gt;";

/// Fails if a response has markup of a hostile text. What is not HTML must be plain text.
fn assert_text(target: &str, response: &RawResponse) {
    let text = response.text();
    if response.header("content-type").starts_with("text/html") {
        let is_markup =
            ["<script>", "<img", "</td><script", "\"'>"].iter().any(|part| text.contains(part));
        assert!(!is_markup, "{target}: {text}");
    } else if !text.is_empty() {
        assert!(response.header("content-type").starts_with("text/plain"), "{target}: {text}");
    }
    assert_eq!(response.header("x-content-type-options"), "nosniff", "{target}");
    assert!(response.header("content-security-policy").contains("script-src 'self'"), "{target}");
}

#[tokio::test]
async fn what_clients_functions_and_workers_send_is_text() {
    let stage = Stage::start().await;
    let console = stage.console(&[("show_payloads", "true")]).await;
    let target = format!("/async-function/figlet/{}?q={0}", encode(HOSTILE));
    let headers = [
        ("x-evil", HOSTILE),
        ("content-type", HOSTILE),
        ("idempotency-key", "script-alert-1"),
        ("x-callback-url", "http://127.0.0.1:9/<script>alert(1)</script>?a=\"'><img src=x>"),
        ("x-keep-result", "1h"),
    ];
    let body = format!("{HOSTILE}\u{1}\u{7f}\u{1b}[31m\u{202e}");
    let stored = stage.gateway.call("POST", &target, &headers, &body).await;
    assert_eq!(stored.status, 202, "{}", stored.text());
    let call = format!("/calls/{}", stored.header("x-call-id"));
    let waiting = console.page(&call).await;
    assert!(waiting.contains(ESCAPED), "{waiting}");
    assert!(waiting.contains("x-evil") && waiting.contains("content-type"), "{waiting}");
    assert!(!waiting.contains(['\u{202e}', '\u{1b}']), "{waiting}");
    assert_text(&call, &console.get(&call).await);

    let worker = stage.queue.worker(&stage.function, &[("max_retry_attempts", "1")]);
    stage.gateway.submit(&[], "fail").await;
    stage.queue.holds("jobs-dead", 1).await;
    stage.queue.holds("jobs", 0).await;
    drop(worker);
    let mut letter = HeaderMap::new();
    letter.insert(H_REASON, HOSTILE);
    letter.insert("Async-Dead-Worker", HOSTILE);
    letter.insert(H_ATTEMPTS, HOSTILE);
    let js = &stage.queue.js;
    let subject = "jobs-dead.openfaas-fn.figlet.call-evil";
    js.publish_with_headers(subject, letter, HOSTILE.into()).await.unwrap().await.unwrap();

    let queue: QueueName = "jobs".parse().unwrap();
    let client = js.client();
    let mut questions = client.subscribe(status_request_subject(&queue)).await.unwrap();
    client.flush().await.unwrap();
    let answers = tokio::spawn(async move {
        let stats = serde_json::json!({
            "worker": HOSTILE, "instance": HOSTILE, "running": 1, "maxInflight": 5,
            "blocked": [{"record": HOSTILE, "reason": HOSTILE, "calls": 1}],
        });
        while let Some(question) = questions.next().await {
            if question.payload == STATS_REQUEST.as_bytes()
                && let Some(reply) = question.reply
            {
                client.publish(reply, stats.to_string().into()).await.unwrap();
            }
        }
    });
    console.shows("/queues/jobs", ESCAPED).await;
    console.shows("/queues/jobs/dead", ESCAPED).await;
    console.shows(&call, ESCAPED).await;
    for page in ["/", "/queues/jobs", "/queues/jobs/dead", "/batches", &call] {
        assert_text(page, &console.get(page).await);
    }
    answers.abort();
}

#[tokio::test]
async fn what_viewers_type_is_text() {
    let stage = Stage::start().await;
    let console = stage.console(&[]).await;
    for text in [HOSTILE, "<script>alert(1)</script>\u{0}\r\n\u{1b}[31m", "\u{202e}<img src=x>"] {
        let text = encode(text);
        for target in [
            "/TEXT",
            "/?filter=TEXT",
            "/?sort=TEXT",
            "/?page=TEXT",
            "/queues/TEXT",
            "/queues/TEXT/dead",
            "/queues/jobs/dead?from=TEXT",
            "/queues/jobs/dead?function=TEXT&reason=TEXT",
            "/calls/TEXT",
            "/search?id=TEXT",
            "/search?id=a&kind=TEXT",
            "/batches?page=TEXT",
            "/batches/TEXT",
            "/assets/TEXT",
        ] {
            let target = target.replace("TEXT", &text);
            let response = console.get(&target).await;
            assert!(response.status < 500, "{target}: {}", response.text());
            assert_text(&target, &response);
        }
    }
}

fn encode(text: &str) -> String {
    percent_encode(text.as_bytes(), NON_ALPHANUMERIC).to_string()
}
