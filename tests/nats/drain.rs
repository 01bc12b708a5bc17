//! `kubectl aq drain stan`, from a real NATS Streaming server.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use asyncqueue::{
    FunctionName, QueueName,
    dead_letters::{DeadLetter, DeadLetters, Selection},
    directory::{Directory, FunctionEntry, QueueEntry, store::DirectoryStore},
    stream::{Limits, QueueSpec, ensure_queue},
};
use futures::TryStreamExt;
use serde_json::{Value, json};
use test_support::{
    http::HttpServer,
    program::{Ended, Program, run},
    stan::StanServer,
    wait::until,
};

use crate::support::{Queue, spec};

/// How long the tests wait until a channel counts as empty.
const EMPTY_AFTER: &str = "1500ms";

/// A call as the gateway of OpenFaaS Community Edition publishes it.
pub(crate) fn request(function: &str, id: &str) -> String {
    json!({
        "Header": {
            "Content-Type": ["text/plain"],
            "X-Call-Id": [id],
            "X-Start-Time": ["1795493048888321044"],
        },
        "Host": "127.0.0.1:8080",
        "Body": "aGkgdGhlcmU=",
        "Method": "POST",
        "Function": function,
    })
    .to_string()
}

/// The ids of the calls that a stream holds, with how often each is there.
pub(crate) async fn stored(queue: &Queue, stream: &str) -> BTreeMap<String, usize> {
    let all = queue.info(stream).await.state.messages;
    let stream = queue.js.get_stream(stream).await.unwrap();
    let mut ids = BTreeMap::new();
    let (mut read, mut next) = (0, 1);
    while read < all {
        let message =
            stream.raw_message_builder().sequence(next).next_by_subject(">").send().await.unwrap();
        *ids.entry(message.subject.rsplit('.').next().unwrap().to_owned()).or_default() += 1;
        (read, next) = (read + 1, message.sequence + 1);
    }
    ids
}

/// The dead letters of a queue.
pub(crate) async fn dead_letters(queue: &Queue) -> Vec<DeadLetter> {
    let letters = DeadLetters::open(&queue.js, &queue.spec.queue, "openfaas-fn").await.unwrap();
    letters.list(&Selection::All).await.unwrap()
}

/// Runs what the Job of a folder of `manifests/` runs, with its variables, some of which are
/// these here.
pub(crate) async fn run_job(folder: &str, settings: &[(&str, &str)]) -> Ended {
    let file = format!("{}/../manifests/{folder}/job.yaml", env!("CARGO_MANIFEST_DIR"));
    let job: Value = serde_saphyr::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let container = &job["spec"]["template"]["spec"]["containers"][0];
    let texts = |list: &Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let command = texts(&container["command"]);
    assert_eq!(command[0], "kubectl-aq");
    let mut variables = BTreeMap::new();
    for variable in container["env"].as_array().unwrap() {
        variables.insert(variable["name"].as_str().unwrap(), variable["value"].as_str().unwrap());
    }
    variables.extend(settings.iter().copied());
    let arguments: Vec<&str> = command[1..].iter().map(String::as_str).collect();
    run("kubectl-aq", &arguments, &variables.into_iter().collect::<Vec<_>>()).await
}

fn arguments<'a>(stan: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut all = vec!["drain", "stan", "--stan-url", stan];
    if !more.contains(&"--default-queue") {
        all.extend(["--default-queue", "jobs"]);
    }
    all.extend(more);
    all
}

/// Drains what is in the channel.
async fn drain(queue: &Queue, stan: &StanServer, more: &[&str]) -> Ended {
    let url = stan.url();
    let mut all = arguments(&url, more);
    if !more.contains(&"--empty-after") {
        all.extend(["--empty-after", EMPTY_AFTER]);
    }
    run("kubectl-aq", &all, &[("nats_url", &queue.nats.url())]).await
}

/// Drains what is in the channel, and returns the log.
async fn drain_ok(queue: &Queue, stan: &StanServer, more: &[&str]) -> String {
    let ended = drain(queue, stan, more).await;
    assert_eq!(ended.code, Some(0), "{}{}", ended.text(), ended.stderr);
    ended.text()
}

/// Starts a drain.
fn start_drain(queue: &Queue, stan: &StanServer, more: &[&str]) -> Program {
    let url = stan.url();
    Program::start_with("kubectl-aq", &arguments(&url, more), &[("nats_url", &queue.nats.url())])
}

/// Starts a drain, and kills it when the queue has stored so many calls.
async fn drain_killed(queue: &Queue, stan: &StanServer, at: u64) {
    let mut drain = start_drain(queue, stan, &[]);
    let first = queue.info("jobs").await.config.first_sequence.unwrap_or(1);
    until("the drain has stored some", async || {
        assert!(drain.is_running(), "it has ended");
        (queue.info("jobs").await.state.last_sequence >= first + at).then_some(())
    })
    .await;
    drain.kill();
}

#[tokio::test]
async fn a_channel_of_ten_thousand_is_drained_once() {
    const MESSAGES: usize = 10_000;
    const DONE: usize = 100;
    let (queue, stan) = (Queue::start().await, StanServer::start().await);
    let ids: Vec<String> = (0..MESSAGES).map(|number| format!("id-{number}")).collect();
    stan.publish(ids.iter().map(|id| request("figlet", id))).await;
    // The old worker dies with a call in hand.
    let (worker, done) = stan.work(DONE, Duration::from_secs(5)).await;
    assert_eq!(done.len(), DONE);
    worker.kill();

    drain_killed(&queue, &stan, 2_000).await;
    drain_killed(&queue, &stan, 5_000).await;
    // More than the old worker's ack wait, after which what it had in hand comes.
    drain_ok(&queue, &stan, &["--empty-after", "7s"]).await;

    let expected =
        ids.iter().filter(|id| done.iter().all(|line| !line.contains(&format!("\"{id}\""))));
    let expected: BTreeMap<String, usize> = expected.map(|id| (id.clone(), 1)).collect();
    assert_eq!(expected.len(), MESSAGES - DONE);
    let stored = stored(&queue, "jobs").await;
    let (missing, repeated) = (
        expected.keys().filter(|id| !stored.contains_key(*id)).count(),
        stored.values().filter(|count| **count > 1).count(),
    );
    assert_eq!((missing, repeated, stored.len()), (0, 0, expected.len()));
    assert!(dead_letters(&queue).await.is_empty());
}

#[tokio::test]
async fn a_drain_after_the_duplicate_window_runs_no_call_twice() {
    const MESSAGES: usize = 2_000;
    const WINDOW: Duration = Duration::from_secs(1);
    let queue = Queue::start().await;
    let spec = QueueSpec { duplicate_window: WINDOW, ..spec() };
    ensure_queue(&queue.js, &spec, false).await.unwrap();
    let (stan, function) = (StanServer::start().await, HttpServer::start().await);
    // Calls end as they come, so that nothing on the queue shows that they were stored.
    let _worker = queue.worker(&function, &[("max_inflight", "100")]);
    let ids: BTreeSet<String> = (0..MESSAGES).map(|number| format!("id-{number}")).collect();
    stan.publish(ids.iter().map(|id| request("figlet", id))).await;

    drain_killed(&queue, &stan, 700).await;
    tokio::time::sleep(WINDOW * 2).await;
    let log = drain_ok(&queue, &stan, &[]).await;
    queue.empties().await;

    let mut runs = BTreeMap::<String, usize>::new();
    for call in function.received() {
        *runs.entry(call.header("x-call-id").to_owned()).or_default() += 1;
    }
    assert_eq!(runs.values().filter(|count| **count > 1).count(), 0, "{log}");
    // What is uncertain is a dead letter, to be replayed if the call has not run.
    let letters = dead_letters(&queue).await;
    assert!(
        letters.iter().all(|letter| letter.death.reason.contains("may have run")),
        "{letters:?}"
    );
    assert!(letters.len() <= 64, "{}", letters.len());
    let dead = letters.iter().map(|letter| letter.call_id.to_string());
    let kept: BTreeSet<String> = runs.into_keys().chain(dead).collect();
    assert_eq!(kept, ids);
}

#[tokio::test]
async fn a_call_that_may_have_run_becomes_a_dead_letter() {
    let queue = Queue::start().await;
    let spec = QueueSpec { duplicate_window: Duration::from_secs(1), ..spec() };
    ensure_queue(&queue.js, &spec, false).await.unwrap();
    let stan = StanServer::start().await;
    stan.publish(["gone", "pending"].map(|id| request("figlet", id))).await;
    drain_ok(&queue, &stan, &[]).await;
    // As if the drain had been killed before it recorded what it stored, and one call has ended.
    let records = queue.js.get_key_value("asyncqueue-drained").await.unwrap();
    let keys: Vec<String> = records.keys().await.unwrap().try_collect().await.unwrap();
    for key in keys.iter().filter(|key| *key != "clock") {
        assert_eq!(records.get(key).await.unwrap().unwrap(), "stored");
        records.put(key, "begun by another".into()).await.unwrap();
    }
    queue.js.get_stream("jobs").await.unwrap().purge().filter("jobs.*.*.gone").await.unwrap();
    tokio::time::sleep(spec.duplicate_window).await;

    // Another group gets the messages again.
    let log = drain_ok(&queue, &stan, &["--durable", "second", "--all"]).await;
    assert!(log.contains("stored=0 stored_before=1 unusable=0 uncertain=1"), "{log}");
    let letters = dead_letters(&queue).await;
    assert_eq!((letters.len(), letters[0].call_id.as_str()), (1, "gone"));
    assert!(letters[0].death.reason.contains("may have run"), "{letters:?}");
    // And that is the end of both.
    let log = drain_ok(&queue, &stan, &["--durable", "third", "--all"]).await;
    assert!(log.contains("stored=0 stored_before=2 unusable=0 uncertain=0"), "{log}");
    assert_eq!(dead_letters(&queue).await.len(), 1);
    assert_eq!(stored(&queue, "jobs").await.into_keys().collect::<Vec<_>>(), ["pending"]);
}

#[tokio::test]
async fn drain_stopped_by_a_full_queue_leaves_nothing_uncertain() {
    let queue = Queue::start().await;
    let limits = Limits { max_messages: 10, ..Limits::default() };
    let spec = QueueSpec { duplicate_window: Duration::from_secs(1), limits, ..spec() };
    ensure_queue(&queue.js, &spec, false).await.unwrap();
    let stan = StanServer::start().await;
    stan.publish((0..50).map(|number| request("figlet", &format!("id-{number}")))).await;
    let mut drain = start_drain(&queue, &stan, &[]);
    drain.logged("retrying: the queue is full").await;
    drain.signal("TERM");
    assert_eq!(drain.ended().await.code(), Some(1));
    assert!(drain.log().iter().any(|line| line.contains("before stan.faas-request was empty")));
    tokio::time::sleep(spec.duplicate_window).await;

    let function = HttpServer::start().await;
    let _worker = queue.worker(&function, &[("max_inflight", "10")]);
    let log = drain_ok(&queue, &stan, &[]).await;
    assert!(log.contains("unusable=0 uncertain=0 left=0"), "{log}");
    function.receives(50).await;
    queue.empties().await;
    assert_eq!(function.received().len(), 50);
}

#[tokio::test]
async fn messages_of_a_restarted_server_are_others() {
    let (queue, mut stan) = (Queue::start().await, StanServer::start().await);
    for round in ["a", "b"] {
        stan.publish((0..3).map(|number| request("figlet", &format!("{round}-{number}")))).await;
        let log = drain_ok(&queue, &stan, &[]).await;
        assert!(log.contains("stored=3 stored_before=0"), "{log}");
        // It begins at sequence 1 again.
        stan.restart().await;
    }
    let ids: Vec<String> = stored(&queue, "jobs").await.into_keys().collect();
    assert_eq!(ids, ["a-0", "a-1", "a-2", "b-0", "b-1", "b-2"]);
}

#[tokio::test]
async fn calls_that_share_an_id_are_all_drained() {
    let (queue, stan) = (Queue::start().await, StanServer::start().await);
    stan.publish((0..3).map(|_| request("figlet", "same"))).await;
    drain_ok(&queue, &stan, &[]).await;
    assert_eq!(stored(&queue, "jobs").await, BTreeMap::from([("same".to_owned(), 3)]));
}

#[tokio::test]
async fn a_message_goes_to_the_queue_of_its_function() {
    let (queue, stan) = (Queue::start().await, StanServer::start().await);
    let slow: QueueName = "slow".parse().unwrap();
    ensure_queue(&queue.js, &QueueSpec::new(slow.clone(), spec().owner), false).await.unwrap();
    let snail = FunctionName::new("snail", "openfaas-fn").unwrap();
    let directory = Directory {
        functions: [(snail, FunctionEntry { queue: Some(slow), ..FunctionEntry::default() })]
            .into(),
        queues: ["jobs", "slow"]
            .map(|name| (name.parse().unwrap(), QueueEntry::new(name, name)))
            .into(),
    };
    DirectoryStore::open(&queue.js, 1).await.unwrap().sync(&directory).await.unwrap();

    stan.publish([
        request("snail", "a"),
        request("Snail.openfaas-fn", "b"),
        request("figlet", "c"),
    ])
    .await;
    drain_ok(&queue, &stan, &[]).await;
    assert_eq!(stored(&queue, "slow").await.into_keys().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(stored(&queue, "jobs").await.into_keys().collect::<Vec<_>>(), ["c"]);

    stan.publish([request("figlet", "d")]).await;
    drain_ok(&queue, &stan, &["--queue", "slow"]).await;
    assert_eq!(stored(&queue, "slow").await.into_keys().collect::<Vec<_>>(), ["a", "b", "d"]);
}

#[tokio::test]
async fn a_drained_call_runs_as_it_was_sent() {
    let (queue, stan) = (Queue::start().await, StanServer::start().await);
    stan.publish([request("figlet", "id-1")]).await;
    drain_ok(&queue, &stan, &[]).await;
    let function = HttpServer::start().await;
    let _worker = queue.worker(&function, &[]);
    let call = function.receives(1).await.remove(0);
    assert_eq!(call.body, "hi there".as_bytes());
    assert_eq!(call.header("x-call-id"), "id-1");
    assert_eq!(call.header("x-start-time"), "1795493048888321044");
    queue.empties().await;
}

#[tokio::test]
async fn the_job_of_the_manifests_drains_a_channel() {
    let (queue, stan) = (Queue::start().await, StanServer::start().await);
    stan.publish([request("figlet", "id-1")]).await;
    let (url, stan_url) = (queue.nats.url(), stan.url());
    let ended = run_job(
        "drain-stan",
        &[
            ("nats_url", &url),
            ("stan_url", &stan_url),
            ("empty_after", EMPTY_AFTER),
            ("default_queue", "jobs"),
        ],
    )
    .await;
    assert_eq!(ended.code, Some(0), "{}{}", ended.text(), ended.stderr);
    // As programs read it.
    assert!(ended.text().contains("\"stored\":1"), "{}", ended.text());
    assert_eq!(stored(&queue, "jobs").await.len(), 1);
}

#[tokio::test]
async fn a_message_that_is_no_call_becomes_a_dead_letter() {
    let (queue, stan) = (Queue::start().await, StanServer::start().await);
    stan.publish(["s3cret".to_owned(), "\"s3cret\"".to_owned(), request("figlet", "id-1")]).await;
    let log = drain_ok(&queue, &stan, &[]).await;
    assert!(log.contains("stored=1 stored_before=0 unusable=2 uncertain=0 left=0"), "{log}");
    assert!(log.contains("stored as a dead letter") && !log.contains("s3cret"), "{log}");
    let letters = dead_letters(&queue).await;
    assert_eq!(letters.len(), 2);
    assert!(
        letters.iter().all(|letter| letter.death.reason.contains("QueueRequest")),
        "{letters:?}"
    );
    assert!(
        letters
            .iter()
            .all(|letter| letter.worker == "kubectl-aq drain" && letter.function.is_none())
    );
    // They are acknowledged: nothing comes again.
    let log = drain_ok(&queue, &stan, &[]).await;
    assert!(log.contains("stored=0 stored_before=0 unusable=0"), "{log}");
}

#[tokio::test]
async fn a_message_that_nothing_can_store_stays_in_the_channel() {
    let (queue, stan) = (Queue::start().await, StanServer::start().await);
    stan.publish(["nothing".to_owned(), request("figlet", "id-1")]).await;
    queue.js.delete_stream("jobs-dead").await.unwrap();
    let ended = drain(&queue, &stan, &[]).await;
    assert_eq!(ended.code, Some(1), "{}", ended.text());
    assert!(ended.stderr.contains("1 messages are left on stan.faas-request"), "{}", ended.stderr);
    assert_eq!(stored(&queue, "jobs").await.into_keys().collect::<Vec<_>>(), ["id-1"]);
    // Once there are dead letters, it becomes one.
    ensure_queue(&queue.js, &queue.spec, false).await.unwrap();
    drain_ok(&queue, &stan, &[]).await;
    assert_eq!(dead_letters(&queue).await.len(), 1);
}

#[tokio::test]
async fn a_drain_that_follows_ends_with_success_on_sigterm() {
    let (queue, stan) = (Queue::start().await, StanServer::start().await);
    let mut drain = start_drain(&queue, &stan, &["--follow"]);
    drain.logged("draining").await;
    stan.publish([request("figlet", "id-1")]).await;
    queue.holds("jobs", 1).await;
    // NATS Streaming lets in one client of a name.
    let second = self::drain(&queue, &stan, &[]).await;
    assert_eq!(second.code, Some(1));
    assert!(second.stderr.contains("another drain is running"), "{}", second.stderr);
    drain.signal("TERM");
    assert_eq!(drain.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_channel_that_no_worker_had_is_drained_whole_if_asked() {
    let (queue, stan) = (Queue::start().await, StanServer::start_alone().await);
    stan.publish([request("figlet", "id-1"), request("figlet", "id-2")]).await;
    let log = drain_ok(&queue, &stan, &["--durable", "other"]).await;
    assert!(log.contains("received no message") && log.contains("stored=0"), "{log}");
    let log = drain_ok(&queue, &stan, &["--all"]).await;
    assert!(log.contains("stored=2"), "{log}");
}

#[tokio::test]
async fn missing_stream_or_channel_is_named() {
    let (queue, stan) = (Queue::start().await, StanServer::start().await);
    stan.publish([request("figlet", "id-1")]).await;
    for (more, expected) in [
        (&["--cluster-id", "nope"][..], "no NATS Streaming with the cluster id `nope`"),
        (&["--queue", "nope"], "there is no queue `nope`"),
        (&["--default-queue", "nope"], "queue `nope` has no stream `nope`"),
    ] {
        let ended = drain(&queue, &stan, more).await;
        assert_eq!(ended.code, Some(1), "{more:?}");
        assert!(ended.stderr.contains(expected), "{}", ended.stderr);
    }
    let ended = run(
        "kubectl-aq",
        &["drain", "stan", "--stan-url", "nats://127.0.0.1:1"],
        &[("nats_url", &queue.nats.url())],
    )
    .await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("check --stan-url"), "{}", ended.stderr);
    // Nothing of that took the message.
    let log = drain_ok(&queue, &stan, &[]).await;
    assert!(log.contains("stored=1"), "{log}");
}

#[tokio::test]
async fn a_drain_waits_while_its_nats_is_unavailable() {
    let (mut queue, stan) = (Queue::start().await, StanServer::start().await);
    let mut drain = start_drain(&queue, &stan, &["--empty-after", EMPTY_AFTER]);
    drain.logged("draining").await;
    queue.nats.kill();
    stan.publish((0..300).map(|number| request("figlet", &format!("id-{number}")))).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(drain.is_running());
    queue.nats.run().await;
    assert_eq!(drain.ended().await.code(), Some(0));
    queue.js = queue.nats.jetstream().await;
    let stored = stored(&queue, "jobs").await;
    assert_eq!((stored.len(), stored.values().max()), (300, Some(&1)));
    assert!(dead_letters(&queue).await.is_empty());
}
