//! `kubectl aq cancel --function` and `--all`: the calls that are stored, and no other.

use std::time::Duration;

use asyncqueue::{
    FunctionName,
    call::QueueLocation,
    cancel::{ManyCancelCounts, StoredCalls},
    directory::QueueEntry,
    stream::{QueueSpec, ensure_queue},
};
use futures::StreamExt;
use test_support::{http::HttpServer, wait::until};

use crate::{
    cli::{aq, aq_ok},
    support::{Queue, callback_at, publish_raw},
};

/// More calls than are cancelled concurrently, and than parts of the sequences of a stream.
const MANY: u64 = 300;

fn function(name: &str) -> FunctionName {
    FunctionName::new(name, "openfaas-fn").unwrap()
}

fn location(queue: &Queue) -> QueueLocation {
    let entry = QueueEntry::new(&*queue.spec.stream, &*queue.spec.subject);
    QueueLocation { queue: queue.spec.queue.clone(), entry }
}

async fn submit_many(queue: &Queue, name: &str) {
    for _ in 0..MANY {
        queue.submit(|call| call.function = function(name)).await;
    }
}

/// A function that answers only calls of `other`.
async fn answers_only_other() -> HttpServer {
    HttpServer::answering(|request| match request.target.as_str() {
        "/other" => test_support::http::respond(200, "done"),
        _ => Box::pin(std::future::pending()),
    })
    .await
}

#[tokio::test]
async fn waiting_and_running_calls_of_a_function_are_cancelled() {
    let (queue, functions) = (Queue::start().await, answers_only_other().await);
    let receiver = HttpServer::start().await;
    let _worker = queue.worker(&functions, &[("max_inflight", "1")]);
    let mut cancelled = Vec::new();
    for _ in 0..3 {
        let id = queue.submit(|call| call.callback_url = Some(callback_at(&receiver))).await;
        cancelled.push(id.to_string());
        functions.receives(1).await;
    }
    let other = queue
        .submit(|call| (call.function, call.path) = (function("other"), "/other".to_owned()))
        .await;

    for place in [&["--function", "figlet"][..], &["--function", "figlet", "jobs"]] {
        let refused = aq(&queue, &[&["cancel"], place].concat()).await;
        assert_eq!(refused.code, Some(2), "{refused:?}");
        let parts = ["add --yes", "`figlet.openfaas-fn`", "at most 3, on queues: 1"];
        for part in parts {
            assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
        }
    }
    queue.holds("jobs", 4).await;

    let said = aq_ok(&queue, &["cancel", "--function", "figlet", "--yes"]).await;
    assert_eq!(said, "calls cancelled: 3, of them running: 1, ended before: 0\n");
    until("the connection is closed", async || (functions.running() == 0).then_some(())).await;
    queue.empties().await;
    let results = receiver.receives(3).await;
    assert!(results.iter().all(|result| result.header("x-function-status") == "499"));
    let mut ids: Vec<_> = results.iter().map(|result| result.header("x-call-id")).collect();
    ids.sort_unstable();
    cancelled.sort_unstable();
    assert_eq!(ids, cancelled);
    let run: Vec<_> = functions.received().iter().map(|call| call.target.clone()).collect();
    assert_eq!(run, ["/", "/other"]);
    assert!(aq_ok(&queue, &["status", other.as_str()]).await.contains("done"));

    let repeated = aq_ok(&queue, &["cancel", "--function", "figlet", "--yes"]).await;
    assert_eq!(repeated, "calls cancelled: 0, of them running: 0, ended before: 0\n");
}

#[tokio::test]
async fn calls_are_removed_without_a_result() {
    let queue = Queue::start().await;
    let receiver = HttpServer::start().await;
    let last = queue.submit(|call| call.callback_url = Some(callback_at(&receiver))).await;
    queue.submit(|call| call.function = function("other")).await;
    queue.js.publish("jobs", r#"{"Function":"figlet"}"#.into()).await.unwrap().await.unwrap();

    for (arguments, count) in [(&["jobs"][..], 3), (&["jobs", "--function", "figlet"], 1)] {
        let refused = aq(&queue, &[&["purge"], arguments].concat()).await;
        assert_eq!(refused.code, Some(2), "{refused:?}");
        let asked = format!("queue `jobs`: {count}\n");
        assert!(refused.stderr.contains("add --yes") && refused.stderr.contains(&asked));
    }
    queue.holds("jobs", 3).await;
    let said = aq_ok(&queue, &["purge", "jobs", "--function", "figlet", "--yes"]).await;
    assert_eq!(said, "calls removed: 1\n");
    queue.holds("jobs", 2).await;
    let unknown = aq(&queue, &["status", last.as_str()]).await;
    assert!(unknown.code == Some(1) && unknown.stderr.contains("not found"), "{unknown:?}");
    assert_eq!(aq_ok(&queue, &["purge", "jobs", "--yes"]).await, "calls removed: 2\n");
    assert_eq!(aq_ok(&queue, &["purge", "jobs", "--yes"]).await, "calls removed: 0\n");
    queue.holds("jobs", 0).await;
    queue.holds("jobs-callbacks", 0).await;
    assert!(receiver.received().is_empty());
}

#[tokio::test]
async fn call_that_comes_after_the_count_is_not_removed() {
    let queue = Queue::start().await;
    queue.submit(|_| {}).await;
    for function in [None, Some(function("figlet"))] {
        let stored = StoredCalls::find(&queue.js, location(&queue), function.as_ref()).await;
        queue.submit(|_| {}).await;
        assert_eq!(stored.unwrap().purge(&queue.js).await.unwrap(), 1);
        queue.holds("jobs", 1).await;
    }
}

#[tokio::test]
async fn whole_queue_is_cancelled_and_what_is_left_is_named() {
    let queue = Queue::start().await;
    submit_many(&queue, "figlet").await;
    submit_many(&queue, "other").await;
    queue.js.publish("jobs", r#"{"Function":"figlet"}"#.into()).await.unwrap().await.unwrap();
    let openfaas = "no id to be cancelled by: 1\n";

    let refused = aq(&queue, &["cancel", "--all", "jobs"]).await;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("`jobs`: at most 600, on queues: 1"), "{refused:?}");
    assert!(refused.stderr.contains(openfaas), "{refused:?}");
    for bad in [&["--all", "-"][..], &["--all", "-", "--yes"]] {
        let refused = aq(&queue, &[&["cancel"], bad].concat()).await;
        assert!(
            refused.code == Some(2) && refused.stderr.contains("--all needs the name of a queue"),
            "{refused:?}"
        );
    }
    let unknown = aq(&queue, &["cancel", "--all", "unknown", "--yes"]).await;
    assert!(
        unknown.code == Some(1) && unknown.stderr.contains("no queue `unknown`"),
        "{unknown:?}"
    );
    queue.holds("jobs", 601).await;

    let ended = aq(&queue, &["cancel", "--function=figlet", "jobs", "--yes"]).await;
    assert_eq!(ended.text(), "calls cancelled: 300, of them running: 0, ended before: 0\n");
    assert!(ended.code == Some(0) && ended.stderr.contains(openfaas), "{ended:?}");
    queue.holds("jobs", 301).await;

    let subject = "jobs.openfaas-fn.other.broken";
    publish_raw(&queue, subject, b"NATS/1.0\r\nno colon\r\n\r\n", b"the body").await;
    let ended = aq(&queue, &["cancel", "--all", "jobs", "--yes"]).await;
    assert_eq!((ended.code, ended.text().as_str()), (Some(1), ""), "{ended:?}");
    let parts = ["calls cancelled: 300, ", "can't be read: 1.", openfaas];
    for part in parts {
        assert!(ended.stderr.contains(part), "{part}: {}", ended.stderr);
    }
    queue.holds("jobs", 2).await;
}

#[tokio::test]
async fn call_that_comes_after_the_count_is_left() {
    let queue = Queue::start().await;
    let (figlet, other) = (function("figlet"), function("other"));
    submit_many(&queue, "figlet").await;
    queue.submit(|call| call.function = other.clone()).await;
    let find = async |function| StoredCalls::find(&queue.js, location(&queue), function).await;
    let of_figlet = find(Some(&figlet)).await.unwrap();
    let all = find(None).await.unwrap();
    assert_eq!((of_figlet.count(), all.count()), (MANY, MANY + 1));
    let late = queue.submit(|call| call.function = figlet.clone()).await;

    let counts = of_figlet.cancel(&queue.js, Duration::from_secs(5)).await.unwrap();
    assert_eq!((counts.calls.cancelled, counts.calls.unconfirmed), (MANY, 0));
    queue.holds("jobs", 2).await;
    let counts = all.cancel(&queue.js, Duration::from_secs(5)).await.unwrap();
    assert_eq!(counts.calls.cancelled, 1);
    queue.holds("jobs", 1).await;
    assert!(aq_ok(&queue, &["status", late.as_str()]).await.contains("queued"));

    let nothing = find(Some(&other)).await.unwrap();
    assert_eq!((nothing.count(), nothing.without_id()), (0, 0));
    let counts = nothing.cancel(&queue.js, Duration::ZERO).await.unwrap();
    assert_eq!(counts, ManyCancelCounts::default());
}

#[tokio::test]
async fn calls_of_a_worker_that_is_gone_are_not_confirmed() {
    let queue = Queue::start().await;
    // Longer than the command waits.
    let long = QueueSpec { ack_wait: Duration::from_secs(60), ..queue.spec.clone() };
    ensure_queue(&queue.js, &long, false).await.unwrap();
    for _ in 0..40 {
        queue.submit(|_| {}).await;
    }
    let consumer = queue.consumer().await;
    let delivered: Vec<_> =
        consumer.fetch().max_messages(30).messages().await.unwrap().collect().await;
    assert_eq!(delivered.len(), 30);

    let ended = aq(&queue, &["cancel", "--all", "jobs", "--yes"]).await;
    assert_eq!((ended.code, ended.text().as_str()), (Some(1), ""), "{ended:?}");
    assert!(ended.stderr.contains("calls cancelled: 10, "), "{ended:?}");
    assert!(ended.stderr.contains("do not respond: 30, "), "{ended:?}");
    queue.empties().await;
}
