//! The third step: builds the objects of a valid queue. Pure.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    hash::{DefaultHasher, Hash, Hasher},
};

use asyncqueue::{
    QueueName,
    function_namespaces::NamespaceList,
    stream::{Adopt, QueueSpec},
};
use asyncqueue_runtime::{
    nats::has_credentials,
    settings::{LogEncoding, NatsSettings},
};
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{LocalObjectReference, ServiceAccount},
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};
use kube::{Resource, ResourceExt};

pub(crate) use self::{
    pod::WORKER_CONTAINER,
    revision::{REVISION_ANNOTATION, Revision},
};
use super::validate::ValidQueue;
use crate::{allowed_streams::AllowedStreams, crd::SecretKey};

mod deployment;
mod disruption_budget;
mod environment;
mod pod;
mod revision;
mod secrets;
mod service_account;
#[cfg(test)]
mod tests;

/// The label that distinguishes the workers of one queue from all others. A Deployment whose
/// selector also matches another one's pods would take them over. Every object of a queue has it.
pub(crate) const QUEUE_LABEL: &str = "asyncqueue.io/queue";

/// The annotation with the hash of what was applied last. It shows that a field is no longer
/// wanted.
pub(crate) const APPLIED_ANNOTATION: &str = "asyncqueue.io/applied";

/// Settings that the workers of all queues have in common.
#[derive(Clone, Debug)]
pub(crate) struct Installation {
    /// How workers connect to NATS.
    pub(crate) nats: NatsSettings,
    /// Their credentials for NATS: a Secret in each queue's namespace, unless the queue names
    /// another one.
    pub(crate) nats_credentials: Option<SecretKey>,
    /// The CA bundle for the NATS servers: a Secret in each queue's namespace, unless the queue
    /// names another one.
    pub(crate) nats_authority: Option<SecretKey>,
    /// Image of the workers.
    pub(crate) worker_image: String,
    /// The pull secrets in each queue's namespace for that image, unless the queue names others.
    pub(crate) image_pull_secrets: Vec<LocalObjectReference>,
    /// Namespace of functions that are named without one.
    pub(crate) function_namespace: String,
    /// The other namespaces whose functions workers may call.
    pub(crate) function_namespaces: NamespaceList,
    /// Namespace of the operator and the gateway, whose Services are not functions.
    pub(crate) platform_namespace: Option<String>,
    /// The gateway through which workers call functions, if any.
    pub(crate) gateway_url: Option<String>,
    /// The streams of other programs that queues may take over.
    pub(crate) allowed_streams: AllowedStreams,
    /// Encoding of the workers' log.
    pub(crate) log_encoding: LogEncoding,
}

/// The desired state of a queue's objects.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Prepared {
    /// Streams and consumers.
    pub(crate) queue: QueueSpec,
    /// Which streams without an owner may be taken over.
    pub(crate) adopt: Adopt,
    /// The `ServiceAccount` of the workers, unless the spec names another one.
    pub(crate) account: Option<ServiceAccount>,
    /// The Deployment of the workers.
    pub(crate) workers: Deployment,
    /// The `PodDisruptionBudget`, if there is more than one worker.
    pub(crate) budget: Option<PodDisruptionBudget>,
}

impl Installation {
    /// Returns whether the operator's own NATS URL contains credentials, and no Secret with those
    /// of the workers is configured.
    pub(crate) fn lacks_credentials(&self) -> bool {
        let servers = self.nats.nats_url.as_ref().unwrap_or(&self.nats.nats_host);
        has_credentials(servers) && self.nats_credentials.is_none()
    }
}

/// Builds the objects of a queue.
pub(crate) fn build(queue: &ValidQueue, installation: &Installation) -> Prepared {
    Prepared {
        queue: queue.queue.clone(),
        adopt: queue.adopt,
        account: service_account::build(queue).map(stamped),
        workers: stamped(deployment::build(queue, installation)),
        budget: disruption_budget::build(queue).map(stamped),
    }
}

/// Returns the labels that select a queue's workers.
pub(crate) fn selector(queue: &QueueName) -> BTreeMap<String, String> {
    strings([(QUEUE_LABEL, queue.as_str()), ("app.kubernetes.io/component", "worker")])
}

/// Returns the same selector as a user writes it after `-l`.
pub(crate) fn selector_text(queue: &QueueName) -> String {
    let pairs = selector(queue).into_iter().map(|(key, value)| format!("{key}={value}"));
    pairs.collect::<Vec<_>>().join(",")
}

/// Returns the same selector as other objects refer to pods.
fn label_selector(queue: &QueueName) -> LabelSelector {
    LabelSelector { match_labels: Some(selector(queue)), ..LabelSelector::default() }
}

/// Returns the labels of a queue's objects and of its pods.
fn labels(queue: &QueueName) -> BTreeMap<String, String> {
    let mut labels = strings([
        ("app.kubernetes.io/name", "asyncqueue-worker"),
        ("app.kubernetes.io/instance", queue.as_str()),
        ("app.kubernetes.io/part-of", "asyncqueue"),
        ("app.kubernetes.io/managed-by", "asyncqueue-operator"),
    ]);
    labels.extend(selector(queue));
    labels
}

/// Returns the metadata of a queue's objects. They all have one name, and are deleted with the
/// queue.
fn meta(queue: &ValidQueue) -> ObjectMeta {
    ObjectMeta {
        name: Some(queue.queue.queue.worker_deployment()),
        namespace: Some(queue.namespace.clone()),
        labels: Some(labels(&queue.queue.queue)),
        owner_references: Some(vec![queue.owner.clone()]),
        ..ObjectMeta::default()
    }
}

fn strings<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// Adds the annotation with the hash of what is applied. Another version of this program may
/// compute another hash, which costs one update without a change.
fn stamped<K: Resource + Debug>(mut object: K) -> K {
    let mut hasher = DefaultHasher::new();
    format!("{object:?}").hash(&mut hasher);
    let hash = format!("{:016x}", hasher.finish());
    object.annotations_mut().insert(APPLIED_ANNOTATION.to_owned(), hash);
    object
}
