//! What OpenFaaS's documentation says, done as it says it: its commands, its address, and what was
//! queued there.

use async_nats::jetstream::stream::Config;
use serde_json::{Value, json};
use test_support::{
    cluster::{
        Namespace, PortForward, apply, command, get, is_true, kubectl, loaded_image,
        object_is_gone, repository,
    },
    tools,
};

use crate::support::{Gateway, Queue};

/// Runs Helm in a namespace.
fn helm(namespace: &str, arguments: &[&str]) {
    let program = tools::program("helm", "helm");
    let mut helm = command(program.to_str().unwrap());
    let output = helm.args(arguments).args(["--namespace", namespace]).output().unwrap();
    assert!(
        output.status.success(),
        "helm {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test]
async fn the_documented_helm_command_makes_a_queue_that_runs() {
    let queue = Queue { namespace: Namespace::create("documented") };
    let name = queue.name();
    let chart = repository().join("manifests/helm-queue-worker");
    let stream = format!("--set=nats.stream.name={name}");
    let durable = format!("--set=nats.consumer.durableName={name}-workers");
    let release = [name, chart.to_str().unwrap()];
    let values = ["--set=maxInflight=5", &stream, &durable, "--set=upstreamTimeout=15m"];
    helm(name, &[&["upgrade", "--install"], &release[..], &values].concat());
    let object = queue.is("ready", |queue| is_true(queue, "Ready")).await;
    assert_eq!(
        (&object["spec"]["maxInflight"], &object["spec"]["timeout"]),
        (&json!(5), &json!("15m"))
    );
    assert_eq!(object["spec"]["consumer"]["durableName"], format!("{name}-workers"));

    queue.deploy_functions(&["fast", "callbacks"]).await;
    let call = Gateway::connect().submit(name, "fast").await;
    assert_eq!(call.status, 202, "{call:?}");
    Gateway::connect().callback(name, &call.call_id).await;

    helm(name, &[&["upgrade", "--reuse-values"], &release[..], &["--set=maxInflight=10"]].concat());
    queue
        .is("changed", |queue| {
            queue["spec"]["maxInflight"] == 10 && queue["spec"]["timeout"] == "15m"
        })
        .await;
    helm(name, &["uninstall", name]);
    object_is_gone(name, &format!("asyncqueue/{name}")).await;
}

#[tokio::test]
async fn the_gateway_answers_at_the_address_of_openfaas() {
    let queue = Queue::ready("address", "{}").await;
    queue.deploy_functions(&["fast", "callbacks"]).await;
    let namespace = queue.name();
    let gateway = Gateway::connect();
    // The worker resolves the name, as any client in the cluster does. By either route: one calls
    // `callbacks`, the other stores a call of it.
    for route in ["function", "async-function"] {
        let receiver = format!(
            "http://gateway.openfaas.svc.cluster.local:8080/{route}/callbacks.{namespace}\
             /callback/documented"
        );
        let target = format!("/async-function/fast.{namespace}");
        let call =
            gateway.request("POST", &target, &[("X-Callback-Url", &receiver)], "hello").await;
        assert_eq!(call.status, 202, "{call:?}");
        gateway.callback(namespace, &call.call_id).await;
    }
}

#[tokio::test]
async fn by_default_there_is_one_queue_with_one_worker_that_runs_one_call() {
    let queue = get("openfaas", "asyncqueue/faas-request").unwrap();
    let spec = &queue["spec"];
    assert_eq!((&spec["replicas"], &spec["maxInflight"]), (&json!(1), &json!(1)), "{spec}");
    assert_eq!(spec["timeout"], "1m", "{spec}");
}

#[tokio::test]
async fn a_job_moves_the_calls_of_a_stream_of_openfaas() {
    let queue = Queue::ready("drained", "{}").await;
    queue.deploy_functions(&["fast", "callbacks"]).await;
    let namespace = queue.name();
    let stream = format!("OF_{namespace}");
    let forward = PortForward::to("openfaas", "service/nats", 4222);
    let client = async_nats::connect(format!("nats://{}", forward.addr())).await.unwrap();
    let js = test_support::nats::jetstream_context(client);
    let config =
        Config { name: stream.clone(), subjects: vec![stream.clone()], ..Config::default() };
    js.create_stream(config).await.unwrap();
    for id in ["drained-1", "drained-2"] {
        let request = json!({
            "Header": {
                "X-Call-Id": [id],
                "X-Callback-Url": [format!("http://callbacks.{namespace}:8080/callback/")],
            },
            "Body": "aGVsbG8=",
            "Method": "POST",
            "Function": format!("fast.{namespace}"),
        });
        js.publish(stream.clone(), request.to_string().into()).await.unwrap().await.unwrap();
    }

    let settings = [
        ("source_stream", stream.as_str()),
        ("source_url", "nats://nats.openfaas:4222"),
        ("nats_url", "nats://nats.openfaas:4222"),
    ];
    apply(&job(namespace, &settings).to_string());
    let _ = kubectl(&[
        "wait",
        "-n",
        namespace,
        "--for=condition=Complete",
        "job/asyncqueue-drain-jetstream",
        "--timeout=120s",
    ]);
    let gateway = Gateway::connect();
    for id in ["drained-1", "drained-2"] {
        gateway.callback(namespace, id).await;
    }
    let log = kubectl(&["logs", "-n", namespace, "job/asyncqueue-drain-jetstream"]);
    assert!(log.contains("\"stored\":2"), "{log}");
    js.delete_stream(&stream).await.unwrap();
}

/// The Job of `manifests/drain-jetstream` in a namespace, with these settings.
fn job(namespace: &str, settings: &[(&str, &str)]) -> Value {
    let file = repository().join("manifests/drain-jetstream/job.yaml");
    let mut job: Value = serde_saphyr::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    job["metadata"]["namespace"] = namespace.into();
    let container = &mut job["spec"]["template"]["spec"]["containers"][0];
    container["image"] = loaded_image("asyncqueue").into();
    for variable in container["env"].as_array_mut().unwrap() {
        let set = settings.iter().find(|(name, _)| variable["name"] == *name);
        if let Some((_, value)) = set {
            variable["value"] = (*value).into();
        }
    }
    job
}
