//! Finds the image of workers: by default, the operator's own.

use std::time::Duration;

use asyncqueue_runtime::{health::Health, program::UsageError};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use tokio::time::sleep;
use tracing::warn;

use crate::{Settings, error::chain};

/// The readiness condition, and the name of the operator's container.
const HEALTH_CONDITION: &str = "worker-image";
const CONTAINER: &str = "operator";

/// Pause between attempts to read the operator's own pod.
const RETRY_DELAY: Duration = Duration::from_secs(2);

/// Returns the image of workers. Waits for the API server if the image must be read from the pod.
///
/// # Errors
///
/// There is neither a setting nor a pod.
pub(crate) async fn worker_image(
    settings: &Settings,
    client: &Client,
    health: &Health,
) -> anyhow::Result<String> {
    if let Some(image) = settings.worker_image.as_ref() {
        return Ok(image.clone());
    }
    let (Some(pod), Some(namespace)) =
        (settings.pod_name.as_ref(), settings.pod_namespace.as_ref())
    else {
        let problem = "worker_image is not set: it is required outside of a pod, where the \
            operator has no image of its own";
        return Err(UsageError(problem.to_owned()).into());
    };
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    loop {
        let why = match pods.get(pod).await {
            Ok(pod) => match image_of(&pod) {
                Some(image) => {
                    health.ready(HEALTH_CONDITION);
                    return Ok(image);
                }
                None => "it has no container".to_owned(),
            },
            Err(error) => chain(&error),
        };
        let why = format!(
            "failed to read the operator's own pod, retrying (it is not read if worker_image is \
             set): {why}"
        );
        warn!("{why}");
        health.not_ready(HEALTH_CONDITION, why);
        sleep(RETRY_DELAY).await;
    }
}

/// Returns the image of the operator's container, or of the first one if it has another name.
fn image_of(pod: &Pod) -> Option<String> {
    let containers = &pod.spec.as_ref()?.containers;
    let ours = containers.iter().find(|container| container.name == CONTAINER);
    ours.or_else(|| containers.first())?.image.clone()
}
