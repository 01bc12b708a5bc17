//! The Helm chart, on a cluster that had the manifests before.

use serde_json::json;
use test_support::{
    cluster::{
        command, get, installation::Restored, is_true, loaded_image, object_is, object_is_gone,
        repository,
    },
    tools,
};

use crate::{
    e2e::{Gateway, Queue},
    support::{is_ready, remove_base},
};

const OPERATOR: &str = "deployment/asyncqueue-operator";

/// The values with which the chart runs the image that was built from this tree, whatever image an
/// example names.
pub(crate) fn image_arguments() -> [String; 2] {
    let image = loaded_image("asyncqueue");
    let (repository, tag) = image.split_once(':').unwrap();
    let name = format!("image.registry=,image.repository={repository},image.digest=");
    [format!("--set={name},image.pullPolicy=IfNotPresent"), format!("--set-string=image.tag={tag}")]
}

/// The folder of the chart.
pub(crate) fn chart() -> String {
    repository().join("manifests/helm").to_str().unwrap().to_owned()
}

/// Runs Helm in a namespace, and returns what it prints.
pub(crate) fn helm_in(namespace: &str, arguments: &[&str]) -> String {
    let program = tools::program("helm", "helm");
    let mut helm = command(program.to_str().unwrap());
    let namespace = ["--namespace", namespace, "--timeout=180s"];
    let output = helm.args(arguments).args(namespace).output().unwrap();
    let [printed, complaints] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "helm {arguments:?}: {printed}{complaints}");
    printed
}

fn helm(arguments: &[&str]) {
    let _ = helm_in("openfaas", arguments);
}

/// With the image that was built from this tree.
fn helm_with_image(arguments: &[&str]) {
    let [name, tag] = image_arguments();
    helm(&[arguments, &["asyncqueue", &chart(), "--wait", &name, &tag]].concat());
}

#[tokio::test]
async fn the_chart_takes_over_upgrades_and_goes_and_the_queues_stay() {
    let queue = Queue::ready("helm", "{timeout: 1m}").await;
    queue.deploy_functions(&["fast", "callbacks"]).await;
    let restored = Restored;

    remove_base();
    object_is_gone("openfaas", OPERATOR).await;
    // The definition was not installed by Helm.
    helm_with_image(&["install", "--take-ownership"]);
    let call = Gateway::connect().submit(queue.name(), "fast").await;
    assert_eq!(call.status, 202, "{call:?}");
    Gateway::connect().callback(queue.name(), &call.call_id).await;

    helm_with_image(&[
        "upgrade",
        "--set=gateway.replicaCount=2",
        "--set=operator.settings.RUST_LOG=debug",
        "--set=defaultQueue.spec.maxInflight=5,defaultQueue.spec.timeout=15m",
        "--set=defaultQueue.spec.consumer.ackWait=1m",
    ]);
    // The one that was there before has what the values say now.
    object_is("openfaas", "asyncqueue/faas-request", "as the values say", |queue| {
        let spec = &queue["spec"];
        (&spec["maxInflight"], &spec["timeout"], &spec["consumer"]["ackWait"])
            == (&json!(5), &json!("15m"), &json!("1m"))
    })
    .await;
    let gateway = get("openfaas", "deployment/asyncqueue-gateway").unwrap();
    assert_eq!(gateway["status"]["readyReplicas"], 2);
    queue.apply("{timeout: 2m}");
    queue
        .is("as it was changed", |queue| {
            is_true(queue, "Ready")
                && queue["status"]["observedGeneration"] == queue["metadata"]["generation"]
        })
        .await;

    // What is no longer set has its default again.
    helm_with_image(&["upgrade", "--reset-values"]);
    object_is("openfaas", "asyncqueue/faas-request", "as by default", |queue| {
        queue["spec"]["maxInflight"] == 1 && queue["spec"]["timeout"] == "1m"
    })
    .await;
    helm(&["uninstall", "asyncqueue", "--wait"]);
    object_is_gone("openfaas", OPERATOR).await;
    let left = get(queue.name(), &format!("asyncqueue/{}", queue.name())).unwrap();
    assert!(is_true(&left, "Ready") && left["metadata"]["deletionTimestamp"].is_null());
    assert!(get(queue.name(), &queue.worker()).is_some(), "the workers went with the release");

    drop(restored);
    is_ready(queue.name(), queue.name()).await;
}
