//! Builds the `PodDisruptionBudget` of a queue's workers.

use k8s_openapi::{
    api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{label_selector, object_meta};
use crate::controller::validate::ValidatedQueue;

/// Builds the budget, if there is more than one worker: one at a time may be unavailable. Nodes are
/// then drained one after another, and calls go on. With a single worker, a budget would block the
/// drain of its node, and no call is lost when that worker stops.
pub(super) fn build(queue: &ValidatedQueue) -> Option<PodDisruptionBudget> {
    (queue.replicas > 1).then(|| PodDisruptionBudget {
        metadata: object_meta(queue),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(label_selector(&queue.queue.queue)),
            // A worker that is not ready does no work, so its eviction need not wait.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    })
}
