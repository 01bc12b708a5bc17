//! AsyncQueue on the cluster: removed completely, and installed again as `tests/cluster/install`
//! leaves it.

use std::process::Command;

use super::{command, repository};

/// Option of `kubectl delete`: an object stays until the pods that it owns are gone. Otherwise, a
/// garbage collector that the API server has just lost may miss the deletion of a Deployment. Its
/// pods stay, and the Services of the next installation lead to them.
pub const FOREGROUND: &str = "--cascade=foreground";

/// Of what takes its time in a namespace.
const IN_TIME: [&str; 2] = ["--namespace=openfaas", "--timeout=180s"];

/// `manifests/standalone` is installed again when this is dropped, whatever became of the test.
#[derive(Debug)]
pub struct Restored;

impl Drop for Restored {
    fn drop(&mut self) {
        // Namespaces first: what goes into them can't be validated before they are there.
        for folder in ["manifests/namespaces", "manifests/standalone"] {
            try_run(
                Command::new(repository().join("tests/cluster/apply"))
                    .args([folder, "--force-conflicts"]),
            );
        }
        for workload in
            ["statefulset/nats", "deployment/asyncqueue-operator", "deployment/asyncqueue-gateway"]
        {
            try_run(command("kubectl").args(["rollout", "status", workload]).args(IN_TIME));
        }
        for what in ["--for=create", "--for=condition=Ready"] {
            try_run(
                command("kubectl").args(["wait", what, "asyncqueue/faas-request"]).args(IN_TIME),
            );
        }
    }
}

/// Removes AsyncQueue, and all that there is in the namespaces of OpenFaaS.
pub fn remove_all() {
    let delete =
        |what: &[&str]| try_run(command("kubectl").arg("delete").args(what).arg("--timeout=180s"));
    // Queues first, while the operator is there.
    if command("kubectl")
        .args(["get", "crd/asyncqueues.asyncqueue.io"])
        .output()
        .is_ok_and(|got| got.status.success())
    {
        delete(&["asyncqueues", "--all", "--all-namespaces"]);
        // Else Kubernetes looks again at their namespace only after half of their grace period.
        let workers = [
            "--for=delete",
            "pods",
            "-l=asyncqueue.io/queue",
            "--all-namespaces",
            "--timeout=120s",
        ];
        try_run(command("kubectl").arg("wait").args(workers));
    }
    delete(&["--kustomize=manifests/standalone", FOREGROUND, "--ignore-not-found"]);
}

/// Runs a command, and says so if it fails: a test that has failed already is not to fail
/// otherwise.
fn try_run(command: &mut Command) {
    let status = command.current_dir(repository()).status();
    if !status.is_ok_and(|status| status.success()) {
        eprintln!("failed: {command:?}");
    }
}
