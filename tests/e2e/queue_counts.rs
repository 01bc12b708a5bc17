//! The numbers in a queue's status.

use serde_json::Value;
use test_support::cluster::apply;

use crate::support::{Gateway, Queue, function};

#[tokio::test]
async fn a_queue_counts_calls_that_are_retried_and_those_that_are_dead() {
    let queue = Queue::ready("queue-counts", "{}").await;
    let namespace = queue.name();
    apply(&function(namespace, "again", namespace));
    // A function's own limit comes before its queue's.
    let annotation = format!("{{com.openfaas.queue: {namespace}");
    let once = function(namespace, "once", namespace)
        .replace(&annotation, &format!("{annotation}, com.openfaas.retry.attempts: \"1\""));
    apply(&once);
    let number = |queue: &Value, name: &str| queue["status"][name].as_u64();
    queue.is("its functions known", |queue| number(queue, "functions") == Some(2)).await;

    let gateway = Gateway::connect();
    assert_eq!(gateway.submit(namespace, "once?status=500").await.status, 202);
    queue.is("one dead letter", |queue| number(queue, "deadLetters") == Some(1)).await;
    assert_eq!(gateway.submit(namespace, "again?status=500").await.status, 202);
    let counted =
        queue.is("a call that was retried", |queue| number(queue, "redelivered") == Some(1)).await;
    assert_eq!(number(&counted, "deadLetters"), Some(1));
    assert_eq!(number(&counted, "pending").unwrap() + number(&counted, "inflight").unwrap(), 1);
}
