//! What the documents say about this program is true.

use prometheus_client::registry::Registry;
use test_support::documents::{assert_explained, assert_metrics_registered};

use crate::{crd::conditions::reason, metrics::Metrics};

#[test]
fn each_reason_of_a_condition_is_explained() {
    assert_explained("docs/troubleshooting.md", reason::ALL);
}

#[test]
fn documented_metrics_are_registered() {
    let mut registry = Registry::default();
    let _ = Metrics::new(&mut registry, &[]);
    assert_metrics_registered("asyncqueue_operator_", "asyncqueue_operator_", &registry);
}
