//! Stores without room for what ends calls: the queue's stream of results, and the whole of NATS.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use async_nats::jetstream::{message::PublishMessage, stream::Config};
use asyncqueue::{
    buckets::TOMBSTONES,
    reserve::{FillOutcome, H_FULL_AT, STREAM, keep_full},
};
use futures::{StreamExt, stream};
use test_support::{
    http::{HttpServer, respond},
    loopback::free_port,
    nats::NatsServer,
    program::Program,
    raw,
    wait::{until, until_in},
};

use crate::{
    gateway::Gateway,
    support::{Queue, callback_at, start_worker},
};

/// How large the store of NATS is, in bytes.
const STORE: &str = "67108864";

/// The body of a call that fills it.
const BODY: usize = 400 * 1024;

/// Calls that are submitted at once.
const CLIENTS: usize = 8;

/// For a store that is full to drain by itself.
const DRAIN_TIME: Duration = Duration::from_secs(60);

/// The sum of a worker's metric over the series whose labels hold this text.
async fn metric(admin: &str, name: &str, labels: &str) -> u64 {
    let text = raw::request(admin.parse().unwrap(), "GET", "/metrics", &[], b"").await.text();
    let series = text.lines().filter(|line| line.starts_with(name) && line.contains(labels));
    series.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
}

fn count(worker: &Program, text: &str) -> usize {
    worker.log().iter().filter(|line| line.contains(text)).count()
}

#[tokio::test]
async fn a_full_stream_of_results_holds_no_slot_for_long() {
    const CALLS: usize = 4;
    let queue = Queue::start().await;
    let (function, receiver) = (HttpServer::start().await, HttpServer::start().await);
    let hanging = HttpServer::answering(|_| Box::pin(std::future::pending())).await;
    let gateway = Gateway::before(&queue, &[]).await;
    let admin = format!("127.0.0.1:{}", free_port());
    let worker = queue.worker(&function, &[("max_inflight", "2"), ("http_addr", &admin)]);
    // One result fills the stream, and no receiver takes it.
    let mut results = queue.info("jobs-callbacks").await.config;
    results.max_messages = 1;
    queue.js.update_stream(results).await.unwrap();
    queue.submit(|call| call.callback_url = Some(callback_at(&hanging))).await;
    hanging.receives(1).await;
    queue.empties().await;

    let callback = callback_at(&receiver).as_url().to_string();
    let mut ids = Vec::new();
    for _ in 0..CALLS {
        ids.push(gateway.submit(&[("x-callback-url", &callback)], "hi").await);
    }
    // Each leaves its slot before its result is stored, up to as many as there are slots.
    function.receives(1 + CALLS).await;
    let status = gateway.call("GET", &format!("/async-function/{}", ids[0]), &[], "").await.json();
    assert_eq!(
        (&status["state"], &status["blocked"]),
        (&"running".into(), &"the result can't be stored: stream_full".into())
    );
    let blocked = || metric(&admin, "queue_worker_calls_blocked{", r#"reason="stream_full""#);
    until("the metric says so", async || (blocked().await == CALLS as u64).then_some(())).await;
    // It has run, which a cancellation that can't store its own result does not change.
    let answer = gateway.call("DELETE", &format!("/async-function/{}", ids[0]), &[], "").await;
    assert!([409, 503].contains(&answer.status), "{}", answer.text());

    until_in(DRAIN_TIME, "all results are posted", async || {
        (receiver.received().len() >= CALLS).then_some(())
    })
    .await;
    queue.empties().await;
    assert_eq!((function.received().len(), receiver.received().len()), (1 + CALLS, CALLS));
    assert_eq!(blocked().await, 0);
    let not_stored =
        metric(&admin, "queue_worker_records_not_stored_total{", r#"reason="stream_full""#).await;
    assert!(not_stored > CALLS as u64, "{not_stored}");
    // One in ten seconds, however many wait.
    let warnings = count(&worker, "failed to store the result of a call, retrying");
    assert!((1..=5).contains(&warnings), "{warnings} warnings");
}

/// Fills the store with calls with callbacks, until no more are taken; returns the ids of those
/// that were.
async fn fill(gateway: &Gateway, functions: &[&str], callback: &str) -> Vec<String> {
    let submit = async |function: &str| {
        let headers = [("x-callback-url", callback)];
        let body = "x".repeat(BODY);
        let answer =
            gateway.call("POST", &format!("/async-function/{function}"), &headers, body).await;
        match answer.status {
            202 => Some(answer.header("x-call-id").to_owned()),
            429 => {
                assert!(!answer.header("retry-after").is_empty());
                None
            }
            other => panic!("{other}: {}", answer.text()),
        }
    };
    let (mut ids, mut is_full) = (Vec::new(), false);
    while !is_full {
        let submits = functions.iter().cycle().take(CLIENTS).map(|function| submit(function));
        let answers: Vec<_> = stream::iter(submits).buffer_unordered(CLIENTS).collect().await;
        is_full = answers.iter().any(Option::is_none);
        ids.extend(answers.into_iter().flatten());
    }
    ids
}

/// nats-server with a small store, a gateway that keeps its reserve, and how large that is.
async fn start(queues: &[(&str, &str)]) -> (NatsServer, Gateway, u64) {
    let mut nats = NatsServer::prepare().with_max_file_store(STORE);
    nats.run().await;
    let js = nats.jetstream().await;
    let names: Vec<_> = queues.iter().map(|(queue, _)| format!("{queue}: ")).collect();
    let routes: Vec<_> =
        queues.iter().map(|(queue, function)| format!("{function}: {{queue: {queue}}}")).collect();
    let directory =
        format!("queues: {{{}}}\nfunctions: {{{}}}", names.join(", "), routes.join(", "));
    let gateway = Gateway::start(&nats, &directory, &[("ensure_stream", "true")]).await;
    gateway.is_ready().await;
    let full = until("the reserve is full", async || {
        let info = js.get_stream(STREAM).await.ok()?.cached_info().clone();
        let full: u64 = info.config.metadata.get("asyncqueue.io/reserve-bytes")?.parse().ok()?;
        (full > 0 && info.state.bytes >= full).then_some(full)
    })
    .await;
    (nats, gateway, full)
}

/// A store that is full of the calls of these functions, each of a queue of its own, drains by
/// itself.
async fn drains(queues: &[(&str, &str)]) {
    let (nats, gateway, full) = start(queues).await;
    let js = nats.jetstream().await;
    let function =
        HttpServer::answering(|request| respond(200, &"y".repeat(request.body.len()))).await;
    let receiver = HttpServer::start().await;
    let functions: Vec<_> = queues.iter().map(|(_, function)| *function).collect();
    let mut ids = fill(&gateway, &functions, callback_at(&receiver).as_url().as_str()).await;
    println!("{} calls fill the store; the reserve holds {full} bytes", ids.len());
    let held = async || js.get_stream(STREAM).await.unwrap().cached_info().state.bytes;
    until("the reserve gives its room to what ends calls", async || {
        (held().await < full).then_some(())
    })
    .await;
    let begun = Instant::now();
    let _workers: Vec<_> = queues
        .iter()
        .flat_map(|(queue, _)| [queue, queue])
        .map(|queue| {
            start_worker(&nats, &function, &[("queue_name", queue), ("max_inflight", "4")])
        })
        .collect();
    until_in(DRAIN_TIME, "each result is delivered", async || {
        (receiver.received().len() >= ids.len()).then_some(())
    })
    .await;
    for (queue, _) in queues {
        for stream in [(*queue).to_owned(), format!("{queue}-callbacks")] {
            until(&format!("{stream} is empty"), async || {
                let messages = js.get_stream(&stream).await.ok()?.cached_info().state.messages;
                (messages == 0).then_some(())
            })
            .await;
        }
    }
    println!("drained in {:?}", begun.elapsed());
    // Each once, with its own content.
    let mut delivered: BTreeMap<String, usize> = BTreeMap::new();
    for result in receiver.received() {
        assert_eq!((result.header("x-function-status"), result.body.len()), ("200", BODY));
        *delivered.entry(result.header("x-call-id").to_owned()).or_default() += 1;
    }
    ids.sort();
    assert_eq!(delivered.keys().cloned().collect::<Vec<_>>(), ids);
    assert!(delivered.values().all(|count| *count == 1), "{delivered:?}");
    assert_eq!(function.received().len(), ids.len());
    // The reserve is filled again, and calls are accepted.
    until_in(DRAIN_TIME, "calls are accepted again", async || {
        let answer = gateway.call("POST", "/async-function/figlet", &[], "hi").await;
        (answer.status == 202).then_some(())
    })
    .await;
    assert!(held().await >= full);
}

#[tokio::test]
async fn a_full_store_of_one_queue_drains_by_itself() {
    drains(&[("jobs", "figlet")]).await;
}

#[tokio::test]
async fn a_full_store_of_two_queues_drains_by_itself() {
    drains(&[("jobs", "figlet"), ("other", "cows")]).await;
}

#[tokio::test]
async fn a_release_that_was_cut_short_is_finished() {
    const COPIES: usize = 3;
    let queue = Queue::start().await;
    let names = ["", "-2", "-3"].map(|number| format!("{STREAM}{number}"));
    let held = async || {
        let mut held = Vec::new();
        for name in &names {
            held.push(queue.info(name).await.state.bytes);
        }
        held
    };
    assert_eq!(keep_full(&queue.js, COPIES).await.unwrap(), FillOutcome::Filled);
    assert_eq!(keep_full(&queue.js, COPIES).await.unwrap(), FillOutcome::Full);
    assert!(held().await.iter().all(|bytes| *bytes >= 16 << 20), "{:?}", held().await);
    // As a cluster does that has no leader for a moment.
    let second = &names[1];
    queue.js.get_stream(second).await.unwrap().purge().await.unwrap();
    let note = PublishMessage::build().header(H_FULL_AT, "1");
    queue.js.send_publish(second.clone(), note).await.unwrap().await.unwrap();
    assert_eq!(keep_full(&queue.js, COPIES).await.unwrap(), FillOutcome::NoSpace);
    assert!(held().await.iter().all(|bytes| *bytes < 1 << 10), "{:?}", held().await);
}

#[tokio::test]
async fn a_reserve_that_finds_no_room_remembers_that() {
    let mut nats = NatsServer::prepare().with_max_file_store(STORE);
    nats.run().await;
    let js = nats.jetstream().await;
    assert_eq!(keep_full(&js, 1).await.unwrap(), FillOutcome::Filled);
    js.get_stream(STREAM).await.unwrap().purge().await.unwrap();
    let config = Config { name: "other".to_owned(), ..Config::default() };
    js.create_stream(config).await.unwrap();
    for _ in 0..100 {
        js.publish("other", vec![0; BODY].into()).await.unwrap().await.unwrap();
    }
    assert_eq!(keep_full(&js, 1).await.unwrap(), FillOutcome::NoSpace);
    let stream = js.get_stream(STREAM).await.unwrap();
    let note = stream.get_last_raw_message_by_subject(STREAM).await.unwrap();
    let full_at: usize = note.headers.get(H_FULL_AT).unwrap().as_str().parse().unwrap();
    assert!(full_at >= 100 * BODY, "{full_at}");
}

#[tokio::test]
async fn a_call_in_a_full_store_is_cancelled() {
    let (nats, gateway, _) = start(&[("jobs", "figlet")]).await;
    let (function, receiver) = (HttpServer::start().await, HttpServer::start().await);
    let ids = fill(&gateway, &["figlet"], callback_at(&receiver).as_url().as_str()).await;
    // Neither a tombstone nor a result has room, but for that of the reserve.
    let answer = gateway.call("DELETE", &format!("/async-function/{}", ids[0]), &[], "").await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    let refused = until("calls are refused for the sake of the reserve", async || {
        let answer = gateway.call("POST", "/async-function/figlet", &[], "hi").await;
        (answer.status == 429).then_some(answer)
    })
    .await;
    assert!(refused.text().contains("reserved for calls that end"), "{}", refused.text());
    let _worker = start_worker(&nats, &function, &[("max_inflight", "4")]);
    let results = receiver.receives(ids.len()).await;
    let of_cancelled = results.iter().find(|result| result.header("x-call-id") == ids[0]).unwrap();
    assert_eq!(of_cancelled.header("x-function-status"), "499");
}

#[tokio::test]
async fn a_worker_without_a_tombstone_bucket_ends_calls() {
    let (queue, receiver) = (Queue::start().await, HttpServer::start().await);
    let function = HttpServer::answering(|request| match &request.body[..] {
        b"fails" => respond(500, "no"),
        _ => respond(200, "ok"),
    })
    .await;
    queue.js.delete_key_value(TOMBSTONES.name).await.unwrap();
    let _worker = queue.worker(&function, &[("max_retry_attempts", "2")]);
    for body in ["works", "fails"] {
        queue
            .submit(|call| {
                call.body = body.into();
                call.callback_url = Some(callback_at(&receiver));
            })
            .await;
    }
    queue.holds("jobs-dead", 1).await;
    queue.empties().await;
    let mut statuses: Vec<_> = receiver
        .receives(2)
        .await
        .iter()
        .map(|result| result.header("x-function-status").to_owned())
        .collect();
    statuses.sort();
    assert_eq!(statuses, ["200", "500"]);
    assert_eq!(function.received().len(), 3);
}
