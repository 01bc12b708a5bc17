//! What is changed or deleted by hand comes back.

use asyncqueue_tests::cluster::{get, is_true, kubectl, object_is};

use crate::support::Queue;

#[tokio::test]
async fn a_deployment_that_is_deleted_or_changed_by_hand_comes_back() {
    let queue = Queue::ready("drift", "{maxInflight: 3}").await;
    let uid = get(queue.name(), &queue.worker()).unwrap()["metadata"]["uid"].clone();
    let _ = kubectl(&["delete", "-n", queue.name(), &queue.worker(), "--wait=false"]);
    object_is(queue.name(), &queue.worker(), "made anew", |deployment| {
        deployment["metadata"]["uid"] != uid && deployment["metadata"]["deletionTimestamp"].is_null()
    })
    .await;

    let _ = kubectl(&["set", "env", "-n", queue.name(), &queue.worker(), "max_inflight=99"]);
    object_is(queue.name(), &queue.worker(), "as the queue says", |deployment| {
        let environment = deployment["spec"]["template"]["spec"]["containers"][0]["env"].as_array();
        environment
            .into_iter()
            .flatten()
            .any(|variable| variable["name"] == "max_inflight" && variable["value"] == "3")
    })
    .await;
    queue.is("ready", |queue| is_true(queue, "Ready")).await;
}
