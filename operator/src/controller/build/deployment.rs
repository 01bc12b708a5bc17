//! Builds the Deployment of a queue's workers.

use k8s_openapi::{
    api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{label_selector, object_meta, pod};
use crate::{controller::validate::ValidatedQueue, worker_defaults::WorkerDefaults};

/// A worker that is not ready after that time won't be ready soon. The default of 10 minutes is
/// long for a user who waits.
const PROGRESS_DEADLINE_SECONDS: i32 = 120;

/// Enough to see the previous revision and to undo one change.
const REVISION_HISTORY: i32 = 2;

pub(super) fn build(queue: &ValidatedQueue, defaults: &WorkerDefaults) -> Deployment {
    Deployment {
        metadata: object_meta(queue),
        spec: Some(DeploymentSpec {
            replicas: Some(queue.replicas),
            selector: label_selector(&queue.queue.queue),
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                // One worker more rather than one less: the old one may take long to finish.
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(1)),
                    max_unavailable: Some(IntOrString::Int(0)),
                }),
            }),
            progress_deadline_seconds: Some(PROGRESS_DEADLINE_SECONDS),
            revision_history_limit: Some(REVISION_HISTORY),
            template: pod::template(queue, defaults),
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}
