//! The depth of a queue: what the operator answers to an autoscaler, with a real nats-server and
//! real workers.

use std::{net::SocketAddr, time::Duration};

use async_nats::jetstream::consumer::pull;
use asyncqueue::depth::{ConsumerTotals, Depth};
use futures::StreamExt;
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use test_support::{
    http::{Answer, HttpServer, Received, respond, respond_after},
    loopback::free_port,
    nats::NatsServer,
    program::Program,
    raw::{self, RawResponse},
    wait::{WAIT_TIMEOUT, until, until_in},
};

use crate::{
    api_server::ApiServer,
    support::{Queue, start_operator},
};

const PATH: &str = "/depth/openfaas/jobs";

/// Longer than a test takes.
const LONG: Duration = Duration::from_secs(120);

/// How long the operator gives a number.
const VALID: Duration = Duration::from_secs(15);

/// An operator of the queue `jobs`, and the address of its endpoints.
struct Operator {
    addr: SocketAddr,
    _api: ApiServer,
    _program: Program,
    _kubeconfig: NamedTempFile,
}

impl Operator {
    async fn start(nats: &NatsServer, spec: Value) -> Self {
        let api = ApiServer::with_spec(spec).await;
        let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let settings = [("nats_url", nats.url()), ("http_addr", addr.to_string())];
        let settings = settings.each_ref().map(|(name, value)| (*name, value.as_str()));
        let (program, kubeconfig) = api.operator(&settings);
        Self { addr, _api: api, _program: program, _kubeconfig: kubeconfig }
    }

    async fn get(&self, path: &str) -> Option<RawResponse> {
        raw::try_request(self.addr, "GET", path, &[], b"").await.ok()
    }

    /// Waits until the queue has this depth, which is waiting, running and retrying calls.
    async fn counts(&self, waiting: u64, running: u64, retrying: u64) {
        let expected = (waiting, running, retrying);
        let what = format!("{expected:?}");
        let mut last = String::new();
        let counted = until_in(WAIT_TIMEOUT * 2, &what, async || {
            let answer = self.get(PATH).await?;
            last = format!("{} {}", answer.status, answer.text());
            let report = (answer.status == 200).then(|| answer.json())?;
            let number = |name: &str| report[name].as_u64().unwrap();
            let parts = (number("waiting"), number("running"), number("retrying"));
            assert_eq!(number("depth"), parts.0 + parts.1 + parts.2, "{report}");
            (parts == expected).then_some(())
        });
        let counted = tokio::time::timeout(WAIT_TIMEOUT, counted).await;
        assert!(counted.is_ok(), "not seen: {expected:?}, but {last}");
    }
}

/// A function that runs long, fails or succeeds, as the body of the call says.
fn function(request: &Received) -> Answer {
    match &*request.body {
        b"long" => respond_after(LONG, 200, ""),
        b"fail" => respond(503, ""),
        _ => respond(200, ""),
    }
}

async fn submit(queue: &Queue, body: &'static str) {
    let _ = queue.submit(|call| call.body = body.into()).await;
}

#[tokio::test]
async fn depth_counts_waiting_running_and_retrying_calls() {
    let (queue, function) =
        (Queue::standalone().await, HttpServer::answering(|call| function(&call)).await);
    let spec = json!({ "maxInflight": 1, "retry": { "minBackoff": "1h", "maxBackoff": "1h" } });
    let operator = Operator::start(&queue.nats, spec).await;
    operator.counts(0, 0, 0).await;

    // Without workers: what scales from zero.
    submit(&queue, "fail").await;
    operator.counts(1, 0, 0).await;

    // The failed call is unacknowledged and does not run.
    let mut worker = queue.worker(&function, &[]);
    operator.counts(0, 0, 1).await;
    for _ in 0..3 {
        submit(&queue, "long").await;
    }
    operator.counts(2, 1, 1).await;

    // Its calls stay: the one that ran waits for another worker.
    worker.kill();
    operator.counts(2, 0, 2).await;
}

#[tokio::test]
async fn ended_and_dead_calls_are_not_in_the_depth() {
    let (queue, function) =
        (Queue::standalone().await, HttpServer::answering(|call| function(&call)).await);
    let spec = json!({ "retry": { "maxAttempts": 1 } });
    let operator = Operator::start(&queue.nats, spec).await;
    until("the stream is there", async || queue.js.get_stream("jobs").await.ok()).await;
    for body in ["fail", "fail", "ok"] {
        submit(&queue, body).await;
    }
    operator.counts(3, 0, 0).await;
    let _worker = queue.worker(&function, &[]);
    operator.counts(0, 0, 0).await;
    assert_eq!(queue.info("jobs-dead").await.state.messages, 2);
}

#[tokio::test]
async fn calls_of_a_suspended_queue_are_in_its_depth() {
    let (queue, function) =
        (Queue::standalone().await, HttpServer::answering(|call| function(&call)).await);
    let operator = Operator::start(&queue.nats, json!({ "suspend": true })).await;
    until("the stream is there", async || queue.js.get_stream("jobs").await.ok()).await;
    let _worker = queue.worker(&function, &[]);
    for _ in 0..2 {
        submit(&queue, "ok").await;
    }
    operator.counts(2, 0, 0).await;
    assert_eq!(function.received().len(), 0);
}

#[tokio::test]
async fn an_outdated_depth_is_not_given() {
    let mut queue = Queue::standalone().await;
    let operator = Operator::start(&queue.nats, json!({})).await;
    until("the stream is there", async || queue.js.get_stream("jobs").await.ok()).await;
    submit(&queue, "ok").await;
    operator.counts(1, 0, 0).await;

    queue.nats.kill();
    let mut oldest = 0.0_f64;
    let refused = until("no depth", async || {
        let answer = operator.get(PATH).await?;
        if answer.status == 200 {
            oldest = oldest.max(answer.json()["ageSeconds"].as_f64().unwrap());
        }
        (answer.status == 503).then(|| answer.text())
    })
    .await;
    assert!(refused.contains("openfaas/jobs were last counted 15 s ago"), "{refused}");
    assert!(refused.contains("kubectl describe asyncqueue jobs -n openfaas"), "{refused}");
    assert!(oldest <= VALID.as_secs_f64(), "{oldest}");

    queue.nats.restart().await;
    operator.counts(1, 0, 0).await;
}

#[tokio::test]
async fn an_unknown_queue_has_no_depth() {
    let queue = Queue::standalone().await;
    let operator = Operator::start(&queue.nats, json!({})).await;
    operator.counts(0, 0, 0).await;
    for path in ["/depth/openfaas/other", "/depth/default/jobs"] {
        let answer = operator.get(path).await.unwrap();
        assert_eq!(answer.status, 404, "{path}");
        assert!(answer.text().starts_with("there is no AsyncQueue "), "{}", answer.text());
    }
    let answer = operator.get("/other").await.unwrap();
    assert!(answer.text().contains("/depth/<namespace>/<queue>"), "{}", answer.text());
}

/// An API server that has nothing but a Lease, which `leader` holds. It is never renewed: so the
/// operator stands by until it has expired.
fn lease(request: &Received) -> Answer {
    let path = request.target.split('?').next().unwrap();
    if !path.ends_with("/leases/asyncqueue-operator") {
        return respond(404, "{}");
    }
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": "asyncqueue-operator",
            "namespace": "openfaas",
            "annotations": { "asyncqueue.io/address": "10.0.0.7:8083" },
        },
        "spec": { "holderIdentity": "leader", "leaseDurationSeconds": 600 },
    });
    respond(200, &lease.to_string())
}

#[tokio::test]
async fn a_standby_redirects_to_the_leader_of_the_lease() {
    let nats = NatsServer::start().await;
    let api = HttpServer::answering(|request| lease(&request)).await;
    let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let settings = [
        ("nats_url", &*nats.url()),
        ("http_addr", &addr.to_string()),
        ("leader_elect", "true"),
        ("POD_NAME", "standby"),
    ];
    let (operator, _kubeconfig) = start_operator(&api.url(), &settings);
    operator.logged("standing by").await;
    let answer = until("a redirect", async || {
        let answer = raw::try_request(addr, "GET", PATH, &[], b"").await.ok()?;
        (answer.status == 307).then_some(answer)
    })
    .await;
    assert_eq!(answer.header("location"), "http://10.0.0.7:8083/depth/openfaas/jobs");
}

#[tokio::test]
async fn consumers_of_a_stream_are_summed_to_its_depth() {
    let queue = Queue::standalone().await;
    let stream = queue.js.create_stream(queue.spec.stream_config()).await.unwrap();
    // A lane of one function, and a consumer of the form that OpenFaaS sends.
    let mut lanes = Vec::new();
    for (name, filter) in [("lane", "jobs.openfaas-fn.figlet.*"), ("rest", "jobs")] {
        let config = pull::Config {
            durable_name: Some(name.to_owned()),
            filter_subject: filter.to_owned(),
            ..queue.spec.consumer_config()
        };
        lanes.push(stream.create_consumer(config).await.unwrap());
    }
    for _ in 0..3 {
        submit(&queue, "ok").await;
    }
    let publish = async |subject: &'static str| {
        queue.js.publish(subject, "{}".into()).await.unwrap().await.unwrap();
    };
    publish("jobs").await;
    // No consumer takes it: it is in the depth and in no consumer's numbers.
    publish("jobs.openfaas-fn.other.id").await;

    let mut messages = lanes[0].fetch().max_messages(2).messages().await.unwrap();
    let held = [messages.next().await, messages.next().await];
    let expected = ConsumerTotals { pending: 2, unacknowledged: 2, redelivered: 0 };
    let totals = until("two deliveries", async || {
        let totals = ConsumerTotals::read(&queue.js, &queue.spec.stream).await.unwrap();
        (totals.unacknowledged == 2).then_some(totals)
    })
    .await;
    assert_eq!(totals, expected);
    let stored = queue.info(&queue.spec.stream).await.state.messages;
    let depth = Depth::new(stored, totals, 1, 0);
    assert_eq!(depth, Depth { waiting: 3, running: 1, retrying: 1, scheduled: 0 });
    drop(held);
}

#[tokio::test]
async fn counts_are_recent_soon_after_a_server_that_stood_still() {
    let queue = Queue::standalone().await;
    let operator = Operator::start(&queue.nats, json!({})).await;
    operator.counts(0, 0, 0).await;
    queue.nats.pause().await;
    // Longer than a request waits.
    until("the counts are old", async || {
        operator.get(PATH).await.is_some_and(|answer| answer.status == 503).then_some(())
    })
    .await;
    queue.nats.resume();
    submit(&queue, "waiting").await;
    operator.counts(1, 0, 0).await;
}
