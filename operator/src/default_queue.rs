//! The queue of functions without an annotation: there is one in every install.
//!
//! It can't be part of the manifests: `kubectl apply` refuses an `AsyncQueue` in the same go as the CRD, which the API
//! server doesn't know yet.

use std::time::Duration;

use kube::{Api, Client, ResourceExt, api::PostParams};
use tokio::time::sleep;
use tracing::{info, warn};

use crate::{
    Settings,
    crd::{AsyncQueue, AsyncQueueSpec},
    error::chain,
    watch::Stores,
};

/// Between attempts.
const PAUSE: Duration = Duration::from_secs(5);

/// Creates the default queue, if there shall be one, with every default, unless there is one in any namespace. At the start
/// alone: who deletes it while the operator runs means it.
pub(crate) async fn ensure(client: &Client, queues: &Stores<AsyncQueue>, settings: &Settings) {
    let Some(name) = settings.default_queue.as_ref() else { return };
    queues.complete().await;
    if let Some(queue) = queues.all().iter().find(|queue| queue.name_any() == name.as_str()) {
        info!(queue = %name, namespace = queue.namespace(), "the default queue is there");
        return;
    }
    let api: Api<AsyncQueue> = match settings.default_queue_namespace() {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::default_namespaced(client.clone()),
    };
    let queue = AsyncQueue::new(name.as_str(), AsyncQueueSpec::default());
    loop {
        match api.create(&PostParams::default(), &queue).await {
            Ok(queue) => {
                info!(queue = %name, namespace = queue.namespace(), "created the default queue");
                return;
            }
            Err(kube::Error::Api(status)) if status.is_already_exists() => return,
            Err(error) => warn!(queue = %name, "the default queue can't be created: {}", chain(&error)),
        }
        sleep(PAUSE).await;
    }
}
