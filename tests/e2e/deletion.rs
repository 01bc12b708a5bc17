//! Deleting queues.

use test_support::cluster::{get, kubectl, object_is_gone};

use crate::support::{Gateway, Queue};

#[tokio::test]
async fn a_deleted_queue_takes_its_workers_and_its_empty_streams_with_it() {
    let queue = Queue::ready("deleted", "{}").await;
    let name = queue.name();
    let _ = kubectl(&["delete", "asyncqueue", name, "-n", name, "--timeout=60s"]);
    object_is_gone(name, &queue.worker()).await;
    assert_eq!(get(name, &format!("asyncqueue/{name}")), None);
    // The stream is gone: a queue of the same name begins with nothing.
    queue.apply("{replicas: 0}");
    queue.is("ready again", |queue| queue["status"]["pending"].as_u64() == Some(0)).await;
}

#[tokio::test]
async fn calls_of_a_deleted_queue_are_taken_over_by_its_successor() {
    let queue = Queue::ready("kept", "{replicas: 0}").await;
    queue.deploy_functions(&["fast", "callbacks"]).await;
    let gateway = Gateway::connect();
    let call = gateway.submit(queue.name(), "fast").await;
    queue.is("one call pending", |queue| queue["status"]["pending"].as_u64() == Some(1)).await;
    let _ = kubectl(&["delete", "asyncqueue", queue.name(), "-n", queue.name(), "--timeout=60s"]);
    let events =
        kubectl(&["get", "events", "-n", queue.name(), "-o", "jsonpath={.items[*].message}"]);
    assert!(events.contains("Retained stream") && events.contains("with 1 call"), "{events}");
    queue.apply("{replicas: 1}");
    gateway.callback(queue.name(), &call.call_id).await;
}
