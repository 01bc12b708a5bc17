//! The chart that makes a queue of the values of OpenFaaS's queue-worker chart.

use serde_json::{Value, json};
use test_support::tools::output;

use crate::support::{helm_command, name, queue_worker_template, refusal};

const CHART: &str = "helm-queue-worker";

/// The values of the command in OpenFaaS's documentation.
const DOCUMENTED: [&str; 4] = [
    "--set=maxInflight=5",
    "--set=nats.stream.name=slow-queue",
    "--set=nats.consumer.durableName=slow-queue-workers",
    "--set=upstreamTimeout=15m",
];

/// Every value of OpenFaaS's chart 0.2.31 with its default there, but its image and the addresses
/// of its own gateway and NATS.
const OPENFAAS_VALUES: &str = r#"
replicas: 1
queueName: ""
mode: static
maxInflight: 1
adaptiveConcurrency: true
queuePartitions: 1
partition: 0
consumer: {inactiveThreshold: "30s"}
upstreamTimeout: "1m"
maxRetryAttempts: "100"
maxRetryWait: "120s"
initialRetryWait: "10s"
httpRetryCodes: "408,429,500,502,503,504"
backoff:
insecureTLS: false
gateway: {port: 8080}
nats:
  port: 4222
  stream: {name: custom-request, replicas: 1}
  consumer: {durableName: custom-workers, ackWait: 30s}
logs: {debug: false, format: console}
resources: {requests: {memory: 120Mi, cpu: 50m}}
imagePullPolicy: IfNotPresent
nodeSelector: {}
tolerations: []
affinity: {}
"#;

/// The spec of the only object that the chart renders, and its name.
fn queue(arguments: &[&str]) -> (String, Value) {
    let objects = queue_worker_template("slow-queue", arguments);
    let [queue] = &objects[..] else { panic!("{} objects", objects.len()) };
    assert_eq!(
        (&queue["apiVersion"], &queue["kind"]),
        (&json!("asyncqueue.io/v1alpha1"), &json!("AsyncQueue"))
    );
    assert_eq!(queue["metadata"]["namespace"], "openfaas");
    (name(queue).to_owned(), queue["spec"].clone())
}

#[test]
fn the_documented_command_makes_the_queue_that_it_says() {
    let (name, spec) = queue(&DOCUMENTED);
    assert_eq!(name, "slow-queue");
    assert_eq!((&spec["maxInflight"], &spec["timeout"]), (&json!(5), &json!("15m")));
    assert_eq!(spec["stream"], json!({"name": "slow-queue", "replicas": 1}));
    assert_eq!(spec["consumer"], json!({"durableName": "slow-queue-workers", "ackWait": "30s"}));
    // What is not said is as OpenFaaS has it.
    let retry = json!({
        "maxAttempts": 100,
        "minBackoff": "10s",
        "maxBackoff": "120s",
        "jitter": "None",
        "statusCodes": [408, 429, 500, 502, 503, 504],
    });
    assert_eq!(spec["retry"], retry);
    // Functions and NATS are reached as the operator says.
    assert!(
        spec["invoke"].is_null() && spec["nats"].is_null() && spec["worker"]["image"].is_null()
    );
}

#[test]
fn a_file_with_every_value_of_openfaas_is_taken_as_it_is() {
    let file = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    std::fs::write(file.path(), OPENFAAS_VALUES).unwrap();
    assert_eq!(queue(&[&format!("--values={}", file.path().display())]), queue(&[]));
}

#[test]
fn each_value_has_its_field() {
    let field =
        |set: &str, pointer: &str| queue(&[&format!("--set={set}")]).1.pointer(pointer).cloned();
    for (set, pointer, expected) in [
        ("replicas=3", "/replicas", json!(3)),
        ("maxRetryAttempts=5", "/retry/maxAttempts", json!(5)),
        ("backoff=full", "/retry/jitter", json!("Full")),
        ("backoff=equal", "/retry/jitter", json!("Equal")),
        ("httpRetryCodes=500\\, 503", "/retry/statusCodes", json!([500, 503])),
        ("insecureTLS=true", "/worker/env/0", json!({"name": "tls_insecure", "value": "true"})),
        (
            "gateway.host=http://gateway.openfaas",
            "/invoke/gatewayUrl",
            json!("http://gateway.openfaas:8080"),
        ),
        ("nats.host=nats.openfaas", "/nats/url", json!("nats://nats.openfaas:4222")),
        ("nats.stream.replicas=3", "/stream/replicas", json!(3)),
        ("nats.consumer.ackWait=1m", "/consumer/ackWait", json!("1m")),
        ("logs.debug=true", "/verbose", json!(true)),
        (
            "image=registry.example.com/asyncqueue:1",
            "/worker/image",
            json!("registry.example.com/asyncqueue:1"),
        ),
        ("nodeSelector.disk=ssd", "/worker/nodeSelector/disk", json!("ssd")),
        ("resources.limits.memory=1Gi", "/worker/resources/limits/memory", json!("1Gi")),
    ] {
        assert_eq!(field(set, pointer), Some(expected), "{set}");
    }
    assert_eq!(queue(&["--set=queueName=jobs"]).0, "jobs");
}

#[test]
fn value_without_counterpart_is_refused_with_the_remedy() {
    for (set, expected) in [
        ("maxInFlight=5", "maxInFlight"),
        ("upstreamTimeout=soon", "upstreamTimeout"),
        ("mode=function", "a queue of its own"),
        ("queuePartitions=3", "raise replicas instead"),
        ("image=ghcr.io/openfaasltd/jetstream-queue-worker:0.5.7", "leave image empty"),
        ("queueName=slow_queue", "use 1 to 40 of a-z, 0-9 and -"),
    ] {
        let refused = refusal(CHART, &[&format!("--set={set}")]);
        assert!(refused.contains(expected), "{set}: {refused}");
    }
}

#[test]
fn helm_finds_no_fault_with_it() {
    let _ = output(&mut helm_command(CHART, &["lint", "--strict", "--kube-version=1.35.0"]));
}
