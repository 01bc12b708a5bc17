//! The kustomize folders next to `standalone`, which all other tests run on.

use test_support::cluster::{
    Namespace, apply, apply_folder, get, installation::Restored, kubectl, repository,
};

use crate::{
    e2e::{Gateway, Queue, object},
    support::{is_ready, rolled_out},
};

#[tokio::test]
async fn an_operator_of_some_namespaces_works_there_with_roles_alone() {
    let restored = Restored;
    let elsewhere = Namespace::create("elsewhere");
    apply_folder("manifests/namespaced");
    for object in ["clusterrolebinding/asyncqueue-operator", "clusterrole/asyncqueue-operator"] {
        let _ = kubectl(&["delete", object]);
    }
    rolled_out();

    apply(&object("openfaas", "of-a-role", "{timeout: 30s}"));
    apply(&object(&elsewhere.name, "unseen", "{}"));
    is_ready("openfaas", "of-a-role").await;
    let unseen = get(&elsewhere.name, "asyncqueue/unseen").unwrap();
    assert_eq!(unseen["status"]["observedGeneration"], -1, "no operator has seen it: {unseen}");

    let _ = kubectl(&["delete", "-n", "openfaas", "asyncqueue/of-a-role"]);
    drop(restored);
    for namespace in ["openfaas", "openfaas-fn"] {
        let objects = "role/asyncqueue-operator-watch,rolebinding/asyncqueue-operator-watch";
        for object in objects.split(',') {
            let _ = kubectl(&["delete", "-n", namespace, object]);
        }
    }
    // Now it looks everywhere again.
    is_ready(&elsewhere.name, "unseen").await;
}

#[tokio::test]
async fn loss_of_one_of_two_replicas_interrupts_nothing() {
    let restored = Restored;
    apply_folder("manifests/ha");
    let _ = kubectl(&[
        "rollout",
        "status",
        "-n",
        "openfaas",
        "statefulset/nats-cluster",
        "--timeout=180s",
    ]);
    rolled_out();
    let queue = Queue::ready("ha", "{stream: {replicas: 3}, replicas: 2}").await;
    queue.deploy_functions(&["fast", "callbacks"]).await;

    // A server that has the stream.
    let _ = kubectl(&[
        "delete",
        "pod",
        "-n",
        "openfaas",
        "nats-cluster-1",
        "--grace-period=0",
        "--force",
    ]);
    let call = Gateway::connect().submit(queue.name(), "fast").await;
    assert_eq!(call.status, 202, "{call:?}");
    Gateway::connect().callback(queue.name(), &call.call_id).await;

    // The operator that works.
    let leader = holder();
    let _ = kubectl(&["delete", "pod", "-n", "openfaas", &leader, "--grace-period=0", "--force"]);
    queue.apply("{stream: {replicas: 3}, replicas: 2, timeout: 2m}");
    queue
        .is("as it was changed", |queue| {
            queue["status"]["observedGeneration"] == queue["metadata"]["generation"]
        })
        .await;
    assert_ne!(holder(), leader);

    drop(queue);
    drop(restored);
    let nats = repository().join("manifests/nats-cluster");
    let _ = kubectl(&["delete", "--kustomize", nats.to_str().unwrap()]);
    let _ = kubectl(&["delete", "-n", "openfaas", "poddisruptionbudget/asyncqueue-operator"]);
    let _ = kubectl(&["delete", "-n", "openfaas", "poddisruptionbudget/asyncqueue-gateway"]);
    let volumes = "-l=app.kubernetes.io/name=nats-cluster";
    let _ = kubectl(&["delete", "-n", "openfaas", "persistentvolumeclaims", volumes]);
}

/// The pod of the operator that leads.
fn holder() -> String {
    let lease = get("openfaas", "lease/asyncqueue-operator").unwrap();
    lease["spec"]["holderIdentity"].as_str().unwrap().to_owned()
}
