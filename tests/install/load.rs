//! Calls that a client submits while versions are rolled, and what became of each.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use futures::TryStreamExt;
use test_support::{
    cluster::{PODS, PortForward, kubectl},
    wait::until_in,
};
use tokio::time::sleep;

use crate::e2e::Gateway;

/// Between two calls.
const PAUSE: Duration = Duration::from_millis(100);

/// Before a call that is refused for now is submitted again.
const REPEAT: Duration = Duration::from_millis(500);

/// Retries of the queue that the calls are for.
pub(crate) const RETRY: &str = "{maxAttempts: 2, minBackoff: 500ms, maxBackoff: 1s}";

/// What the function does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It answers at once.
    Quick,
    /// It takes two seconds.
    Slow,
    /// It fails once.
    Retried,
    /// It fails each time.
    Dead,
}

/// A call that was answered with 202.
#[derive(Debug)]
pub(crate) struct Call {
    id: String,
    kind: Kind,
}

/// A client that submits calls of each kind in turn.
pub(crate) struct Load {
    accepted: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    client: JoinHandle<Vec<Call>>,
}

/// Submits a call whose result goes to the receiver `callbacks` in the namespace of the function.
/// It is repeated, with the same id, until it is stored.
pub(crate) async fn submit(
    gateway: &Gateway,
    namespace: &str,
    function: &str,
    id: String,
    kind: Kind,
) -> Call {
    let callback = format!("http://callbacks.{namespace}:8080/callback/");
    let target = format!("/async-function/{function}.{namespace}?{}", kind.query());
    let headers = [("X-Callback-Url", &*callback), ("X-Call-Id", &*id)];
    until_in(PODS, &format!("{id} is accepted"), async || {
        let answer = gateway.request("POST", &target, &headers, "hello").await;
        assert!([202, 429, 503].contains(&answer.status), "{id}: {answer:?}");
        if answer.status != 202 {
            sleep(REPEAT).await;
        }
        (answer.status == 202).then_some(())
    })
    .await;
    Call { id, kind }
}

/// Checks that each call has one end, that its client received once, and that the function ran
/// as often as that takes: the callbacks, the function's log, and the dead letters of the queue.
pub(crate) async fn all_ended_once(namespace: &str, queue: &str, function: &str, calls: &[Call]) {
    let gateway = Gateway::connect();
    until_in(PODS, "all clients have their callbacks", async || {
        let statuses = callbacks(&gateway, namespace).await;
        calls.iter().all(|call| statuses.contains_key(&call.id)).then_some(())
    })
    .await;
    // What comes twice comes by now.
    let dead = dead_letters(queue).await;
    let statuses = callbacks(&gateway, namespace).await;
    let log = kubectl(&["logs", "-n", namespace, &format!("deployment/{function}"), "--tail=-1"]);
    let mut wrong = Vec::new();
    for Call { id, kind } in calls {
        let runs = log.lines().filter(|line| line.contains(id)).count();
        let seen = (statuses[id].as_slice(), runs, dead.get(id).copied().unwrap_or_default());
        let (status, expected_runs, expected_dead) = kind.expected();
        if seen != ([status.to_owned()].as_slice(), expected_runs, expected_dead) {
            wrong.push(format!("{id} ({kind:?}): statuses, runs and dead letters are {seen:?}"));
        }
    }
    println!("{} calls of {function} have ended", calls.len());
    assert!(wrong.is_empty(), "{} of {} calls:\n{}", wrong.len(), calls.len(), wrong.join("\n"));
}

/// The statuses of the callbacks of each call.
async fn callbacks(gateway: &Gateway, namespace: &str) -> BTreeMap<String, Vec<String>> {
    let mut statuses: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for callback in gateway.callbacks(namespace).await {
        let header = |name: &str| callback["headers"][name].as_str().unwrap_or_default().to_owned();
        statuses.entry(header("x-call-id")).or_default().push(header("x-function-status"));
    }
    statuses
}

/// How many dead letters a queue has of each call, after its streams of calls and results are
/// empty.
async fn dead_letters(queue: &str) -> BTreeMap<String, usize> {
    let forward = PortForward::to("openfaas", "service/nats", 4222);
    let js = test_support::nats::jetstream_context(
        async_nats::connect(forward.addr().to_string()).await.unwrap(),
    );
    for stream in [queue.to_owned(), format!("{queue}-callbacks")] {
        until_in(PODS, &format!("{stream} is empty"), async || {
            let stream = js.get_stream(&stream).await.ok()?;
            (stream.cached_info().state.messages == 0).then_some(())
        })
        .await;
    }
    let stream = js.get_stream_no_info(format!("{queue}-dead")).await.unwrap();
    let subjects = stream.info_with_subjects(">").await.unwrap();
    let counts: Vec<(String, usize)> = subjects.try_collect().await.unwrap();
    let of_call =
        |(subject, count): (String, usize)| Some((subject.rsplit('.').next()?.to_owned(), count));
    counts.into_iter().filter_map(of_call).collect()
}

// === impl Kind ===

impl Kind {
    const ALL: [Self; 4] = [Self::Quick, Self::Slow, Self::Retried, Self::Dead];

    fn query(self) -> &'static str {
        match self {
            Self::Quick => "",
            Self::Slow => "sleep=2s",
            Self::Retried => "fail_times=1",
            Self::Dead => "status=500",
        }
    }

    /// The status that its client receives, how often the function runs, and how many dead letters
    /// there are.
    fn expected(self) -> (&'static str, usize, usize) {
        match self {
            Self::Quick | Self::Slow => ("200", 1, 0),
            Self::Retried => ("200", 2, 0),
            Self::Dead => ("500", 2, 1),
        }
    }
}

// === impl Load ===

impl Load {
    /// Begins to submit calls of a function.
    pub(crate) fn start(namespace: &str, function: &'static str) -> Self {
        let (accepted, stop) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (counter, stopped, namespace) = (accepted.clone(), stop.clone(), namespace.to_owned());
        let submit_all = async move || {
            let (gateway, mut calls) = (Gateway::connect(), Vec::new());
            for kind in Kind::ALL.into_iter().cycle() {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let id = format!("rolled-{:04}", calls.len());
                calls.push(submit(&gateway, &namespace, function, id, kind).await);
                counter.fetch_add(1, Ordering::Relaxed);
                sleep(PAUSE).await;
            }
            calls
        };
        // kubectl is waited for on the thread of the test.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = thread::spawn(move || runtime.block_on(submit_all()));
        Self { accepted, stop, client }
    }

    /// Waits until so many more calls are accepted.
    pub(crate) async fn accepts(&self, more: usize) {
        let goal = self.accepted.load(Ordering::Relaxed) + more;
        until_in(PODS, &format!("{goal} calls are accepted"), async || {
            assert!(!self.client.is_finished(), "the client goes on until it is stopped");
            (self.accepted.load(Ordering::Relaxed) >= goal).then_some(())
        })
        .await;
    }

    /// Submits no more, and returns the calls.
    pub(crate) fn end(self) -> Vec<Call> {
        self.stop.store(true, Ordering::Relaxed);
        self.client.join().unwrap()
    }
}
