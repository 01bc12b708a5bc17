//! Two queues over one stream.

use test_support::cluster::{apply, condition, get, is_true, kubectl, object_is};

use crate::support::{Queue, object};

#[tokio::test]
async fn second_queue_over_one_stream_is_refused() {
    let first = Queue::ready("owner", "{}").await;
    let namespace = first.name();
    apply(&object(namespace, "second", &format!("{{stream: {{name: {namespace}}}}}")));
    let second = object_is(namespace, "asyncqueue/second", "refused", |queue| {
        condition(queue, "Ready").1 == "ResourceConflict"
    })
    .await;
    let (status, _, message) = condition(&second, "Ready");
    assert_eq!(status, "False");
    assert!(message.contains(namespace), "{message}");
    assert_eq!(get(namespace, "deployment/second-worker"), None);
    first.is("still ready", |queue| is_true(queue, "Ready")).await;

    // Its turn comes when the first is gone.
    let _ = kubectl(&["delete", "asyncqueue", namespace, "-n", namespace, "--timeout=60s"]);
    object_is(namespace, "asyncqueue/second", "ready", |queue| is_true(queue, "Ready")).await;
}
