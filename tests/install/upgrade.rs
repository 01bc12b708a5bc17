//! From the previous version of the manifests to this one.

use asyncqueue_tests::cluster::{apply, apply_folder, get, is_true, kubectl, repository};

use crate::{
    e2e::{Gateway, Queue},
    support::{Restored, is_ready, rolled_out},
};

/// Calls that are stored before the upgrade.
const CALLS: usize = 5;

#[tokio::test]
async fn an_upgrade_loses_no_call_and_finds_no_fault_with_old_queues() {
    let restored = Restored;
    // An older Deployment over a newer one is no upgrade.
    let _ = kubectl(&["delete", "-n", "openfaas", "--wait", "deployment/asyncqueue-operator"]);
    apply_folder("tests/install/previous");
    rolled_out();
    let queues = std::fs::read_to_string(repository().join("tests/install/previous/queues.yaml")).unwrap();
    apply(&queues);
    // One whose calls wait for the upgrade.
    let waiting = Queue::ready("upgraded", "{replicas: 0, timeout: 1m}").await;
    waiting.deploy_functions(&["fast", "callbacks"]).await;
    let gateway = Gateway::connect();
    let mut calls = Vec::new();
    for _ in 0..CALLS {
        let call = gateway.submit(waiting.name(), "fast").await;
        assert_eq!(call.status, 202, "{call:?}");
        calls.push(call.call_id);
    }
    for queue in ["upgraded-default", "upgraded-full"] {
        is_ready("openfaas", queue).await;
    }
    let stored = waiting.is("all calls stored", |queue| queue["status"]["pending"].as_u64() == Some(5)).await;

    drop(restored);

    // The same stream, with what was in it.
    let upgraded = waiting.is("ready", |queue| is_true(queue, "Ready")).await;
    assert_eq!(upgraded["status"]["streamCreated"], stored["status"]["streamCreated"]);
    assert_eq!(upgraded["status"]["pending"], 5);
    // What users have in their files, and what the API server has, is valid.
    apply(&queues);
    for queue in ["upgraded-default", "upgraded-full"] {
        let path = format!("asyncqueue/{queue}");
        let _ = kubectl(&["annotate", "-n", "openfaas", &path, "touched=by-the-new-version"]);
        is_ready("openfaas", queue).await;
        assert!(get("openfaas", &path).unwrap()["metadata"]["annotations"]["touched"].is_string());
    }
    waiting.apply("{replicas: 1, timeout: 1m}");
    let gateway = Gateway::connect();
    for call in &calls {
        gateway.callback(waiting.name(), call).await;
    }
    for queue in ["upgraded-default", "upgraded-full"] {
        let _ = kubectl(&["delete", "-n", "openfaas", &format!("asyncqueue/{queue}")]);
    }
}
