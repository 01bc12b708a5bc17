//! What is installed, and how it comes back.

use test_support::cluster::{installation::FOREGROUND, is_true, kubectl, object_is};

const DEPLOYMENTS: [&str; 2] = ["deployment/asyncqueue-operator", "deployment/asyncqueue-gateway"];

/// Waits until the operator and the gateway run as they were applied last.
pub(crate) fn rolled_out() {
    for deployment in DEPLOYMENTS {
        let _ = kubectl(&["rollout", "status", "-n", "openfaas", deployment, "--timeout=180s"]);
    }
}

/// Removes all that `manifests/base` installs, but for the definition of `AsyncQueue`: as
/// manifests/README.md says.
pub(crate) fn remove_base() {
    let base = test_support::cluster::repository().join("manifests/base");
    let all_else = "--selector=app.kubernetes.io/component!=definition";
    let _ = kubectl(&["delete", FOREGROUND, "--kustomize", base.to_str().unwrap(), all_else]);
}

/// Waits until a queue is ready.
pub(crate) async fn is_ready(namespace: &str, queue: &str) {
    object_is(namespace, &format!("asyncqueue/{queue}"), "ready", |queue| is_true(queue, "Ready"))
        .await;
}
