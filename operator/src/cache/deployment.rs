//! Keeps of each Deployment in the cluster only what is used. There may be tens of thousands, of
//! workers, functions and everything else, and a complete one takes several kilobytes.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::apps::v1::{Deployment, DeploymentStatus},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::Resource;
use serde::{Deserialize, Serialize};

use crate::{
    cache::{
        object::{Meta, Slim},
        watch::Watched,
    },
    labels::{FUNCTION_ANNOTATION_PREFIX, FUNCTION_LABEL, QUEUE_LABEL},
};

/// The Deployment's conditions that say that pods can't be created, and that they start in time.
const REPLICA_FAILURE: &str = "ReplicaFailure";
const PROGRESSING: &str = "Progressing";

/// A Deployment, and the kind of its pods.
pub(crate) type Workload = Slim<Parts, Pods>;

/// Kind of a Deployment's pods.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Pods {
    /// Workers.
    Workers(Rollout),
    /// A function.
    Function(Box<PodMeta>),
    /// Anything else.
    Other,
}

/// Progress of the Deployment of a queue's workers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Rollout {
    /// Whether the status below is of this generation.
    pub(crate) is_seen: bool,
    /// Number of workers that exist.
    pub(crate) replicas: i32,
    /// Number of workers that were created from the current template.
    pub(crate) updated: i32,
    /// Number of workers that are ready.
    pub(crate) ready: i32,
    /// Number of workers that are available: ready for as long as the Deployment requires, which is
    /// zero.
    pub(crate) available: i32,
    /// Why the API server refuses its pods.
    pub(crate) refused: Option<Box<str>>,
    /// The message of the Deployment if its pods did not start in time.
    pub(crate) overdue: Option<Box<str>>,
}

/// The parts of a Deployment that are read.
#[derive(Clone, Debug, Default, PartialEq, Resource, Deserialize, Serialize)]
#[resource(inherit = "Deployment")]
pub(crate) struct Parts {
    pub(crate) metadata: ObjectMeta,
    #[serde(default)]
    pub(crate) spec: Spec,
    #[serde(default)]
    pub(crate) status: DeploymentStatus,
}

/// The parts of a Deployment's spec that are read.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub(crate) struct Spec {
    #[serde(default)]
    pub(crate) template: Template,
}

/// The parts of the pod template that are read.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub(crate) struct Template {
    #[serde(default)]
    pub(crate) metadata: PodMeta,
}

/// Labels and annotations of a Deployment's pods.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub(crate) struct PodMeta {
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) annotations: BTreeMap<String, String>,
}

impl Watched for Workload {
    type Whole = Parts;

    fn of(Parts { metadata, spec, status }: Parts) -> Self {
        let mut pods = spec.template.metadata;
        let pods = if metadata.labels.iter().any(|labels| labels.contains_key(QUEUE_LABEL)) {
            Pods::Workers(Rollout::of(&metadata, &status))
        } else if pods.labels.contains_key(FUNCTION_LABEL) {
            pods.labels.retain(|name, _| name == FUNCTION_LABEL);
            pods.annotations.retain(|name, _| name.starts_with(FUNCTION_ANNOTATION_PREFIX));
            Pods::Function(Box::new(pods))
        } else {
            Pods::Other
        };
        Self::new(Meta::of(&metadata), pods)
    }
}

// === impl Workload ===

impl Workload {
    /// Converts a Deployment of workers, as it was applied.
    pub(crate) fn of_workers(deployment: &Deployment) -> Self {
        let status = deployment.status.clone().unwrap_or_default();
        Self::new(
            Meta::of(&deployment.metadata),
            Pods::Workers(Rollout::of(&deployment.metadata, &status)),
        )
    }

    /// Returns the progress of the workers, if it is a Deployment of workers.
    pub(crate) fn rollout(&self) -> Option<&Rollout> {
        match &self.rest {
            Pods::Workers(rollout) => Some(rollout),
            Pods::Function(_) | Pods::Other => None,
        }
    }
}

// === impl Rollout ===

impl Rollout {
    fn of(meta: &ObjectMeta, status: &DeploymentStatus) -> Self {
        Self {
            is_seen: status.observed_generation >= meta.generation,
            replicas: status.replicas.unwrap_or_default(),
            updated: status.updated_replicas.unwrap_or_default(),
            ready: status.ready_replicas.unwrap_or_default(),
            available: status.available_replicas.unwrap_or_default(),
            refused: message(status, REPLICA_FAILURE, "True"),
            overdue: message(status, PROGRESSING, "False"),
        }
    }
}

/// Returns the message of a Deployment's condition, if it has this status.
fn message(status: &DeploymentStatus, kind: &str, holds: &str) -> Option<Box<str>> {
    let mut conditions = status.conditions.iter().flatten();
    let found =
        conditions.find(|condition| condition.type_ == kind && condition.status == holds)?;
    Some(found.message.as_deref().unwrap_or_default().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    #[test]
    fn of_a_function_what_makes_it_one_is_kept_and_of_all_else_nothing() {
        let mut deployment = fixtures::deployment("f", Some("q"));
        let expected = Pods::Function(Box::new(deployment.spec.template.metadata.clone()));
        let pods = &mut deployment.spec.template.metadata;
        pods.labels.insert("app".to_owned(), "f".to_owned());
        pods.annotations.insert("note".to_owned(), "much".to_owned());
        let kept = Workload::of(deployment.clone());
        assert_eq!(
            (&kept.rest, &*kept.meta.name, &*kept.meta.namespace),
            (&expected, "f", "openfaas-fn")
        );

        deployment.spec.template.metadata.labels.remove(FUNCTION_LABEL);
        assert_eq!(Workload::of(deployment).rest, Pods::Other);
    }

    #[test]
    fn workers_are_known_by_their_label_and_are_no_function() {
        let mut deployment = fixtures::deployment("q-worker", Some("q"));
        deployment.metadata.labels = Some([(QUEUE_LABEL.to_owned(), "q".to_owned())].into());
        deployment.metadata.generation = Some(2);
        deployment.status.observed_generation = Some(1);
        deployment.status.ready_replicas = Some(3);
        let rollout = Workload::of(deployment.clone()).rollout().cloned().unwrap();
        assert_eq!((rollout.is_seen, rollout.ready), (false, 3));
        deployment.status.observed_generation = Some(2);
        assert!(Workload::of(deployment).rollout().unwrap().is_seen);
    }
}
