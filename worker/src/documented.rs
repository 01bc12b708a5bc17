//! What the documents say about this program is true.

use asyncqueue::QueueName;
use asyncqueue_runtime::memory::Budget;
use prometheus_client::registry::Registry;
use test_support::documents::{assert_metrics_registered, read, register_nats_metrics};

use crate::{
    metrics::Metrics,
    retry::outcome::{STATUS_TIMED_OUT, STATUS_UNREACHABLE, STATUS_UNREADABLE},
};

#[test]
fn statuses_without_an_answer_are_documented() {
    let text = read("docs/guarantees.md");
    for (status, event) in [
        (STATUS_TIMED_OUT, "| it takes longer than `timeout` |"),
        (STATUS_UNREACHABLE, "| no connection can be opened, "),
        (STATUS_UNREADABLE, "| it answers with something that can't be read as HTTP"),
    ] {
        let row = text.lines().find(|line| line.starts_with(event)).unwrap();
        assert!(row.contains(&status.to_string()), "{status}: {row}");
    }
}

#[tokio::test]
async fn documented_metrics_are_registered() {
    let mut registry = Registry::default();
    let queue = QueueName::parse_new("jobs").unwrap();
    let _ = (Metrics::new(&mut registry, &queue), Budget::new(0, &mut registry));
    register_nats_metrics(&mut registry).await;
    assert_metrics_registered("queue_worker_", "queue_worker_", &registry);
}
