//! The third step: the objects that a valid queue consists of. Pure.

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
    nats::holds_credentials,
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

/// The label that tells the workers of one queue from all others: a Deployment whose selector is another's too would
/// take over its pods. Every object of a queue carries it.
pub(crate) const QUEUE_LABEL: &str = "asyncqueue.io/queue";

/// The annotation with the hash of what was applied last, by which a field that is not wanted any more is noticed.
pub(crate) const APPLIED_ANNOTATION: &str = "asyncqueue.io/applied";

/// What the workers of all queues have in common.
#[derive(Clone, Debug)]
pub(crate) struct Installation {
    /// How they reach NATS.
    pub(crate) nats: NatsSettings,
    /// The credentials that they have there, in each queue's namespace, where the queue names none.
    pub(crate) nats_credentials: Option<SecretKey>,
    /// The authority of the servers there, likewise.
    pub(crate) nats_authority: Option<SecretKey>,
    /// Their image.
    pub(crate) worker_image: String,
    /// The Secrets in each queue's namespace with which it is pulled, where the queue names none.
    pub(crate) image_pull_secrets: Vec<LocalObjectReference>,
    /// Where functions are that are named without a namespace.
    pub(crate) function_namespace: String,
    /// The other namespaces whose functions they may call.
    pub(crate) function_namespaces: NamespaceList,
    /// Where the operator and the gateway are, whose Services are no functions.
    pub(crate) platform_namespace: Option<String>,
    /// The gateway that they call functions through, if any.
    pub(crate) gateway_url: Option<String>,
    /// The streams of other programs that queues may take over.
    pub(crate) allowed_streams: AllowedStreams,
    /// The form of their log.
    pub(crate) log_encoding: LogEncoding,
}

/// A queue's objects as they shall be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Prepared {
    /// Streams and consumers.
    pub(crate) queue: QueueSpec,
    /// Which streams that no queue owns may be taken over.
    pub(crate) adopt: Adopt,
    /// What the workers run as, unless the spec names another.
    pub(crate) account: Option<ServiceAccount>,
    /// The workers.
    pub(crate) workers: Deployment,
    /// How many workers may be away at once, where there is more than one.
    pub(crate) budget: Option<PodDisruptionBudget>,
}

impl Installation {
    /// Whether the operator's own way to NATS holds credentials, and no Secret with those of workers is named.
    pub(crate) fn lacks_credentials(&self) -> bool {
        let servers = self.nats.nats_url.as_ref().unwrap_or(&self.nats.nats_host);
        holds_credentials(servers) && self.nats_credentials.is_none()
    }
}

/// Builds the objects.
pub(crate) fn build(queue: &ValidQueue, installation: &Installation) -> Prepared {
    Prepared {
        queue: queue.queue.clone(),
        adopt: queue.adopt,
        account: service_account::build(queue).map(stamped),
        workers: stamped(deployment::build(queue, installation)),
        budget: disruption_budget::build(queue).map(stamped),
    }
}

/// The labels by which a queue's workers are known.
pub(crate) fn selector(queue: &QueueName) -> BTreeMap<String, String> {
    strings([(QUEUE_LABEL, queue.as_str()), ("app.kubernetes.io/component", "worker")])
}

/// The same as a user writes it, after `-l`.
pub(crate) fn selector_text(queue: &QueueName) -> String {
    let pairs = selector(queue).into_iter().map(|(key, value)| format!("{key}={value}"));
    pairs.collect::<Vec<_>>().join(",")
}

/// The same as other objects refer to pods.
fn label_selector(queue: &QueueName) -> LabelSelector {
    LabelSelector { match_labels: Some(selector(queue)), ..LabelSelector::default() }
}

/// The labels of a queue's objects and of its pods.
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

/// The metadata of a queue's objects, which all have one name and go with the queue.
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

/// An object with the annotation that tells it from what was applied before. Another version of this program may compute
/// another hash, which costs one update that changes nothing.
fn stamped<K: Resource + Debug>(mut object: K) -> K {
    let mut hasher = DefaultHasher::new();
    format!("{object:?}").hash(&mut hasher);
    let hash = format!("{:016x}", hasher.finish());
    object.annotations_mut().insert(APPLIED_ANNOTATION.to_owned(), hash);
    object
}
