//! A queue's workers.

use k8s_openapi::{
    api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{Installation, label_selector, meta, pod};
use crate::controller::validate::ValidQueue;

/// A worker that isn't up after that won't be soon; the default of 10 minutes is long for somebody who watches.
const PROGRESS_DEADLINE_SECONDS: i32 = 120;

/// Enough for a look back and one undo.
const REVISION_HISTORY: i32 = 2;

pub(super) fn build(queue: &ValidQueue, installation: &Installation) -> Deployment {
    Deployment {
        metadata: meta(queue),
        spec: Some(DeploymentSpec {
            replicas: Some(queue.replicas),
            selector: label_selector(&queue.queue.queue),
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                // A worker more rather than one less: the one that goes may take long to finish.
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(1)),
                    max_unavailable: Some(IntOrString::Int(0)),
                }),
            }),
            progress_deadline_seconds: Some(PROGRESS_DEADLINE_SECONDS),
            revision_history_limit: Some(REVISION_HISTORY),
            template: pod::template(queue, installation),
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}
