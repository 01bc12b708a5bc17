//! What the documents say about this program is true.

use asyncqueue::submit::SubmitError;
use asyncqueue_runtime::memory::Budget;
use prometheus_client::registry::Registry;
use test_support::documents::{assert_explained, assert_metrics_registered, register_nats_metrics};

use crate::{metrics::Metrics, rejection::CATEGORIES};

#[test]
fn each_refusal_is_explained() {
    let codes = CATEGORIES.into_iter().chain(SubmitError::CATEGORIES);
    assert_explained("docs/troubleshooting.md", codes);
}

#[tokio::test]
async fn documented_metrics_are_registered() {
    let mut registry = Registry::default();
    let _ = (Metrics::register(&mut registry), Budget::new(0, &mut registry));
    register_nats_metrics(&mut registry).await;
    assert_metrics_registered("gateway_", "gateway_", &registry);
    assert_metrics_registered("http_", "", &registry);
}
