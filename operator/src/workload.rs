//! What is kept of each Deployment in the cluster: what somebody here reads. There may be tens of thousands, of workers,
//! functions and all else, and a whole one takes several kilobytes.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::apps::v1::{Deployment, DeploymentStatus},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::Resource;
use serde::{Deserialize, Serialize};

use crate::{
    controller::{build::QUEUE_LABEL, fingerprint::Fingerprint},
    functions::{ANNOTATIONS, FUNCTION_LABEL},
    slim::{Meta, Slim},
    watch::Watched,
};

/// The conditions of a Deployment that say that it has no pods, and that they come up in time.
const REPLICA_FAILURE: &str = "ReplicaFailure";
const PROGRESSING: &str = "Progressing";

/// A Deployment, and what its pods are.
pub(crate) type Workload = Slim<Parts, Pods>;

/// What a Deployment's pods are.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Pods {
    /// Workers.
    Workers(Rollout),
    /// A function.
    Function(Box<PodMeta>),
    /// Nothing of ours.
    Other,
}

/// How far the Deployment of a queue's workers is.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Rollout {
    /// Of all that we set in its metadata. Of its spec, [`crate::controller::verified`] knows.
    pub(crate) fingerprint: Fingerprint,
    pub(crate) generation: Option<i64>,
    /// Whether what follows is about this generation.
    pub(crate) is_seen: bool,
    /// Workers that exist.
    pub(crate) replicas: i32,
    /// Those of them that were made from the template as it is.
    pub(crate) updated: i32,
    /// Workers that are ready.
    pub(crate) ready: i32,
    /// Workers that are available: ready for as long as the Deployment asks, which is no time.
    pub(crate) available: i32,
    /// Why the API server does not take its pods.
    pub(crate) refused: Option<Box<str>>,
    /// What it says where its pods did not come up in time.
    pub(crate) overdue: Option<Box<str>>,
}

/// What is read of a Deployment.
#[derive(Clone, Debug, Default, PartialEq, Resource, Deserialize, Serialize)]
#[resource(inherit = "Deployment")]
pub(crate) struct Parts {
    pub(crate) metadata: ObjectMeta,
    #[serde(default)]
    pub(crate) spec: Spec,
    #[serde(default)]
    pub(crate) status: DeploymentStatus,
}

/// Of a Deployment's spec.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub(crate) struct Spec {
    #[serde(default)]
    pub(crate) template: Template,
}

/// Of the template of its pods.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub(crate) struct Template {
    #[serde(default)]
    pub(crate) metadata: PodMeta,
}

/// What a Deployment's pods are called.
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
            pods.annotations.retain(|name, _| name.starts_with(ANNOTATIONS));
            Pods::Function(Box::new(pods))
        } else {
            Pods::Other
        };
        Self::new(Meta::of(&metadata), pods)
    }
}

// === impl Workload ===

impl Workload {
    /// Of workers', as it was applied.
    pub(crate) fn of_workers(deployment: &Deployment) -> Self {
        let status = deployment.status.clone().unwrap_or_default();
        Self::new(Meta::of(&deployment.metadata), Pods::Workers(Rollout::of(&deployment.metadata, &status)))
    }

    /// How far the workers are, if it is a Deployment of workers.
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
            fingerprint: Fingerprint::of(meta, ()),
            generation: meta.generation,
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

/// The message of a Deployment's condition, if it has this status.
fn message(status: &DeploymentStatus, kind: &str, holds: &str) -> Option<Box<str>> {
    let mut conditions = status.conditions.iter().flatten();
    let found = conditions.find(|condition| condition.type_ == kind && condition.status == holds)?;
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
        assert_eq!((&kept.rest, &*kept.meta.name, &*kept.meta.namespace), (&expected, "f", "openfaas-fn"));

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
        assert_eq!((rollout.generation, rollout.is_seen, rollout.ready), (Some(2), false, 3));
        deployment.status.observed_generation = Some(2);
        assert!(Workload::of(deployment).rollout().unwrap().is_seen);
    }
}
