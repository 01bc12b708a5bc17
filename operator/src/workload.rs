//! What is kept of each Deployment in the cluster: what somebody here reads. There may be tens of thousands, of workers,
//! functions and all else, and a whole one takes several kilobytes.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::apps::v1::{Deployment, DeploymentStatus},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::Resource;
use serde::{Deserialize, Serialize};

use crate::controller::fingerprint::Fingerprint;

/// A Deployment without what nobody here reads of it.
#[derive(Clone, Debug, Default, PartialEq, Resource, Deserialize, Serialize)]
#[resource(inherit = "Deployment")]
pub(crate) struct Workload {
    pub(crate) metadata: ObjectMeta,
    /// Absent where it is a worker's: see [`crate::controller::verified`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) spec: Option<Box<Spec>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<DeploymentStatus>,
    /// Where it is a worker's: of all that we set in its metadata, which is taken out then.
    #[serde(skip)]
    pub(crate) fingerprint: Fingerprint,
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

// === impl Workload ===

impl From<Deployment> for Workload {
    /// Of a worker's, as it was applied.
    fn from(deployment: Deployment) -> Self {
        let fingerprint = Fingerprint::of(&deployment.metadata, ());
        Self { metadata: deployment.metadata, spec: None, status: deployment.status, fingerprint }
    }
}
