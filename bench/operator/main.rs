//! `make bench-operator`: how soon the operator has what many `AsyncQueues` ask for, how much
//! memory it takes for them, and what it writes and reads when nothing happens.
//!
//! On the test cluster's API server, with a nats-server and the operator as processes on this
//! machine, all of which share its processors. No pod is started: the queues have no replicas, and
//! the controller manager, which would make `ReplicaSets` of their Deployments, is stopped for the
//! while.
//!
//! The limit is the same once more by a plain client, which writes what the operator wrote and
//! looks at nothing. What was written while nothing happened is named below the table.
//!
//! `bench_queues=100,1000,10000 bench_steady=600` in the environment measures ten minutes of each
//! of these numbers of queues; without them it is a part of that, which takes a few minutes.
//! `bench_functions=5` gives each queue `fairness: Function` and a waiting call of each of five
//! functions, and so five lanes.

use std::{
    collections::{BTreeMap, HashSet},
    env,
    net::SocketAddr,
    pin::pin,
    time::{Duration, Instant},
};

use async_nats::jetstream;
use asyncqueue::{
    CallId, FunctionName, Invocation, QueueName,
    directory::{QueueEntry, QueueRoute},
    lanes::ensure_lane,
    message::native,
    subject::call_subject,
};
use futures::{StreamExt, TryStreamExt};
use http::Request;
use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api, Client,
    api::{
        ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams,
        PostParams,
    },
    runtime::{WatchStreamExt, watcher},
};
use serde_json::{Value, json};
use test_support::{
    cluster::{self, Namespace, ScaledDown, Stopped},
    loopback::free_port,
    nats::NatsServer,
    process::{processor_time, resident_bytes, unless_ended},
    program::Program,
    raw,
    wait::until_in,
};
use tokio::time::{sleep, timeout};

mod limit;

/// Numbers of queues, each measured with an operator and a NATS of its own.
const QUEUES: &str = "100,1000";
/// Seconds without a change.
const STEADY: &str = "30";
/// Functions of each queue with a waiting call; 0: the queues run their calls in order.
const FUNCTIONS: &str = "0";
/// More lanes than any of these have.
const MAX_LANES: &str = "100000";
/// Requests at once, to create queues.
const APPLY: usize = 16;
/// Longer than anything here should take.
const WAIT_TIMEOUT: Duration = Duration::from_secs(1800);
/// The operator's numbers are in every status by then, and nothing is under way any more.
const SETTLE: Duration = Duration::from_secs(15);
/// So long at most, where it took long for all to be ready.
const MAX_SETTLE: Duration = Duration::from_secs(60);
/// The most queues for which the limit is measured: NATS takes longer for each stream the more it
/// has, so that the plain client needs most of an hour for ten times as many.
const LIMITED: usize = 1000;
/// The most objects of a list.
const PAGE: u32 = 500;
/// What the operator writes to the API server, but for its Lease and the workers' accounts, which
/// others of their groups would hide.
const GROUPS: [&str; 4] = ["apps", "asyncqueue.io", "events.k8s.io", "policy"];
/// The workers' accounts, of the API's own group.
const ACCOUNTS: &str = "serviceaccounts";
/// Of the operator's own metrics.
const RECONCILIATIONS: &str = "asyncqueue_operator_reconciliations_total ";
const WRITES: [&str; 5] = ["APPLY", "DELETE", "PATCH", "POST", "PUT"];

type Error = Box<dyn std::error::Error + Send + Sync>;

/// What was measured of one number of queues.
struct Measured {
    queues: usize,
    ready: Duration,
    /// What a plain client takes for the same writes; not for more than [`LIMITED`].
    limit: Option<Duration>,
    /// To the API server, for all queues to be ready.
    writes: f64,
    /// Reconciliations until then.
    looks: f64,
    /// The operator's processor time until then.
    busy: Duration,
    resident: u64,
    lanes: usize,
    steady: Steady,
}

/// Requests to the API server that write, by verb and resource.
type ApiWrites = BTreeMap<String, f64>;

/// What went on while nothing happened.
struct Steady {
    api_writes: ApiWrites,
    jetstream_writes: u64,
    jetstream_requests: u64,
    busy: Duration,
}

/// What is counted all the time.
struct Counted {
    api_writes: ApiWrites,
    /// Messages that were ever stored in the buckets.
    stored: u64,
    jetstream_requests: u64,
    looks: f64,
    busy: Duration,
}

/// The cluster's API server, a NATS, and an operator.
struct Bench {
    client: Client,
    queues: Api<DynamicObject>,
    deployments: Api<Deployment>,
    /// Number of functions of each queue.
    functions: usize,
    namespace: Namespace,
    js: jetstream::Context,
    admin: SocketAddr,
    operator: Program,
    // Ended last.
    _nats: NatsServer,
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    unless_ended(measure()).await
}

async fn measure() -> Result<(), Error> {
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| "TLS is set up twice")?;
    let sizes = setting("bench_queues", QUEUES);
    let sizes: Vec<usize> = sizes.split(',').map(str::parse).collect::<Result<_, _>>()?;
    let steady = Duration::from_secs(setting("bench_steady", STEADY).parse()?);
    let functions = setting("bench_functions", FUNCTIONS).parse()?;
    cluster::apply_file("crds/asyncqueues.yaml");
    let _operator = ScaledDown::deployment("openfaas", "asyncqueue-operator").await;
    let _manager = Stopped::component("kube-controller-manager");

    println!(
        "| queues | all ready after, s | limit, s | ratio | operator's CPU, s | looks a queue \
         | API writes a queue | resident, MB | lanes | in {} s: API writes | JetStream writes \
         | JetStream requests/s | operator's CPU |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|",
        steady.as_secs()
    );
    for size in sizes {
        let mut bench = Bench::start(functions).await?;
        let measured = bench.measure(size, steady).await?;
        println!("{}", measured.row(steady));
        for (what, times) in &measured.steady.api_writes {
            eprintln!("{size} queues, while nothing happened: {what}, {times} times");
        }
        clear(&bench.queues).await?;
    }
    Ok(())
}

fn kind(group: &str, version: &str, kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

fn queues(client: &Client, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(
        client.clone(),
        namespace,
        &kind("asyncqueue.io", "v1alpha1", "AsyncQueue"),
    )
}

/// A queue that needs no pod, whose functions may take turns.
fn queue(name: &str, has_lanes: bool) -> serde_json::Result<DynamicObject> {
    let fairness = if has_lanes { "Function" } else { "Fifo" };
    serde_json::from_value(json!({
        "apiVersion": "asyncqueue.io/v1alpha1",
        "kind": "AsyncQueue",
        "metadata": { "name": name },
        "spec": { "replicas": 0, "fairness": fairness },
    }))
}

fn setting(name: &str, default: &str) -> String {
    env::var(name).unwrap_or_else(|_| default.to_owned())
}

impl Bench {
    async fn start(functions: usize) -> Result<Self, Error> {
        let nats = NatsServer::start().await;
        let namespace = Namespace::create("bench");
        let (url, admin) = (nats.url(), format!("127.0.0.1:{}", free_port()));
        let kubeconfig = cluster::kubeconfig();
        let operator = Program::start_unheard(
            "asyncqueue-operator",
            &[
                ("KUBECONFIG", &kubeconfig),
                ("POD_NAMESPACE", &namespace.name),
                ("watch_namespaces", &namespace.name),
                ("worker_image", "none"),
                ("default_queue", ""),
                ("max_lanes", MAX_LANES),
                ("nats_url", &url),
                ("http_addr", &admin),
            ],
        );
        let admin: SocketAddr = admin.parse()?;
        until_in(WAIT_TIMEOUT, "the operator is ready", async || {
            let answer = raw::try_request(admin, "GET", "/readyz", &[], b"").await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await;
        let client = cluster::client().await;
        let queues = queues(&client, &namespace.name);
        let deployments = Api::namespaced(client.clone(), &namespace.name);
        let js = nats.jetstream().await;
        Ok(Self {
            client,
            queues,
            deployments,
            functions,
            namespace,
            js,
            admin,
            operator,
            _nats: nats,
        })
    }

    async fn measure(&mut self, size: usize, steady: Duration) -> Result<Measured, Error> {
        let before = self.count().await?;
        let begun = Instant::now();
        let (applied, seen) =
            tokio::join!(self.apply(size), timeout(WAIT_TIMEOUT, self.ready(size)));
        applied?;
        seen??;
        let ready = begun.elapsed();
        let after = self.count().await?;
        let writes = total(&since(&before.api_writes, &after.api_writes));
        let looks = after.looks - before.looks;
        let busy = after.busy.saturating_sub(before.busy);
        eprintln!("{size} queues: ready after {:.1} s", ready.as_secs_f64());
        self.submit(size).await?;
        self.check(size).await?;
        timeout(WAIT_TIMEOUT, self.counted(size)).await??;
        sleep(ready.clamp(SETTLE, MAX_SETTLE)).await;
        let steady = self.steady(steady).await?;
        let resident = resident_bytes(self.operator.id());
        self.operator.kill();
        // The plain client has no calls to store.
        let limit = if size <= LIMITED && self.functions == 0 {
            Some(limit::measure(self, size).await?)
        } else {
            None
        };
        let lanes = size * self.functions;
        Ok(Measured { queues: size, ready, limit, writes, looks, busy, resident, lanes, steady })
    }

    /// Stores a call of each function of each queue, and ensures its lane, as a gateway does.
    async fn submit(&self, size: usize) -> Result<(), Error> {
        let calls = (0..size).flat_map(|queue| (0..self.functions).map(move |of| (queue, of)));
        futures::stream::iter(calls)
            .map(async |(queue, function)| {
                let queue: QueueName = format!("{}-{queue}", self.namespace.name).parse()?;
                let function = FunctionName::new(&format!("f{function}"), "openfaas-fn")?;
                let call = Invocation::new(CallId::generate(&queue), function.clone(), "hi");
                let subject = call_subject(queue.as_str(), &call.function, &call.call_id);
                let headers = native::encode(&call);
                self.js.publish_with_headers(subject, headers, call.body).await?.await?;
                let entry = QueueEntry::new(queue.as_str(), queue.as_str());
                let route: QueueRoute = entry.route_of_unknown_fairness(queue);
                ensure_lane(&self.js, &route, &function).await?;
                Ok::<(), Error>(())
            })
            .buffer_unordered(APPLY)
            .try_collect::<()>()
            .await
    }

    /// Creates so many queues.
    async fn apply(&self, size: usize) -> Result<(), Error> {
        futures::stream::iter(0..size)
            .map(async |number| {
                let name = format!("{}-{number}", self.namespace.name);
                let queue = queue(&name, self.functions > 0)?;
                self.queues.create(&PostParams::default(), &queue).await.map_err(Error::from)
            })
            .buffer_unordered(APPLY)
            .try_for_each(|_| std::future::ready(Ok(())))
            .await
    }

    /// Returns when so many queues say that they are ready.
    async fn ready(&self, size: usize) -> Result<(), Error> {
        self.have_status(size, |status| {
            let mut conditions = status["conditions"].as_array().into_iter().flatten();
            conditions.any(|c| c["type"] == "Ready" && c["status"] == "True")
        })
        .await
    }

    /// Returns when the statuses of so many queues count their calls and lanes.
    async fn counted(&self, size: usize) -> Result<(), Error> {
        if self.functions == 0 {
            return Ok(());
        }
        self.have_status(size, |status| {
            [&status["pending"], &status["lanes"]].into_iter().all(|count| *count == self.functions)
        })
        .await
    }

    /// Returns when so many queues have had such a status.
    async fn have_status(&self, size: usize, is: impl Fn(&Value) -> bool) -> Result<(), Error> {
        let mut seen = HashSet::new();
        let mut events =
            pin!(watcher(self.queues.clone(), watcher::Config::default()).applied_objects());
        while seen.len() < size {
            let queue = events.try_next().await?.ok_or("the watch ended")?;
            if is(&queue.data["status"]) {
                seen.insert(queue.metadata.name);
            }
        }
        Ok(())
    }

    /// Each queue has its Deployment, its streams and its consumers.
    async fn check(&self, size: usize) -> Result<(), Error> {
        let (mut deployments, mut page) = (0, ListParams::default().limit(PAGE));
        loop {
            let list = self.deployments.list_metadata(&page).await?;
            deployments += list.items.len();
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => break,
            }
        }
        let (mut streams, mut consumers) = (0, 0);
        let mut infos = self.js.streams();
        while let Some(info) = infos.try_next().await? {
            if info.config.name.starts_with(&self.namespace.name) {
                streams += 1;
                consumers += info.state.consumer_count;
            }
        }
        let expected = (size, 3 * size, (2 + self.functions) * size);
        assert_eq!((deployments, streams, consumers), expected);
        Ok(())
    }

    /// Waits, and counts what goes on during that time.
    async fn steady(&self, time: Duration) -> Result<Steady, Error> {
        let mut advisories = self.js.client().subscribe("$JS.EVENT.ADVISORY.STREAM.>").await?;
        let mut more = self.js.client().subscribe("$JS.EVENT.ADVISORY.CONSUMER.>").await?;
        let before = self.count().await?;
        sleep(time).await;
        let after = self.count().await?;
        advisories.unsubscribe().await?;
        more.unsubscribe().await?;
        let advisories = advisories.count().await + more.count().await;
        Ok(Steady {
            api_writes: since(&before.api_writes, &after.api_writes),
            jetstream_writes: after.stored - before.stored + u64::try_from(advisories)?,
            jetstream_requests: after.jetstream_requests - before.jetstream_requests,
            busy: after.busy.saturating_sub(before.busy),
        })
    }

    async fn count(&self) -> Result<Counted, Error> {
        let metrics = self.client.request_text(Request::get("/metrics").body(Vec::new())?).await?;
        let mut stored = 0;
        for bucket in [
            "KV_asyncqueue-directory",
            "KV_asyncqueue-cancelled",
            "KV_asyncqueue-uncounted",
            "KV_asyncqueue-slots",
        ] {
            if let Ok(stream) = self.js.get_stream(bucket).await {
                stored += stream.cached_info().state.last_sequence;
            }
        }
        let requests = self.js.query_account().await?.requests;
        let own = raw::try_request(self.admin, "GET", "/metrics", &[], b"").await?;
        let looks = own
            .text()
            .lines()
            .find_map(|line| line.strip_prefix(RECONCILIATIONS)?.trim().parse().ok());
        Ok(Counted {
            api_writes: api_writes(&metrics),
            stored,
            jetstream_requests: requests.total,
            looks: looks.unwrap_or_default(),
            busy: processor_time(self.operator.id()),
        })
    }
}

/// Removes all queues of a namespace, without the operator, which would release streams that end
/// with their NATS anyway.
async fn clear(queues: &Api<DynamicObject>) -> Result<(), Error> {
    queues.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
    let release = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    loop {
        let list = queues.list_metadata(&ListParams::default().limit(PAGE)).await?;
        if list.items.is_empty() {
            return Ok(());
        }
        let names = list.items.into_iter().filter_map(|queue| queue.metadata.name);
        futures::stream::iter(names)
            .for_each_concurrent(APPLY, async |name| {
                // It may be gone by itself.
                let _ = queues.patch_metadata(&name, &PatchParams::default(), &release).await;
            })
            .await;
    }
}

impl Measured {
    #[allow(clippy::cast_precision_loss)] // far below what an f64 holds
    fn row(&self, time: Duration) -> String {
        let (steady, seconds) = (&self.steady, time.as_secs_f64());
        let each = |number: f64| number / self.queues as f64;
        let (limit, ratio) = match self.limit {
            Some(limit) => (
                format!("{:.1}", limit.as_secs_f64()),
                format!("{:.2}", limit.as_secs_f64() / self.ready.as_secs_f64()),
            ),
            None => ("not measured".to_owned(), String::new()),
        };
        format!(
            "| {} | {:.1} | {limit} | {ratio} | {:.1} | {:.1} | {:.1} | {:.1} | {} | {} | {} \
             | {:.1} | {:.1} % |",
            self.queues,
            self.ready.as_secs_f64(),
            self.busy.as_secs_f64(),
            each(self.looks),
            each(self.writes),
            self.resident as f64 / 1e6,
            self.lanes,
            total(&steady.api_writes),
            steady.jetstream_writes,
            steady.jetstream_requests as f64 / seconds,
            steady.busy.as_secs_f64() / seconds * 100.0,
        )
    }
}

/// The writes of ours that the API server's metrics count.
fn api_writes(metrics: &str) -> ApiWrites {
    let mut writes = ApiWrites::new();
    for (labels, count) in metrics
        .lines()
        .filter_map(|line| line.strip_prefix("apiserver_request_total{")?.rsplit_once("} "))
    {
        let label = |name: &str| {
            let mut labels = labels.split(',').filter_map(|label| label.split_once('='));
            labels
                .find_map(|(is, value)| (is == name).then(|| value.trim_matches('"')))
                .unwrap_or_default()
        };
        let (verb, resource) = (label("verb"), label("resource"));
        if WRITES.contains(&verb) && (GROUPS.contains(&label("group")) || resource == ACCOUNTS) {
            let what =
                format!("{verb} {resource} {}, answered {}", label("subresource"), label("code"));
            *writes.entry(what).or_default() += count.parse().unwrap_or(0.0);
        }
    }
    writes
}

/// What was written between two counts.
fn since(before: &ApiWrites, after: &ApiWrites) -> ApiWrites {
    let more =
        after.iter().map(|(what, times)| (what.clone(), times - before.get(what).unwrap_or(&0.0)));
    more.filter(|(_, times)| *times > 0.0).collect()
}

/// All of them.
fn total(writes: &ApiWrites) -> f64 {
    // The sum of none is -0.
    writes.values().fold(0.0, |sum, times| sum + times)
}
