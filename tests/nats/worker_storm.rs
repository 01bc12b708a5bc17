//! Faults with many calls in flight: each call ends in exactly one way, and the counts say so.

use std::{collections::HashMap, time::Duration};

use asyncqueue::stream::ensure_queue;
use test_support::{
    http::{HttpServer, respond, respond_after},
    program::Program,
    wait::{until, until_in},
};

use crate::support::{Queue, callback_at, spec};

/// Calls of one storm: enough that a fault meets calls that are queued, running, waiting for their
/// next attempt and calling back.
const CALLS: usize = 300;

/// Slots of each of the two workers.
const SLOTS: usize = 20;

/// Results that one worker posts at once.
const POSTS: usize = 64;

/// Of the calls, those that always fail.
const FAILING: usize = CALLS / 10;

/// For all calls to end, the lease of those that a fault hit included.
const WAIT_TIMEOUT: Duration = Duration::from_secs(90);

/// What became of the calls of a storm.
struct Storm {
    queue: Queue,
    function: HttpServer,
    caller: HttpServer,
    workers: Vec<Program>,
    calls: Vec<String>,
}

impl Storm {
    /// Starts two workers and submits calls: one in ten always fails and ends as a dead letter.
    async fn begin() -> Self {
        let (queue, caller) = (Queue::start().await, HttpServer::start().await);
        let function = HttpServer::answering(|request| match &request.body[..] {
            b"fails" => respond(500, "no"),
            _ => respond_after(Duration::from_millis(100), 200, "ok"),
        })
        .await;
        let mut storm = Self { queue, function, caller, workers: Vec::new(), calls: Vec::new() };
        storm.add_worker();
        storm.add_worker();
        for number in 0..CALLS {
            let id = storm
                .queue
                .submit(|call| {
                    call.callback_url = Some(callback_at(&storm.caller));
                    if number % 10 == 0 {
                        call.body = "fails".into();
                    }
                })
                .await;
            storm.calls.push(id.to_string());
        }
        // In the middle of it.
        let what = "a third of the calls made";
        until(what, async || (storm.function.received().len() >= CALLS / 3).then_some(())).await;
        storm
    }

    fn add_worker(&mut self) {
        let slots = SLOTS.to_string();
        let settings =
            [("max_inflight", slots.as_str()), ("max_retry_attempts", "3"), ("RUST_LOG", "warn")];
        self.workers.push(self.queue.worker(&self.function, &settings));
    }

    /// Waits until every call has ended, and holds the ends against what was submitted. At most so
    /// many runs, and so many posts of results, are more than there had to be: what was under way
    /// when the fault came.
    async fn ends(&self, more_runs: usize, more_posts: usize) {
        until_in(WAIT_TIMEOUT, "every call has called back", async || {
            (self.callbacks().len() == CALLS).then_some(())
        })
        .await;
        self.queue.empties().await;
        self.queue.holds("jobs-callbacks", 0).await;
        let callbacks = self.callbacks();
        for id in &self.calls {
            let statuses = callbacks.get(id).map_or(&[][..], Vec::as_slice);
            assert!(!statuses.is_empty(), "call {id} did not call back");
            assert!(
                statuses.iter().all(|status| *status == statuses[0]),
                "call {id} ended as {statuses:?}"
            );
        }
        let posts = callbacks.values().map(Vec::len).sum::<usize>();
        assert!(posts <= CALLS + more_posts, "{posts} posts of {CALLS} results");
        // 503: a worker died under the last attempt of a call that fails, so that it is unknown how
        // that ended.
        let count =
            |status: &str| callbacks.values().filter(|statuses| statuses[0] == status).count();
        assert_eq!((count("200"), count("500") + count("503")), (CALLS - FAILING, FAILING));
        assert_eq!(self.queue.info("jobs-dead").await.state.messages, FAILING as u64);
        let received = self.function.received();
        let (runs, needed) = (received.len(), CALLS - FAILING + FAILING * 3);
        // What a worker took along had reached the function already, and is a run more; or not, and
        // is an attempt of a call that fails without a run.
        let expected = needed - more_runs..=needed + more_runs;
        assert!(expected.contains(&runs), "{runs} runs, {needed} were needed");
        for (id, statuses) in &callbacks {
            let runs =
                received.iter().filter(|received| received.header("x-call-id") == id).count();
            assert!(statuses[0] != "200" || runs <= 2, "call {id} succeeds, and ran {runs} times");
        }
    }

    /// The statuses that clients received, by call.
    fn callbacks(&self) -> HashMap<String, Vec<String>> {
        let mut callbacks: HashMap<String, Vec<String>> = HashMap::new();
        for received in self.caller.received() {
            let id = received.header("x-call-id").to_owned();
            callbacks.entry(id).or_default().push(received.header("x-function-status").to_owned());
        }
        callbacks
    }
}

#[tokio::test]
async fn killed_worker_loses_no_call() {
    let mut storm = Storm::begin().await;
    storm.workers[0].kill();
    storm.add_worker();
    storm.ends(SLOTS, SLOTS + POSTS).await;
}

#[tokio::test]
async fn worker_stopped_past_its_lease_loses_no_call() {
    let storm = Storm::begin().await;
    storm.workers[0].signal("STOP");
    // Those that it held have run elsewhere.
    until_in(WAIT_TIMEOUT, "its calls are taken over", async || {
        (storm.queue.info("jobs").await.state.messages == 0).then_some(())
    })
    .await;
    storm.workers[0].signal("CONT");
    storm.ends(SLOTS, SLOTS + POSTS).await;
}

#[tokio::test]
async fn terminated_worker_loses_no_call() {
    let mut storm = Storm::begin().await;
    storm.workers[0].signal("TERM");
    assert!(storm.workers[0].ended().await.success());
    storm.ends(0, 0).await;
}

#[tokio::test]
async fn killed_nats_server_loses_no_call() {
    let mut storm = Storm::begin().await;
    storm.queue.nats.restart().await;
    // What it delivered, and the acks of that, nats-server writes down each tenth of a
    // second (`flushLoop` of a consumer in its `filestore.go`). So it may have forgotten, and
    // deliver again to the other worker, what was under way, as many more that ended in that time,
    // which is how long they take, and an attempt of each call that fails, which waits as long for
    // its next.
    let forgotten = SLOTS * 2 * 2 + FAILING;
    storm.ends(forgotten, (SLOTS + POSTS) * 2).await;
    assert!(storm.workers.iter_mut().all(Program::is_running));
}

#[tokio::test]
async fn recreated_consumer_loses_no_call() {
    let storm = Storm::begin().await;
    let spec = spec();
    storm.queue.js.delete_consumer_from_stream(&spec.durable, &spec.stream).await.unwrap();
    ensure_queue(&storm.queue.js, &spec, false).await.unwrap();
    // The new consumer knows nothing of what was delivered: what runs is delivered to the other
    // worker too, and what waits for its next attempt begins again.
    storm.ends(CALLS, CALLS).await;
}

#[tokio::test]
async fn a_thousand_callbacks_to_a_dead_address_hold_up_no_call() {
    const DEAD: usize = 1000;
    let queue = Queue::start().await;
    let function = HttpServer::start().await;
    let settings = [("max_inflight", "20"), ("RUST_LOG", "error"), ("callback_timeout", "30s")];
    let _worker = queue.worker(&function, &settings);
    // It accepts connections and never says a word.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    for _ in 0..DEAD {
        queue
            .submit(|call| call.callback_url = Some(asyncqueue::CallbackUrl::parse(&url).unwrap()))
            .await;
    }
    queue.empties().await;
    assert_eq!(function.received().len(), DEAD);
    queue.submit(|_| {}).await;
    function.receives(DEAD + 1).await;
    // It has run while all of them are still on their way.
    assert_eq!(queue.info("jobs-callbacks").await.state.messages, DEAD as u64);
}

#[tokio::test]
async fn ten_thousand_waiting_retries_hold_up_no_call() {
    const WAITING: usize = 10_000;
    let queue = Queue::start().await;
    let function = HttpServer::answering(|request| match &request.body[..] {
        b"works" => respond(200, "ok"),
        _ => respond(503, "no"),
    })
    .await;
    let settings = [
        ("max_inflight", "50"),
        ("initial_retry_wait", "1h"),
        ("max_retry_wait", "1h"),
        ("RUST_LOG", "error"),
    ];
    let _worker = queue.worker(&function, &settings);
    for _ in 0..WAITING {
        queue.submit(|_| {}).await;
    }
    // A call may be delivered, and its request not sent yet.
    function.receives(WAITING).await;
    until_in(WAIT_TIMEOUT, "all calls wait for their second attempt", async || {
        let consumer = queue.consumer().await;
        let info = consumer.cached_info();
        (info.num_ack_pending == WAITING && info.num_pending == 0 && function.running() == 0)
            .then_some(())
    })
    .await;
    // The others wait an hour.
    queue.submit(|call| call.body = "works".into()).await;
    let received = function.receives(WAITING + 1).await;
    assert_eq!(received[WAITING].body, "works");
}
