//! What tools that know no `AsyncQueue` make of one: kstatus, and Argo CD with this project's
//! health check.

use std::{
    io::{Seek, SeekFrom, Write},
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::{
    cluster::repository,
    tools::{output_of, program},
};

/// Where the health check for Argo CD is, and under which key.
const CHECK: &str = "examples/argocd/argocd-cm.yaml";
const KEY: &str = "resource.customizations.health.asyncqueue.io_AsyncQueue";

/// What each object is to kstatus and to Argo CD: `Current Healthy`.
#[must_use]
pub fn health(objects: &[Value]) -> Vec<String> {
    let config = std::fs::read_to_string(repository().join(CHECK)).expect("the example is there");
    let config: Value = serde_saphyr::from_str(&config).expect("it is YAML");
    let folder = tempfile::tempdir().expect("a folder");
    let script = folder.path().join("health.lua");
    std::fs::write(&script, config["data"][KEY].as_str().expect("it holds a script"))
        .expect("written");
    let mut lines = tempfile::tempfile().expect("a file");
    for object in objects {
        writeln!(lines, "{object}").expect("written");
    }
    lines.seek(SeekFrom::Start(0)).expect("a file has a beginning");
    let mut command = Command::new(program("health", "health"));
    let found = output_of(command.arg(script).stdin(Stdio::from(lines)));
    let found: Vec<_> = found.lines().map(str::to_owned).collect();
    assert_eq!(found.len(), objects.len(), "{found:?}");
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A queue with these conditions, which hold, and those that do not.
    fn queue(observed: i64, holds: &[&str], not: &[&str]) -> Value {
        let condition =
            |kind: &&str, status: &str| json!({ "type": kind, "status": status, "message": "m" });
        let conditions = holds.iter().map(|kind| condition(kind, "True"));
        let conditions: Vec<_> =
            conditions.chain(not.iter().map(|kind| condition(kind, "False"))).collect();
        json!({
            "apiVersion": "asyncqueue.io/v1alpha1", "kind": "AsyncQueue",
            "metadata": { "name": "q", "namespace": "n", "generation": 2 },
            "status": { "observedGeneration": observed, "conditions": conditions },
        })
    }

    #[test]
    fn tools_read_a_queues_conditions() {
        let mut deleted = queue(2, &["Ready"], &["Progressing"]);
        deleted["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        let cases = [
            (queue(-1, &[], &[]), "InProgress Progressing"),
            (queue(1, &["Ready"], &["Progressing"]), "InProgress Progressing"),
            (queue(2, &["Progressing", "Reconciling"], &["Ready"]), "InProgress Progressing"),
            (queue(2, &["Ready", "Progressing", "Reconciling"], &[]), "InProgress Progressing"),
            (queue(2, &["Ready"], &["Progressing"]), "Current Healthy"),
            (queue(2, &["Ready", "Suspended"], &["Progressing"]), "Current Suspended"),
            (queue(2, &["Stalled"], &["Ready", "Progressing"]), "Failed Degraded"),
            (queue(2, &["Ready", "Stalled"], &["Progressing"]), "Failed Degraded"),
            // NATS that is unavailable is waited for.
            (queue(2, &[], &["Ready", "Progressing"]), "InProgress Degraded"),
            (deleted, "Terminating Healthy"),
        ];
        let (objects, expected): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
        assert_eq!(health(&objects), expected);
    }
}
