//! `kubectl aq`: the program itself, against a queue with a worker that makes the dead letters.

use std::time::Duration;

use async_nats::{HeaderMap as NatsHeaders, jetstream::message::StreamMessage};
use asyncqueue::{
    CallId, FunctionName,
    dead_letters::{DeadLetters, ReplayOutcome, Selection},
    directory::{Directory, QueueEntry, store::DirectoryStore},
    jetstream::list_consumers,
    message::native,
};
use serde_json::Value;
use test_support::{
    http::{HttpServer, respond, respond_after},
    loopback::free_port,
    program::{Ended, Program, run, run_unread},
    wait::until,
};

use crate::{
    gateway::Gateway,
    support::{Queue, call, callback_at, publish_raw},
};

/// Settings of a worker that gives up at once.
const ONE_ATTEMPT: [(&str, &str); 1] = [("max_retry_attempts", "1")];

/// A body that is no text.
const BODY: &[u8] = b"\x00\xff\nbody\r\n";

/// Runs `kubectl aq` to its end.
pub(crate) async fn aq(queue: &Queue, arguments: &[&str]) -> Ended {
    run("kubectl-aq", arguments, &[("nats_url", &queue.nats.url())]).await
}

/// Runs `kubectl aq` and expects that it succeeds.
pub(crate) async fn aq_ok(queue: &Queue, arguments: &[&str]) -> String {
    let ended = aq(queue, arguments).await;
    assert_eq!(ended.code, Some(0), "{arguments:?}: {}", ended.stderr);
    ended.text()
}

/// The dead letters, as programs read them.
async fn listed(queue: &Queue, arguments: &[&str]) -> Vec<Value> {
    let mut all = vec!["dead", "list", "jobs", "-o", "json"];
    all.extend(arguments);
    serde_json::from_str(&aq_ok(queue, &all).await).unwrap()
}

/// Submits a call of a function.
async fn submit(queue: &Queue, function: &str) -> CallId {
    queue.submit(|call| call.function = FunctionName::new(function, "openfaas-fn").unwrap()).await
}

/// Waits until so many calls are dead letters and none is pending. The worker that stored them is
/// gone then: others are to make what is replayed.
async fn all_dead(queue: &Queue, worker: Program, letters: u64) {
    queue.holds("jobs-dead", letters).await;
    queue.empties().await;
    drop(worker);
}

async fn failing() -> HttpServer {
    HttpServer::answering(|_| respond(500, "sorry")).await
}

#[tokio::test]
async fn dead_letters_are_listed() {
    let (queue, function) = (Queue::start().await, failing().await);
    let worker = queue.worker(&function, &ONE_ATTEMPT);
    let figlet = queue.submit(|call| call.body = BODY.into()).await;
    queue.holds("jobs-dead", 1).await;
    let other = submit(&queue, "other").await;
    all_dead(&queue, worker, 2).await;

    let table = aq_ok(&queue, &["dead", "list", "jobs"]).await;
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 3, "{table}");
    assert!(lines[0].starts_with("CALL ID") && lines[0].ends_with("REASON"), "{table}");
    assert!(lines[1].starts_with(figlet.as_str()), "{table}");
    assert!(lines[1].ends_with("the function answered 500 (attempt 1 of 1)"), "{table}");

    let letters = listed(&queue, &[]).await;
    assert_eq!(letters[0]["callId"], figlet.as_str());
    assert_eq!(letters[0]["function"], "figlet.openfaas-fn");
    assert_eq!((&letters[0]["attempts"], &letters[0]["status"]), (&1.into(), &500.into()));
    assert_eq!((&letters[0]["kind"], &letters[0]["size"]), (&"call".into(), &BODY.len().into()));
    assert!(letters[0]["diedAt"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
    assert_eq!(letters[1]["callId"], other.as_str());

    let names = aq_ok(&queue, &["dead", "list", "jobs", "-o", "name"]).await;
    assert_eq!(names, format!("{figlet}\n{other}\n"));
    let names = aq_ok(&queue, &["dead", "list", "jobs", "--function=none", "-o", "name"]).await;
    assert_eq!(names, "");

    let letters = listed(&queue, &["--function", "other"]).await;
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0]["callId"], other.as_str());
    assert!(listed(&queue, &["--function", "other.elsewhere"]).await.is_empty());
    let none = aq(&queue, &["dead", "list", "jobs", "--function", "other.elsewhere"]).await;
    assert_eq!(
        (none.code, none.text().as_str(), none.stderr.as_str()),
        (Some(0), "", "no dead letters\n")
    );
    // The list leaves nothing behind.
    assert_eq!(queue.info("jobs-dead").await.state.consumer_count, 0);
}

#[tokio::test]
async fn a_list_is_as_long_as_it_is() {
    const LETTERS: usize = 1234;
    let queue = Queue::start().await;
    for n in 0..LETTERS {
        let subject = format!("jobs-dead.openfaas-fn.figlet.id-{n}");
        let mut headers = native::encode(&call());
        headers.insert("Nats-Msg-Id", n.to_string());
        queue.js.publish_with_headers(subject, headers, "hi".into()).await.unwrap();
    }
    queue.holds("jobs-dead", LETTERS as u64).await;
    let letters = listed(&queue, &[]).await;
    assert_eq!(letters.len(), LETTERS);
    let sequences = letters.iter().map(|letter| letter["sequence"].as_u64().unwrap());
    let first = queue.sequence("jobs-dead", 1).await;
    assert!(sequences.eq(first..first + LETTERS as u64));
    assert_eq!(letters[0]["size"], 2);
}

#[tokio::test]
async fn a_dead_letter_that_cannot_be_read_is_named_among_the_rest() {
    let (queue, function) = (Queue::start().await, failing().await);
    let worker = queue.worker(&function, &ONE_ATTEMPT);
    let before = queue.submit(|_| {}).await;
    all_dead(&queue, worker, 1).await;
    let subject = "jobs-dead.openfaas-fn.other.broken";
    publish_raw(&queue, subject, b"NATS/1.0\r\nno colon\r\n\r\n", b"the body").await;
    let worker = queue.worker(&function, &ONE_ATTEMPT);
    let after = queue.submit(|_| {}).await;
    all_dead(&queue, worker, 3).await;

    let letters = listed(&queue, &[]).await;
    let ids: Vec<&str> = letters.iter().map(|letter| letter["callId"].as_str().unwrap()).collect();
    assert_eq!(ids, [before.as_str(), "broken", after.as_str()]);
    assert_eq!(letters[1]["reason"], "its headers can't be read: a line has no colon");
    assert_eq!(
        (&letters[1]["function"], &letters[1]["size"]),
        (&"other.openfaas-fn".into(), &8.into())
    );
    assert_eq!(listed(&queue, &["--function", "figlet"]).await.len(), 2);
    assert_eq!(aq_ok(&queue, &["dead", "show", "jobs", "broken", "--body"]).await, "the body");

    let ended = aq(&queue, &["dead", "replay", "jobs", "--all"]).await;
    assert!(
        ended.code == Some(1) && ended.text().ends_with("2 dead letters replayed\n"),
        "{ended:?}"
    );
    assert!(
        ended.stderr.contains("broken other.openfaas-fn: not replayed, its headers"),
        "{ended:?}"
    );
    assert_eq!(
        aq_ok(&queue, &["dead", "purge", "jobs", "broken"]).await,
        "1 dead letter deleted\n"
    );
    queue.holds("jobs-dead", 0).await;
}

#[tokio::test]
async fn a_dead_letter_is_shown_without_its_body_and_its_secrets() {
    let (queue, function) = (Queue::start().await, failing().await);
    let worker = queue.worker(&function, &ONE_ATTEMPT);
    let id = queue
        .submit(|call| {
            call.body = BODY.into();
            call.path = "/a%2Fb".to_owned();
            call.headers.append("authorization", "Bearer s3cret".parse().unwrap());
            call.headers.append("x-mine", "1".parse().unwrap());
        })
        .await;
    all_dead(&queue, worker, 1).await;

    let text = aq_ok(&queue, &["dead", "show", "jobs", id.as_str()]).await;
    for part in
        [id.as_str(), "the function answered 500", "/a%2Fb", "x-mine: 1", "authorization: (hidden"]
    {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    assert!(!text.contains("s3cret") && !text.contains("body\r"), "{text}");
    let text = aq_ok(&queue, &["dead", "show", "jobs", id.as_str(), "--reveal"]).await;
    assert!(text.contains("authorization: Bearer s3cret"), "{text}");
    let body = aq(&queue, &["dead", "show", "jobs", id.as_str(), "--body"]).await;
    assert_eq!((body.code, &body.stdout[..]), (Some(0), BODY));
}

#[tokio::test]
async fn a_replayed_call_runs_again_with_its_id_its_body_and_its_headers() {
    let (queue, function) = (Queue::start().await, failing().await);
    let id = queue
        .submit(|call| {
            call.body = BODY.into();
            call.path = "/a%2Fb".to_owned();
            call.query = Some("x=%2F".to_owned());
            call.headers.append("x-multi", "a".parse().unwrap());
            call.headers.append("x-multi", "b".parse().unwrap());
        })
        .await;
    let before = pending(&queue, &id).await;
    let worker = queue.worker(&function, &ONE_ATTEMPT);
    all_dead(&queue, worker, 1).await;

    let said = aq_ok(&queue, &["dead", "replay", "jobs", id.as_str()]).await;
    assert!(
        said.contains(&format!("{id} figlet.openfaas-fn: replayed\n1 dead letter replayed")),
        "{said}"
    );
    queue.holds("jobs-dead", 0).await;
    let after = pending(&queue, &id).await;
    assert_eq!(after.payload, before.payload);
    assert_eq!(lines(&after.headers), lines(&before.headers));
    assert_eq!(native::message_id(&after.headers), native::message_id(&before.headers));

    let healthy = HttpServer::start().await;
    let _worker = queue.worker(&healthy, &ONE_ATTEMPT);
    let received = healthy.receives(1).await.remove(0);
    assert_eq!(received.header("x-call-id"), id.as_str());
    assert_eq!(received.header("x-retry"), "1", "attempts are counted from one again");
    assert_eq!(received.target, "/a%2Fb?x=%2F");
    assert_eq!(received.headers.get_all("x-multi").iter().count(), 2);
    assert_eq!(&received.body[..], BODY);
    queue.empties().await;
    assert_eq!(queue.info("jobs-dead").await.state.messages, 0);
}

/// The message of a pending call.
async fn pending(queue: &Queue, call: &CallId) -> StreamMessage {
    let stream = queue.js.get_stream("jobs").await.unwrap();
    stream.direct_get_last_for_subject(format!("jobs.openfaas-fn.figlet.{call}")).await.unwrap()
}

/// The headers of a message, without those that speak to its stream, and the message id that it had
/// there.
fn lines(headers: &NatsHeaders) -> Vec<String> {
    let mut lines: Vec<String> = headers
        .iter()
        .filter(|(name, _)| {
            !name.to_string().starts_with("Nats-") && name.to_string() != native::H_MESSAGE_ID
        })
        .flat_map(|(name, values)| values.iter().map(move |value| format!("{name}: {value}")))
        .collect();
    lines.sort();
    lines
}

#[tokio::test]
async fn call_that_dies_again_can_be_replayed_again_at_once() {
    let (queue, function) = (Queue::start().await, failing().await);
    let _worker = queue.worker(&function, &ONE_ATTEMPT);
    let id = queue.submit(|_| {}).await;
    for attempt in 1..=3 {
        function.receives(attempt).await;
        queue.holds("jobs-dead", 1).await;
        queue.empties().await;
        aq_ok(&queue, &["dead", "replay", "jobs", id.as_str()]).await;
    }
    function.receives(4).await;
    queue.holds("jobs-dead", 1).await;
}

#[tokio::test]
async fn dead_letters_are_replayed_by_function_or_all() {
    let (queue, function) = (Queue::start().await, failing().await);
    let worker = queue.worker(&function, &ONE_ATTEMPT);
    for name in ["figlet", "other", "figlet"] {
        submit(&queue, name).await;
    }
    all_dead(&queue, worker, 3).await;

    let said = aq_ok(&queue, &["dead", "replay", "jobs", "--function", "figlet"]).await;
    assert!(said.ends_with("2 dead letters replayed\n"), "{said}");
    let left = listed(&queue, &[]).await;
    assert_eq!(left.len(), 1);
    assert_eq!(left[0]["function"], "other.openfaas-fn");

    let said = aq_ok(&queue, &["dead", "replay", "jobs", "--all"]).await;
    assert!(said.ends_with("1 dead letter replayed\n"), "{said}");
    let said = aq_ok(&queue, &["dead", "replay", "jobs", "--all"]).await;
    assert_eq!(said, "0 dead letters replayed\n");
    let healthy = HttpServer::start().await;
    let _worker = queue.worker(&healthy, &ONE_ATTEMPT);
    healthy.receives(3).await;
    queue.empties().await;
    assert_eq!(healthy.received().len(), 3);
}

#[tokio::test]
async fn openfaas_message_is_found_by_its_payload_and_replayed() {
    let (queue, function) = (Queue::start().await, failing().await);
    let worker = queue.worker(&function, &ONE_ATTEMPT);
    let json = r#"{"Function":"figlet","Body":"aGk=",
        "Header":{"X-Call-Id":["theirs"],"Cookie":["s3cret"]}}"#;
    for _ in 0..2 {
        queue.js.publish("jobs", json.into()).await.unwrap().await.unwrap();
    }
    all_dead(&queue, worker, 2).await;

    let letters = listed(&queue, &["--function", "figlet"]).await;
    assert_eq!(letters.len(), 2);
    assert_eq!(letters[0]["callId"], "theirs");
    let first = queue.sequence("jobs-dead", 1).await;
    let [first, second] = [first, first + 1].map(|sequence| sequence.to_string());
    let text = aq_ok(&queue, &["dead", "show", "jobs", "theirs", "--sequence", &second]).await;
    assert!(text.contains("Sequence:") && !text.contains("s3cret"), "{text}");
    let ambiguous = aq(&queue, &["dead", "show", "jobs", "theirs", "--body"]).await;
    let both = format!("--sequence: {first}, {second}");
    assert!(ambiguous.code == Some(1) && ambiguous.stderr.contains(&both), "{ambiguous:?}");
    let body =
        aq_ok(&queue, &["dead", "show", "jobs", "theirs", "--body", "--sequence", &first]).await;
    assert_eq!(body, "hi");

    // Two calls that share an id.
    let replayed = aq_ok(&queue, &["dead", "replay", "jobs", "theirs"]).await;
    assert!(replayed.ends_with("2 dead letters replayed\n"), "{replayed}");
    queue.holds("jobs", 2).await;
    let again = pending(&queue, &"theirs".parse().unwrap()).await;
    assert_eq!(&again.payload[..], json.as_bytes());
    let healthy = HttpServer::start().await;
    let _worker = queue.worker(&healthy, &ONE_ATTEMPT);
    for received in healthy.receives(2).await {
        assert_eq!(received.header("x-call-id"), "theirs");
    }
    queue.empties().await;
    queue.holds("jobs-dead", 0).await;
}

#[tokio::test]
async fn undecodable_message_is_replayed_unchanged() {
    let (queue, function) = (Queue::start().await, HttpServer::start().await);
    let worker = queue.worker(&function, &ONE_ATTEMPT);
    let mut headers = NatsHeaders::new();
    headers.insert("Async-Version", "99");
    queue
        .js
        .publish_with_headers("jobs", headers.clone(), "later".into())
        .await
        .unwrap()
        .await
        .unwrap();
    all_dead(&queue, worker, 1).await;

    let id = format!("seq-{}", queue.sequence("jobs", 1).await);
    let text = aq_ok(&queue, &["dead", "show", "jobs", &id]).await;
    assert!(text.contains("message version 99"), "{text}");
    let said = aq_ok(&queue, &["dead", "replay", "jobs", &id]).await;
    assert!(said.starts_with(&format!("{id}: replayed\n")), "{said}");
    let stream = queue.js.get_stream("jobs").await.unwrap();
    let again =
        stream.direct_get_last_for_subject(format!("jobs.unknown.unknown.{id}")).await.unwrap();
    assert_eq!(native::message_id(&again.headers), Some(id.as_str()));
    assert_eq!((lines(&again.headers), &again.payload[..]), (lines(&headers), &b"later"[..]));
}

#[tokio::test]
async fn a_dead_callback_is_delivered_again_and_its_function_is_not_called() {
    let (queue, function) = (Queue::start().await, HttpServer::start().await);
    let caller = HttpServer::answering({
        let calls = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        move |_| match calls.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => respond(503, "not now"),
            _ => respond(200, "ok"),
        }
    })
    .await;
    let _worker = queue.worker(&function, &[("callback_max_attempts", "1")]);
    let id = queue.submit(|call| call.callback_url = Some(callback_at(&caller))).await;
    queue.holds("jobs-dead", 1).await;
    queue.holds("jobs-callbacks", 0).await;
    assert_eq!(listed(&queue, &[]).await[0]["kind"], "callback");

    let said = aq_ok(&queue, &["dead", "replay", "jobs", id.as_str()]).await;
    assert!(said.contains("(callback): replayed"), "{said}");
    let result = caller.receives(2).await.remove(1);
    assert_eq!(result.header("x-function-status"), "200");
    assert_eq!(&result.body[..], b"ok");
    queue.holds("jobs-callbacks", 0).await;
    queue.holds("jobs-dead", 0).await;
    assert_eq!(function.received().len(), 1);
}

#[tokio::test]
async fn dead_call_and_its_dead_callback_are_distinguished() {
    let (queue, function) = (Queue::start().await, failing().await);
    let receiver = HttpServer::answering(|_| respond(503, "not now")).await;
    let worker = queue.worker(&function, &[ONE_ATTEMPT[0], ("callback_max_attempts", "1")]);
    let id = queue.submit(|call| call.callback_url = Some(callback_at(&receiver))).await;
    queue.holds("jobs-callbacks", 0).await;
    all_dead(&queue, worker, 2).await;
    let kinds = async |arguments: &[&str]| {
        let letters = listed(&queue, arguments).await;
        letters.iter().map(|letter| letter["kind"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(kinds(&["--kind", "callback"]).await, ["callback"]);

    // Its receiver would get the old result now and the new one later.
    let ended = aq(&queue, &["dead", "replay", "jobs", id.as_str()]).await;
    assert_eq!(
        ended.text(),
        format!("{id} figlet.openfaas-fn: replayed\n1 dead letter replayed\n")
    );
    assert!(ended.code == Some(0) && ended.stderr.contains("(callback): skipped"), "{ended:?}");
    assert_eq!(kinds(&[]).await, ["callback"]);
    assert_eq!(queue.info("jobs").await.state.messages, 1);

    let none = aq(&queue, &["dead", "replay", "jobs", id.as_str(), "--kind", "call"]).await;
    assert!(none.code == Some(1) && none.stderr.contains("no dead call of call"), "{none:?}");
    let said = aq_ok(&queue, &["dead", "replay", "jobs", id.as_str(), "--kind", "callback"]).await;
    assert!(said.contains("(callback): replayed"), "{said}");
    queue.holds("jobs-callbacks", 1).await;
    assert!(kinds(&[]).await.is_empty());
}

#[tokio::test]
async fn interrupted_replay_of_a_shared_id_is_finished() {
    let (queue, function) = (Queue::start().await, failing().await);
    let worker = queue.worker(&function, &ONE_ATTEMPT);
    let (first, second) = (submit(&queue, "figlet").await, submit(&queue, "figlet").await);
    all_dead(&queue, worker, 2).await;
    let letters = listed(&queue, &[]).await;
    let sequence =
        letters.iter().find(|letter| letter["callId"] == first.as_str()).unwrap()["sequence"]
            .clone();

    // What an interrupted replay leaves: the message is on the queue, and the dead letter still
    // there. It was long enough ago that the server does not know its message id any more.
    let mut headers = NatsHeaders::new();
    headers.insert("Nats-Msg-Id", format!("{first}.replay.{sequence}"));
    let subject = format!("jobs.openfaas-fn.figlet.{first}");
    let mut config = queue.info("jobs").await.config;
    config.duplicate_window = Duration::from_millis(100);
    queue.js.update_stream(config).await.unwrap();
    queue.js.publish_with_headers(subject, headers, "hi".into()).await.unwrap().await.unwrap();
    until("the server has forgotten the message id", async || {
        let mut headers = NatsHeaders::new();
        headers.insert("Nats-Msg-Id", format!("{first}.replay.{sequence}"));
        let probe = queue.js.publish_with_headers("jobs.probe", headers, "".into()).await.unwrap();
        (!probe.await.unwrap().duplicate).then_some(())
    })
    .await;
    let stream = queue.js.get_stream("jobs").await.unwrap();
    stream.purge().filter("jobs.probe").await.unwrap();
    // And another call has the id of the second.
    let subject = format!("jobs.openfaas-fn.figlet.{second}");
    queue.js.publish(subject, "another".into()).await.unwrap().await.unwrap();

    let ended = aq(&queue, &["dead", "replay", "jobs", "--all"]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended.text().contains(&format!("{first} figlet.openfaas-fn: already replayed")),
        "{ended:?}"
    );
    assert!(
        ended.text().contains(&format!("{second} figlet.openfaas-fn: replayed\n")),
        "{ended:?}"
    );
    assert!(ended.text().ends_with("2 dead letters replayed\n"), "{ended:?}");
    assert_eq!(queue.info("jobs").await.state.messages, 3);
    assert_eq!(queue.info("jobs-dead").await.state.messages, 0);
}

#[tokio::test]
async fn a_dead_letter_that_somebody_else_took_is_gone() {
    let (queue, function) = (Queue::start().await, failing().await);
    let worker = queue.worker(&function, &ONE_ATTEMPT);
    queue.submit(|_| {}).await;
    all_dead(&queue, worker, 1).await;
    let dead_letters =
        DeadLetters::open(&queue.js, &queue.spec.queue, "openfaas-fn").await.unwrap();
    let letters = dead_letters.list(&Selection::All).await.unwrap();
    aq_ok(&queue, &["dead", "purge", "jobs", "--all", "--yes"]).await;

    let entry = QueueEntry::new("jobs", "jobs");
    assert_eq!(dead_letters.replay(&letters[0], &entry).await.unwrap(), ReplayOutcome::NotFound);
    assert!(!dead_letters.delete(&letters[0]).await.unwrap());
    assert_eq!(dead_letters.content(&letters[0]).await.unwrap(), None);
    queue.empties().await;
}

#[tokio::test]
async fn a_queue_that_is_full_ends_a_replay() {
    let (queue, function) = (Queue::start().await, failing().await);
    let worker = queue.worker(&function, &ONE_ATTEMPT);
    for _ in 0..20 {
        queue.submit(|_| {}).await;
    }
    all_dead(&queue, worker, 20).await;
    let mut config = queue.info("jobs").await.config;
    config.max_messages = 2;
    queue.js.update_stream(config).await.unwrap();

    let ended = aq(&queue, &["dead", "replay", "jobs", "--all"]).await;
    assert!(
        ended.code == Some(1) && ended.text().ends_with("\n2 dead letters replayed\n"),
        "{ended:?}"
    );
    assert!(ended.stderr.contains("not replayed, the queue did not store it"), "{ended:?}");
    assert!(ended.stderr.contains("maximum messages exceeded"), "{ended:?}");
    assert!(ended.stderr.contains("4 dead letters skipped"), "{ended:?}");
    assert!(ended.stderr.contains("failed to replay 18 dead letters"), "{ended:?}");
    assert_eq!(queue.info("jobs-dead").await.state.messages, 18);
}

#[tokio::test]
async fn dead_letters_are_deleted_when_it_is_meant() {
    let (queue, function) = (Queue::start().await, failing().await);
    let worker = queue.worker(&function, &ONE_ATTEMPT);
    let first = submit(&queue, "figlet").await;
    for name in ["figlet", "other", "third"] {
        submit(&queue, name).await;
    }
    all_dead(&queue, worker, 4).await;

    let said = aq(&queue, &["dead", "purge", "jobs", first.as_str(), "no-such-call"]).await;
    assert!(said.code == Some(1) && said.text() == "1 dead letter deleted\n", "{said:?}");
    assert!(said.stderr.contains("no dead letter of call `no-such-call`"), "{said:?}");
    assert_eq!(
        aq_ok(&queue, &["dead", "purge", "jobs", "--function", "figlet"]).await,
        "1 dead letter deleted\n"
    );
    let refused = aq(&queue, &["dead", "purge", "jobs", "--all"]).await;
    assert!(refused.code == Some(2) && refused.stderr.contains("--yes"), "{refused:?}");
    assert!(refused.stderr.contains("2 dead letters"), "{refused:?}");
    assert_eq!(queue.info("jobs-dead").await.state.messages, 2);
    assert_eq!(
        aq_ok(&queue, &["dead", "purge", "jobs", "--all", "--yes"]).await,
        "2 dead letters deleted\n"
    );
    assert_eq!(queue.info("jobs-dead").await.state.messages, 0);
    assert!(queue.info("jobs").await.state.messages == 0, "nothing was replayed");
}

#[tokio::test]
async fn queues_are_listed_from_streams_and_directory() {
    let queue = Queue::start().await;
    let answers = HttpServer::answering(|request| match request.header("x-call-id") {
        "runs" => respond_after(Duration::from_secs(60), 200, "late"),
        _ => respond(503, "no"),
    });
    let function = answers.await;
    let settings = [("initial_retry_wait", "1h"), ("max_retry_wait", "1h"), ("max_inflight", "1")];
    let worker = queue.worker(&function, &settings);
    queue.submit(|_| {}).await;
    worker.logged("retrying in 1h").await;
    queue.submit(|call| call.call_id = "runs".parse().unwrap()).await;
    function.receives(2).await;
    for _ in 0..2 {
        queue.submit(|_| {}).await;
    }

    // One waits for its retry, one runs, and two were not delivered.
    let table = aq_ok(&queue, &["queues"]).await;
    let row = |table: &str| {
        let row = table.lines().nth(1).unwrap().split_whitespace().map(str::to_owned);
        row.take(9).collect::<Vec<_>>()
    };
    assert_eq!(row(&table), ["jobs", "3", "1", "1", "0", "0", "0", "0", "1"], "{table}");

    drop(worker);
    let ended = until("the server has seen that the worker is gone", async || {
        let ended = aq(&queue, &["queues"]).await;
        ended.stderr.contains("calls are waiting but no worker is connected: jobs").then_some(ended)
    })
    .await;
    let table = ended.text();
    assert_eq!((row(&table)[1].as_str(), row(&table)[8].as_str()), ("4", "0"), "{table}");

    let mut directory = Directory::default();
    let entry = QueueEntry::new("SLOW", "slow");
    directory.queues.insert("slow".parse().unwrap(), entry);
    DirectoryStore::open(&queue.js, 1).await.unwrap().sync(&directory).await.unwrap();
    let queues: Value =
        serde_json::from_str(&aq_ok(&queue, &["queues", "-o", "json"]).await).unwrap();
    let names: Vec<&str> =
        queues.as_array().unwrap().iter().map(|q| q["queue"].as_str().unwrap()).collect();
    assert_eq!(names, ["jobs", "slow"]);
    assert_eq!(aq_ok(&queue, &["queues", "-o", "name"]).await, "jobs\nslow\n");
    assert_eq!((&queues[0]["pending"], &queues[0]["stream"]), (&4.into(), &"jobs".into()));
    assert_eq!((&queues[0]["workers"], &queues[1]["stream"]), (&0.into(), &Value::Null));
}

#[tokio::test]
async fn top_shows_rates_and_the_busiest_queue_first() {
    let queue = Queue::start().await;
    let slow = HttpServer::answering(|_| respond_after(Duration::from_secs(60), 200, "late")).await;
    let mut directory = Directory::default();
    directory.queues.insert("idle".parse().unwrap(), QueueEntry::new("IDLE", "idle"));
    DirectoryStore::open(&queue.js, 1).await.unwrap().sync(&directory).await.unwrap();
    let _worker = queue.worker(&slow, &[("max_inflight", "1")]);
    queue.submit(|_| {}).await;
    slow.receives(1).await;
    queue.submit(|_| {}).await;

    let arguments = ["top", "--interval", "2s", "-o", "json"];
    let mut top = Box::pin(aq_ok(&queue, &arguments));
    let (mut submitted, mut pause) = (2, tokio::time::interval(Duration::from_millis(100)));
    let printed = loop {
        tokio::select! {
            printed = &mut top => break printed,
            _ = pause.tick() => {
                queue.submit(|_| {}).await;
                submitted += 1;
            }
        }
    };
    let queues: Value = serde_json::from_str(&printed).unwrap();
    let jobs = &queues[0];
    assert_eq!((&jobs["queue"], &queues[1]["queue"]), (&"jobs".into(), &"idle".into()));
    assert_eq!((&jobs["running"], &jobs["workers"]), (&1.into(), &1.into()), "{printed}");
    assert!((1..submitted).contains(&jobs["waiting"].as_u64().unwrap()), "{printed}");
    assert!(jobs["inPerSecond"].as_f64().unwrap() > 0.0, "{printed}");
    assert_eq!(jobs["outPerSecond"].as_f64(), Some(0.0), "{printed}");
    assert_eq!(queues[1]["inPerSecond"], Value::Null, "it has no stream: {printed}");

    // No terminal: one table.
    let table = aq_ok(&queue, &["top", "--interval", "100ms", "--limit", "1"]).await;
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines.len() == 2 && lines[0].starts_with("QUEUE   WAITING"), "{table}");
    let row: Vec<&str> = lines[1].split_whitespace().collect();
    let waiting = (submitted - 1).to_string();
    assert_eq!(row[..6], ["jobs", &waiting, "1", "1", "0.0", "0.0"], "{table}");
}

#[tokio::test]
async fn a_call_is_found_and_cancelled() {
    let queue = Queue::start().await;
    let function =
        HttpServer::answering(|_| respond_after(Duration::from_secs(60), 200, "late")).await;
    let generated = queue.submit(|_| {}).await;
    let status = aq_ok(&queue, &["status", generated.as_str()]).await;
    assert!(status.contains("queued, 0 calls before it"), "{status}");
    let own = queue.submit(|call| call.call_id = "order-7".parse().unwrap()).await;
    assert!(aq_ok(&queue, &["cancel", "jobs", own.as_str()]).await.contains("it will not start"));
    assert!(aq_ok(&queue, &["cancel", "-", own.as_str()]).await.contains("already cancelled"));

    let _worker = queue.worker(&function, &[]);
    function.receives(1).await;
    assert!(aq_ok(&queue, &["cancel", "-", generated.as_str()]).await.contains("while running"));
    until("the connection is closed", async || (function.running() == 0).then_some(())).await;
    let status: Value =
        serde_json::from_str(&aq_ok(&queue, &["status", generated.as_str(), "-o", "json"]).await)
            .unwrap();
    assert_eq!(status["state"], "cancelled");

    for arguments in
        [&["cancel", "-", "unknown"][..], &["cancel", "jobs", "unknown"], &["status", "unknown"]]
    {
        let ended = aq(&queue, arguments).await;
        assert!(ended.code == Some(1) && ended.stderr.contains("call `unknown`"), "{ended:?}");
    }
}

#[tokio::test]
async fn closed_output_causes_no_panic() {
    let (queue, function) = (Queue::start().await, failing().await);
    let worker = queue.worker(&function, &ONE_ATTEMPT);
    let id = queue.submit(|_| {}).await;
    all_dead(&queue, worker, 1).await;
    let unread: [&[&str]; 6] = [
        &["queues"],
        &["dead", "list", "jobs"],
        &["dead", "show", "jobs", id.as_str()],
        &["status", id.as_str()],
        // These say something on stderr, too.
        &["dead", "purge", "jobs", "unknown"],
        &["dead", "list", "unknown"],
    ];
    for arguments in unread {
        let code = run_unread("kubectl-aq", arguments, &[("nats_url", &queue.nats.url())]).await;
        assert_eq!(code, Some(1), "{arguments:?}");
    }
}

#[tokio::test]
async fn nats_that_is_away_is_an_error_that_names_it() {
    let address = format!("127.0.0.1:{}", free_port());
    let url = format!("nats://user:s3cret@{address}");
    let ended = run("kubectl-aq", &["--nats-url", &url, "queues"], &[]).await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains(&address) && ended.stderr.contains("--nats-url"), "{ended:?}");
    assert!(!ended.stderr.contains("s3cret") && ended.stderr.lines().count() == 1, "{ended:?}");
}

#[tokio::test]
async fn check_asks_nats_and_a_gateway() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    let url = format!("http://{}", gateway.addr);
    let answer = aq_ok(&queue, &["check", "--gateway-url", &url]).await;
    assert!(
        answer.contains("NATS and JetStream answer") && answer.contains("is ready"),
        "{answer}"
    );
    let _ = aq_ok(&queue, &["check"]).await;

    let nowhere = format!("http://127.0.0.1:{}", free_port());
    let ended = aq(&queue, &["check", "--gateway-url", &nowhere, "--timeout=1s"]).await;
    assert!(ended.code == Some(1) && ended.stderr.contains("is not ready within 1s"), "{ended:?}");
    let other = HttpServer::answering(|_| respond(503, "nats: not connected")).await;
    let url = other.url();
    let ended = aq(&queue, &["check", "--gateway-url", &url, "--timeout=1s"]).await;
    assert!(ended.stderr.contains("503") && ended.stderr.contains("not connected"), "{ended:?}");
}

#[tokio::test]
async fn a_stream_that_is_gone_since_it_was_listed_has_no_consumers() {
    let queue = Queue::start().await;
    let _ = submit(&queue, "echo").await;
    let function = HttpServer::answering(|_| respond(200, "")).await;
    let _worker = queue.worker(&function, &[]);
    queue.empties().await;
    assert_eq!(list_consumers(&queue.js, "jobs").await.unwrap().len(), 1);
    assert!(list_consumers(&queue.js, "gone").await.unwrap().is_empty());
}
