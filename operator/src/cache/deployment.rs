//! The cached form of a Deployment: the rollout status if its pods are workers, or their labels and
//! annotations if they are a function. A cluster may have tens of thousands of Deployments, and a
//! complete one takes several kilobytes.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::apps::v1::{Deployment, DeploymentStatus},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::Resource;
use serde::{Deserialize, Serialize};

use super::{
    object::{CachedMeta, CachedObject},
    watch::Cacheable,
};
use crate::{
    labels::{FUNCTION_ANNOTATION_PREFIXES, FUNCTION_LABEL, QUEUE_LABEL},
    termination_grace::TerminationGrace,
};

/// The Deployment's conditions that say that pods can't be created, and that they start in time.
const REPLICA_FAILURE: &str = "ReplicaFailure";
const PROGRESSING: &str = "Progressing";

/// A Deployment, and what its pods are.
pub(crate) type CachedDeployment = CachedObject<PartialDeployment, DeploymentRole>;

/// What the pods of a Deployment are.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum DeploymentRole {
    /// Workers.
    Workers(RolloutStatus),
    /// A function.
    Function {
        /// What its pods say about it.
        pods: Box<PodMeta>,
        /// Whether it has no pods on purpose.
        is_scaled_to_zero: bool,
    },
    /// Anything else.
    Other,
}

/// Progress of the Deployment of a queue's workers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct RolloutStatus {
    /// Whether the status below is of this generation.
    pub(crate) is_observed: bool,
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
    /// The termination grace period of the current template.
    pub(crate) grace: Option<TerminationGrace>,
}

/// The fields of a Deployment that are read.
#[derive(Clone, Debug, Default, PartialEq, Resource, Deserialize, Serialize)]
#[resource(inherit = "Deployment")]
pub(crate) struct PartialDeployment {
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
    pub(crate) replicas: Option<i32>,
    #[serde(default)]
    pub(crate) template: Template,
}

/// The parts of the pod template that are read.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub(crate) struct Template {
    #[serde(default)]
    pub(crate) metadata: PodMeta,
    #[serde(default)]
    pub(crate) spec: PartialPod,
}

/// The part of a pod's spec that is read.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PartialPod {
    #[serde(default)]
    pub(crate) termination_grace_period_seconds: Option<i64>,
}

/// Labels and annotations of a Deployment's pods.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub(crate) struct PodMeta {
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) annotations: BTreeMap<String, String>,
}

impl Cacheable for CachedDeployment {
    type Object = PartialDeployment;

    fn from_object(PartialDeployment { metadata, spec, status }: PartialDeployment) -> Self {
        let grace = spec.template.spec.termination_grace_period_seconds;
        let mut pods = spec.template.metadata;
        let pods = if metadata.labels.iter().any(|labels| labels.contains_key(QUEUE_LABEL)) {
            DeploymentRole::Workers(RolloutStatus::new(&metadata, &status, grace))
        } else if pods.labels.contains_key(FUNCTION_LABEL) {
            pods.labels.retain(|name, _| name == FUNCTION_LABEL);
            let is_kept = |name: &str| {
                FUNCTION_ANNOTATION_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
            };
            pods.annotations.retain(|name, _| is_kept(name));
            let is_scaled_to_zero = spec.replicas == Some(0);
            DeploymentRole::Function { pods: Box::new(pods), is_scaled_to_zero }
        } else {
            DeploymentRole::Other
        };
        Self::new(CachedMeta::new(&metadata), pods)
    }
}

// === impl CachedDeployment ===

impl CachedDeployment {
    /// Converts a Deployment of workers, as the API server returned it.
    pub(crate) fn from_workers(deployment: &Deployment) -> Self {
        let status = deployment.status.clone().unwrap_or_default();
        let pod = deployment.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
        let grace = pod.and_then(|pod| pod.termination_grace_period_seconds);
        Self::new(
            CachedMeta::new(&deployment.metadata),
            DeploymentRole::Workers(RolloutStatus::new(&deployment.metadata, &status, grace)),
        )
    }

    /// Returns the progress of the workers, if it is a Deployment of workers.
    pub(crate) fn rollout(&self) -> Option<&RolloutStatus> {
        match &self.data {
            DeploymentRole::Workers(rollout) => Some(rollout),
            DeploymentRole::Function { .. } | DeploymentRole::Other => None,
        }
    }
}

// === impl RolloutStatus ===

impl RolloutStatus {
    fn new(meta: &ObjectMeta, status: &DeploymentStatus, grace: Option<i64>) -> Self {
        Self {
            is_observed: status.observed_generation >= meta.generation,
            replicas: status.replicas.unwrap_or_default(),
            updated: status.updated_replicas.unwrap_or_default(),
            ready: status.ready_replicas.unwrap_or_default(),
            available: status.available_replicas.unwrap_or_default(),
            refused: condition_message(status, REPLICA_FAILURE, "True"),
            overdue: condition_message(status, PROGRESSING, "False"),
            grace: grace.and_then(TerminationGrace::from_seconds),
        }
    }
}

/// Returns the message of a Deployment's condition, if it has this status.
fn condition_message(
    status: &DeploymentStatus,
    condition_type: &str,
    expected_status: &str,
) -> Option<Box<str>> {
    let mut conditions = status.conditions.iter().flatten();
    let found = conditions.find(|condition| {
        condition.type_ == condition_type && condition.status == expected_status
    })?;
    Some(found.message.as_deref().unwrap_or_default().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    #[test]
    fn only_the_fields_of_functions_are_cached() {
        let mut deployment = fixtures::deployment("f", Some("q"));
        let pods = Box::new(deployment.spec.template.metadata.clone());
        let expected = DeploymentRole::Function { pods, is_scaled_to_zero: false };
        let pods = &mut deployment.spec.template.metadata;
        pods.labels.insert("app".to_owned(), "f".to_owned());
        pods.annotations.insert("note".to_owned(), "much".to_owned());
        let cached = CachedDeployment::from_object(deployment.clone());
        assert_eq!(
            (&cached.data, &*cached.meta.name, &*cached.meta.namespace),
            (&expected, "f", "openfaas-fn")
        );

        deployment.spec.template.metadata.labels.remove(FUNCTION_LABEL);
        assert_eq!(CachedDeployment::from_object(deployment).data, DeploymentRole::Other);
    }

    #[test]
    fn workers_are_recognised_by_their_label() {
        let mut deployment = fixtures::deployment("q-worker", Some("q"));
        deployment.metadata.labels = Some([(QUEUE_LABEL.to_owned(), "q".to_owned())].into());
        deployment.metadata.generation = Some(2);
        deployment.status.observed_generation = Some(1);
        deployment.status.ready_replicas = Some(3);
        deployment.spec.template.spec.termination_grace_period_seconds = Some(300);
        let rollout = CachedDeployment::from_object(deployment.clone()).rollout().cloned().unwrap();
        assert_eq!((rollout.is_observed, rollout.ready), (false, 3));
        assert_eq!(rollout.grace, TerminationGrace::from_seconds(300));
        deployment.status.observed_generation = Some(2);
        assert!(CachedDeployment::from_object(deployment).rollout().unwrap().is_observed);
    }
}
