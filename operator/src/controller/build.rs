//! The third step: builds the objects of a valid queue. Pure.

use std::collections::BTreeMap;

use asyncqueue::{
    QueueName,
    stream::{Adopt, QueueSpec},
};
use k8s_openapi::{
    api::{apps::v1::Deployment, core::v1::ServiceAccount, policy::v1::PodDisruptionBudget},
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};

use super::validate::ValidatedQueue;
use crate::{
    labels::{
        COMPONENT_LABEL, INSTANCE_LABEL, MANAGED_BY_LABEL, NAME_LABEL, OPERATOR_NAME,
        PART_OF_LABEL, QUEUE_LABEL,
    },
    worker_defaults::WorkerDefaults,
};

mod deployment;
mod disruption_budget;
mod env_vars;
mod pod;
mod secrets;
mod service_account;
#[cfg(test)]
mod tests;

/// The desired state of a queue's objects.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DesiredObjects {
    /// Streams and consumers.
    pub(crate) queue: QueueSpec,
    /// Which streams without an owner may be taken over.
    pub(crate) adopt: Adopt,
    /// The `ServiceAccount` of the workers, unless the spec names another one.
    pub(crate) service_account: Option<ServiceAccount>,
    /// The Deployment of the workers.
    pub(crate) deployment: Deployment,
    /// The `PodDisruptionBudget`, if there is more than one worker.
    pub(crate) disruption_budget: Option<PodDisruptionBudget>,
}

/// Builds the objects of a queue.
pub(crate) fn build(queue: &ValidatedQueue, defaults: &WorkerDefaults) -> DesiredObjects {
    DesiredObjects {
        queue: queue.queue.clone(),
        adopt: queue.adopt,
        service_account: service_account::build(queue),
        deployment: deployment::build(queue, defaults),
        disruption_budget: disruption_budget::build(queue),
    }
}

/// Returns the labels that select a queue's workers.
pub(crate) fn selector(queue: &QueueName) -> BTreeMap<String, String> {
    string_map([(QUEUE_LABEL, queue.as_str()), (COMPONENT_LABEL, "worker")])
}

/// Returns the same selector as a user writes it after `-l`.
pub(crate) fn selector_string(queue: &QueueName) -> String {
    let pairs = selector(queue).into_iter().map(|(key, value)| format!("{key}={value}"));
    pairs.collect::<Vec<_>>().join(",")
}

/// Returns the same selector as other objects refer to pods.
fn label_selector(queue: &QueueName) -> LabelSelector {
    LabelSelector { match_labels: Some(selector(queue)), ..LabelSelector::default() }
}

/// Returns the labels of a queue's objects and of its pods.
fn labels(queue: &QueueName) -> BTreeMap<String, String> {
    let mut labels = string_map([
        (NAME_LABEL, "asyncqueue-worker"),
        (INSTANCE_LABEL, queue.as_str()),
        (PART_OF_LABEL, "asyncqueue"),
        (MANAGED_BY_LABEL, OPERATOR_NAME),
    ]);
    labels.extend(selector(queue));
    labels
}

/// Returns the metadata of a queue's objects. They all have one name, and are deleted with the
/// queue.
fn object_meta(queue: &ValidatedQueue) -> ObjectMeta {
    ObjectMeta {
        name: Some(queue.queue.queue.worker_deployment()),
        namespace: Some(queue.namespace.clone()),
        labels: Some(labels(&queue.queue.queue)),
        owner_references: Some(vec![queue.owner.clone()]),
        ..ObjectMeta::default()
    }
}

fn string_map<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}
