//! Creates the default queue, for functions without an annotation.
//!
//! It can't be part of the manifests: `kubectl apply` refuses an `AsyncQueue` together with the
//! CRD, which the API server does not know yet.

use std::time::Duration;

use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::Value;
use tokio::time::sleep;
use tracing::{info, warn};

use self::applied_settings::{AppliedSettings, patch};
use crate::{
    Settings, cache::watch::MultiStore, crd::AsyncQueue, error::chain,
    labels::DEFAULT_QUEUE_SETTINGS_ANNOTATION,
};

mod applied_settings;

/// Delay between attempts.
const RETRY_DELAY: Duration = Duration::from_secs(5);

/// Creates the default queue, unless the settings disable it or one exists in any namespace. It has
/// the fields of the settings, and the defaults for all others.
///
/// Updates an existing queue to settings that have changed. This runs only at the start: a user who
/// deletes the queue while the operator runs does so on purpose.
pub(crate) async fn ensure(client: &Client, queues: &MultiStore<AsyncQueue>, settings: &Settings) {
    let Some(name) = settings.default_queue.as_ref() else { return };
    let desired = AppliedSettings::from_settings(settings);
    queues.wait_until_ready().await;
    if let Some(queue) = queues.all().iter().find(|queue| queue.name_any() == name.as_str()) {
        info!(queue = %name, namespace = queue.namespace(), "the default queue exists");
        let api = match queue.namespace() {
            Some(namespace) => Api::namespaced(client.clone(), &namespace),
            None => Api::default_namespaced(client.clone()),
        };
        let recorded =
            queue.annotations().get(DEFAULT_QUEUE_SETTINGS_ANNOTATION).map(String::as_str);
        if let Some(patch) = patch(recorded, &desired) {
            update(&api, name.as_str(), &patch).await;
        }
        return;
    }
    let api: Api<AsyncQueue> = match settings.default_queue_namespace() {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::default_namespaced(client.clone()),
    };
    let queue = match new_queue(name.as_str(), &desired) {
        Ok(queue) => queue,
        // Each part was read as a spec when the settings were.
        Err(error) => return warn!(queue = %name, "failed to create the default queue: {error}"),
    };
    loop {
        match api.create(&PostParams::default(), &queue).await {
            Ok(queue) => {
                info!(queue = %name, namespace = queue.namespace(), "created the default queue");
                return;
            }
            Err(kube::Error::Api(status)) if status.is_already_exists() => return,
            Err(error) => {
                let error = chain(&error);
                warn!(queue = %name, "failed to create the default queue, retrying: {error}");
            }
        }
        sleep(RETRY_DELAY).await;
    }
}

/// Applies the patch for settings that have changed.
async fn update(api: &Api<AsyncQueue>, name: &str, patch: &Value) {
    loop {
        match api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => return info!(queue = name, "updated the default queue to the settings"),
            // The queue was deleted in between.
            Err(kube::Error::Api(status)) if status.is_not_found() => return,
            Err(error) => {
                warn!(
                    queue = name,
                    "failed to update the default queue, retrying: {}",
                    chain(&error)
                );
            }
        }
        sleep(RETRY_DELAY).await;
    }
}

fn new_queue(name: &str, desired: &AppliedSettings) -> Result<AsyncQueue, serde_json::Error> {
    let mut queue = AsyncQueue::new(name, desired.new_spec()?);
    queue.annotations_mut().extend(desired.annotation());
    Ok(queue)
}
