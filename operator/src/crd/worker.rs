//! `spec.worker`: the workers' pods.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Affinity, EnvVar, LocalObjectReference, Toleration, TopologySpreadConstraint},
    apimachinery::pkg::util::intstr::IntOrString,
};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{defaults as default, rules as rule, schemas};

/// The workers' pods.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerSpec {
    /// Image with the program asyncqueue-worker. Default: the operator's own image, so that an
    /// upgrade of the operator upgrades all workers. Example: registry.example.com/asyncqueue:0.1.0
    #[schemars(schema_with = "schemas::image")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,

    /// When the image is pulled. Default: IfNotPresent.
    #[serde(default)]
    pub image_pull_policy: PullPolicy,

    /// Secrets in this namespace with which the image is pulled, as in a pod; 16 at most. Default:
    /// those of the operator's setting worker_image_pull_secrets, in this namespace too.
    ///
    /// Example: [{name: registry}]
    #[schemars(schema_with = "schemas::image_pull_secrets")]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<LocalObjectReference>,

    /// Compute resources of one worker.
    ///
    /// A worker holds each call that it runs and the function's answer in memory, up to 17 MiB a
    /// call, and no more together than its memory budget: three quarters of the memory limit set
    /// here, or 384Mi without one. Beyond, it takes no more calls until there is room. Default: no
    /// limit.
    #[serde(default)]
    pub resources: Resources,

    /// More environment variables, as in a container; 64 at most. Default: none.
    ///
    /// They are the worker's further settings, see asyncqueue-worker --help: max_response_bytes,
    /// tls_insecure, RUST_LOG and the like. Those that the operator sets from the fields of the
    /// spec can't be set here. See kubectl explain pod.spec.containers.env. Example: [{name:
    /// max_response_bytes, value: 64Mi}]
    #[schemars(schema_with = "schemas::environment")]
    #[x_kube(validation = rule::reserved_variables())]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,

    /// Labels that a node must have to run workers. Default: none.
    ///
    /// Example: {kubernetes.io/arch: amd64}
    #[schemars(schema_with = "schemas::labels")]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,

    /// Taints of nodes that workers bear, as in a pod; 32 at most. Default: none.
    ///
    /// See kubectl explain pod.spec.tolerations. Example: [{key: dedicated, value: queues, effect:
    /// NoSchedule}]
    #[schemars(schema_with = "schemas::tolerations")]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,

    /// Which nodes and neighbours workers want or shun, as in a pod. Default: none.
    ///
    /// See kubectl explain pod.spec.affinity.
    #[schemars(schema_with = "schemas::affinity")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,

    /// How workers are spread over nodes and zones, as in a pod; 8 at most. Default: over nodes as
    /// evenly as can be, without holding back a worker for it. [] spreads nothing.
    ///
    /// One without a labelSelector counts this queue's workers. See kubectl explain
    /// pod.spec.topologySpreadConstraints. Example: [{topologyKey: topology.kubernetes.io/zone,
    /// maxSkew: 1, whenUnsatisfiable: DoNotSchedule}]
    #[schemars(schema_with = "schemas::topology_spread_constraints")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology_spread_constraints: Option<Vec<TopologySpreadConstraint>>,

    /// More labels on the pods, 32 at most. Default: none.
    ///
    /// Those by which the operator knows its workers can't be set. Example: {team: billing}
    #[schemars(schema_with = "schemas::labels")]
    #[x_kube(validation = rule::reserved_labels())]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pod_labels: BTreeMap<String, String>,

    /// More annotations on the pods, 32 at most. Default: none.
    ///
    /// They come before the operator's own, prometheus.io/scrape, port and path. Example:
    /// {prometheus.io/scrape: "false"}
    #[schemars(schema_with = "schemas::annotations")]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pod_annotations: BTreeMap<String, String>,

    /// Name of the PriorityClass of the pods. Default: the cluster's. Example: high
    #[schemars(schema_with = "schemas::object_name")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority_class_name: Option<String>,

    /// Name of the RuntimeClass of the pods. Default: the cluster's. Example: gvisor
    #[schemars(schema_with = "schemas::object_name")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_class_name: Option<String>,

    /// Name of the ServiceAccount of the pods. Default: one of their own, NAME-worker, which has no
    /// rights.
    ///
    /// Its token is not mounted: workers never talk to the API server. Example: queues
    #[schemars(schema_with = "schemas::object_name")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account_name: Option<String>,
}

/// Compute resources, as in a container.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resources {
    /// What is set aside for it, by resource. Default: cpu 10m, memory 32Mi. Example: {cpu: 100m,
    /// memory: 128Mi}
    #[schemars(schema_with = "schemas::quantities")]
    #[serde(default = "default::requests")]
    pub requests: BTreeMap<String, IntOrString>,

    /// What it may use at most, by resource. Default: none. Example: {memory: 512Mi}
    #[schemars(schema_with = "schemas::quantities")]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, IntOrString>,
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum PullPolicy {
    /// Each time a pod starts.
    Always,
    /// If the node doesn't have it.
    #[default]
    IfNotPresent,
    /// Never: the node has it.
    Never,
}

impl Default for Resources {
    fn default() -> Self {
        Self { requests: default::requests(), limits: BTreeMap::new() }
    }
}
