//! How long invocations take, as workers count it and the console shows it.

use std::time::Duration;

use crate::{console, support::Queue};
use asyncqueue::{
    GoDuration,
    stats::{STATS_REQUEST, WorkerReplies, request_stats},
    worker_requests::status_request_subject,
};
use futures::StreamExt;
use test_support::{
    http::{HttpServer, respond_after},
    wait::until,
};

/// How long the function takes.
const DURATION: Duration = Duration::from_millis(200);

/// The least duration that is counted in the bucket of 200 ms.
const LOWER_LIMIT: Duration = Duration::from_millis(128);

/// More than an invocation takes, also on a busy machine.
const UPPER_LIMIT: Duration = Duration::from_secs(60);

async fn slow_function() -> HttpServer {
    HttpServer::answering(|request| {
        let status = if request.body.as_ref() == b"fail" { 500 } else { 200 };
        respond_after(DURATION, status, "ok")
    })
    .await
}

#[tokio::test]
async fn worker_reports_ended_invocations_by_duration() {
    let queue = Queue::start().await;
    let function = slow_function().await;
    let _worker = queue.worker(&function, &[("max_retry_attempts", "1")]);
    let (client, name) = (queue.js.client(), queue.spec.queue.clone());
    let counts = async || {
        let replies = request_stats(&client, std::slice::from_ref(&name)).await.unwrap();
        let WorkerReplies::Replied(workers) = &replies[&name] else { return None };
        workers[0].durations.clone()
    };
    let idle = until("the worker replies", counts).await;
    assert!(idle.is_empty(), "{idle:?}");
    for body in ["ok", "fail", "ok"] {
        queue.submit(|call| call.body = body.into()).await;
    }
    let counts = until("three invocations are counted", async || {
        let counts = counts().await?;
        let json = serde_json::to_value(&counts).unwrap();
        let ended: u64 = json.as_object()?.values().filter_map(serde_json::Value::as_u64).sum();
        (ended == 3).then_some(counts)
    })
    .await;
    for percent in [1, 50, 100] {
        let millis = counts.percentile(percent).unwrap().get();
        let duration = Duration::from_millis(millis.into());
        assert!(LOWER_LIMIT < duration && duration < UPPER_LIMIT, "{percent} %: {duration:?}");
    }
}

#[tokio::test]
async fn durations_are_shown_of_a_queue_that_runs_calls() {
    let stage = console::Stage::start().await;
    let console = stage.console(&[]).await;
    let function = slow_function().await;
    let _worker = stage.queue.worker(&function, &[]);
    let idle = console.shows("/queues/jobs", "1 worker<").await;
    assert!(idle.contains("Duration of invocations"), "{idle}");
    assert!(idle.contains("No invocation has ended in this time."), "{idle}");
    assert!(!idle.contains("are not known"), "{idle}");
    for _ in 0..3 {
        stage.gateway.submit(&[], "ok").await;
    }
    let page = console.shows("/queues/jobs", "; at most ").await;
    assert!(page.contains("<title>Duration of invocations: p95, and p50 (dashed)</title>"));
    let (_, highest) = page.split_once("; at most ").unwrap();
    let highest: GoDuration = highest.split('<').next().unwrap().parse().unwrap();
    assert!(LOWER_LIMIT < highest.0 && highest.0 < UPPER_LIMIT, "{highest}");
    // Samples without an invocation do not change the chart.
    console.shows("/queues/jobs", "now none; at most ").await;
    // Of the last sample, which a page may come too late for.
    console.shows("/?sort=duration", "<td class=\"number\">-</td></tr>").await;
    until("the list has a duration", async || {
        stage.gateway.submit(&[], "ok").await;
        let page = console.page("/?sort=duration").await;
        page.contains("s</td></tr>").then_some(())
    })
    .await;
}

#[tokio::test]
async fn workers_that_do_not_report_durations_are_named() {
    let stage = console::Stage::start().await;
    let client = stage.queue.js.client();
    let subject = status_request_subject(&stage.queue.spec.queue);
    let mut requests = client.subscribe(subject).await.unwrap();
    client.flush().await.unwrap();
    tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            let json = r#"{"worker":"earlier","running":0,"maxInflight":5}"#;
            if let Some(inbox) = request.reply.filter(|_| request.payload == STATS_REQUEST) {
                client.publish(inbox, json.into()).await.unwrap();
            }
        }
    });
    let console = stage.console(&[]).await;
    let page = console.shows("/queues/jobs", "The durations of 1 worker are not known").await;
    assert!(page.contains("versions before 0.2 do not report them"), "{page}");
    assert!(page.contains("No invocation has ended in this time."), "{page}");
}
