//! NATS away while everything starts: each program waits, says so, and then works.

use serde_json::Value;
use test_support::{
    cluster::{Namespace, PODS, apply, get, is_true, kubectl, object_is},
    wait::until_in,
};

const PROGRAMS: [&str; 2] = ["asyncqueue-operator", "asyncqueue-gateway"];

#[tokio::test]
async fn all_programs_started_before_nats_wait_visibly_and_then_work() {
    let namespace = Namespace::create("outage");
    let name = &namespace.name;
    scale_nats(0).await;
    for program in PROGRAMS {
        let _ =
            kubectl(&["rollout", "restart", "-n", "openfaas", &format!("deployment/{program}")]);
    }
    apply(&format!(
        "{{apiVersion: asyncqueue.io/v1alpha1, kind: AsyncQueue, metadata: {{namespace: {name}, \
         name: {name}}}, spec: {{}}}}"
    ));
    for program in PROGRAMS {
        object_is("openfaas", &format!("deployment/{program}"), "not ready", |deployment| {
            deployment["status"].get("readyReplicas").is_none()
        })
        .await;
        let what = format!("a pod of {program} says that it waits for NATS");
        until_in(PODS, &what, async || {
            let selector = format!("-l=app.kubernetes.io/name={program}");
            let log =
                kubectl(&["logs", "-n", "openfaas", &selector, "--tail=50", "--ignore-errors"]);
            log.contains("waiting for NATS").then_some(())
        })
        .await;
    }
    let queue = object_is(name, &format!("asyncqueue/{name}"), "says that NATS is away", |queue| {
        queue["status"]["conditions"].to_string().contains("NatsUnavailable")
    })
    .await;
    assert!(!is_true(&queue, "Ready"));

    scale_nats(1).await;
    for program in PROGRAMS {
        let deployment = format!("deployment/{program}");
        let _ = kubectl(&["rollout", "status", "-n", "openfaas", &deployment, "--timeout=120s"]);
    }
    object_is(name, &format!("asyncqueue/{name}"), "ready", |queue| is_true(queue, "Ready")).await;
}

async fn scale_nats(replicas: u64) {
    let _ = kubectl(&[
        "scale",
        "-n",
        "openfaas",
        "statefulset/nats",
        &format!("--replicas={replicas}"),
    ]);
    let what = format!("{replicas} NATS servers");
    until_in(PODS, &what, async || {
        let nats = get("openfaas", "statefulset/nats")?;
        let count = |field: &str| nats["status"].get(field).and_then(Value::as_u64).unwrap_or(0);
        (count("replicas") == replicas && count("readyReplicas") == replicas).then_some(())
    })
    .await;
}
