//! Queues that are suspended.

use test_support::cluster::{condition, is_true};

use crate::support::{Gateway, Queue};

#[tokio::test]
async fn a_suspended_queue_accepts_calls_and_runs_them_when_it_is_resumed() {
    let queue = Queue::ready("suspend", "{suspend: true}").await;
    let suspended = queue.is("suspended", |queue| is_true(queue, "Suspended")).await;
    assert_eq!(condition(&suspended, "Ready").1, "Suspended");
    queue.deploy_functions(&["fast", "callbacks"]).await;
    let gateway = Gateway::connect();
    let call = gateway.submit(queue.name(), "fast").await;
    assert_eq!(call.status, 202);
    // The workers are there, and none has it.
    queue
        .is("one call pending and a worker ready", |queue| {
            queue["status"]["pending"].as_u64() == Some(1)
                && queue["status"]["readyReplicas"].as_u64() == Some(1)
        })
        .await;
    assert!(gateway.callbacks(queue.name()).await.is_empty());
    queue.apply("{suspend: false}");
    gateway.callback(queue.name(), &call.call_id).await;
    queue.is("active", |queue| condition(queue, "Suspended").1 == "Active").await;
}
