//! How many of a queue's workers may be away at once.

use k8s_openapi::{
    api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{label_selector, meta};
use crate::controller::validate::ValidQueue;

/// One at a time, where there is more than one: nodes are drained one after another, and calls go on. For a single worker it
/// would keep its node from being drained at all, and no call is lost when it goes.
pub(super) fn build(queue: &ValidQueue) -> Option<PodDisruptionBudget> {
    (queue.replicas > 1).then(|| PodDisruptionBudget {
        metadata: meta(queue),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(label_selector(&queue.queue.queue)),
            // A worker that does not get ready does nothing that would be worth to wait for.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    })
}
