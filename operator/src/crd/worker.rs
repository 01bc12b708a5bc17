//! `spec.worker`: the workers' pods.

use std::collections::BTreeMap;

use asyncqueue::GoDuration;
use k8s_openapi::{
    api::core::v1::{Affinity, EnvVar, LocalObjectReference, Toleration, TopologySpreadConstraint},
    apimachinery::pkg::util::intstr::IntOrString,
};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{defaults as default, rules as rule, schemas};

/// Worker pods.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerSpec {
    /// Image with the program asyncqueue-worker. Default: the operator's image, so that an upgrade
    /// of the operator upgrades all workers. Example: registry.example.com/asyncqueue:0.1.0
    ///
    /// It may be of another version than the operator. Its workers therefore get maxInflight,
    /// timeout and retry as environment variables, and a change of these fields replaces them.
    #[schemars(schema_with = "schemas::image")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,

    /// Pull policy of the image. Default: IfNotPresent.
    #[serde(default)]
    pub image_pull_policy: PullPolicy,

    /// Pull secrets in this namespace for the image, at most 16. Default: those of the operator's
    /// setting worker_image_pull_secrets, in this namespace too.
    ///
    /// Example: [{name: registry}]
    #[schemars(schema_with = "schemas::image_pull_secrets")]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<LocalObjectReference>,

    /// Time that a worker which is shut down has to finish its running calls, before they are
    /// handed back. Default: the larger of timeout plus 15s and 5m.
    ///
    /// A duration from 15s to 25h, and at least timeout plus 15s. It is the termination grace
    /// period of the pods. A worker without running calls ends at once. Set it if timeout will be
    /// raised without a restart of the workers: they are replaced only if timeout no longer fits.
    /// Without this field, a lower timeout keeps the longer time of existing workers. Example: 20m
    #[schemars(schema_with = "schemas::duration")]
    #[x_kube(validation = rule::termination_grace_period())]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub termination_grace_period: Option<GoDuration>,

    /// Compute resources of one worker.
    ///
    /// A worker keeps each running call and the response of its function in memory, up to 17 MiB
    /// for each call, and all together at most its memory budget: three quarters of the memory
    /// limit set here, or 384Mi without a limit. Beyond it, the worker takes no more calls until
    /// memory is free. Default: no limit.
    #[serde(default)]
    pub resources: Resources,

    /// Additional environment variables, as in a container; at most 64. Default: none.
    ///
    /// They are further settings of the worker, see asyncqueue-worker --help: max_response_bytes,
    /// tls_insecure, RUST_LOG and the like. Variables that the operator sets from fields of the
    /// spec can't be set here. See kubectl explain pod.spec.containers.env. Example: [{name:
    /// max_response_bytes, value: 64Mi}]
    #[schemars(schema_with = "schemas::environment")]
    #[x_kube(validation = rule::reserved_variables())]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,

    /// Node selector of the worker pods. Default: none.
    ///
    /// Example: {kubernetes.io/arch: amd64}
    #[schemars(schema_with = "schemas::labels")]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,

    /// Tolerations of the worker pods, at most 32. Default: none.
    ///
    /// See kubectl explain pod.spec.tolerations. Example: [{key: dedicated, value: queues, effect:
    /// NoSchedule}]
    #[schemars(schema_with = "schemas::tolerations")]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,

    /// Affinity of the worker pods. Default: none.
    ///
    /// See kubectl explain pod.spec.affinity.
    #[schemars(schema_with = "schemas::affinity")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,

    /// Topology spread constraints of the worker pods, at most 8. Default: workers are spread over
    /// nodes as evenly as possible, without delaying one. [] disables this.
    ///
    /// A constraint without a labelSelector selects the workers of this queue. See kubectl explain
    /// pod.spec.topologySpreadConstraints. Example: [{topologyKey: topology.kubernetes.io/zone,
    /// maxSkew: 1, whenUnsatisfiable: DoNotSchedule}]
    #[schemars(schema_with = "schemas::topology_spread_constraints")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology_spread_constraints: Option<Vec<TopologySpreadConstraint>>,

    /// Additional labels of the worker pods, at most 32. Default: none.
    ///
    /// Labels that the operator sets can't be set. Example: {team: billing}
    #[schemars(schema_with = "schemas::labels")]
    #[x_kube(validation = rule::reserved_labels())]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pod_labels: BTreeMap<String, String>,

    /// Additional annotations of the worker pods, at most 32. Default: none.
    ///
    /// They take precedence over those of the operator: prometheus.io/scrape, port and path.
    /// Example: {prometheus.io/scrape: "false"}
    #[schemars(schema_with = "schemas::annotations")]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pod_annotations: BTreeMap<String, String>,

    /// PriorityClass of the worker pods. Default: that of the cluster. Example: high
    #[schemars(schema_with = "schemas::object_name")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority_class_name: Option<String>,

    /// RuntimeClass of the worker pods. Default: that of the cluster. Example: gvisor
    #[schemars(schema_with = "schemas::object_name")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_class_name: Option<String>,

    /// ServiceAccount of the worker pods. Default: NAME-worker, which is created for the queue and
    /// has no permissions.
    ///
    /// Its token is not mounted: workers never talk to the API server. Example: queues
    #[schemars(schema_with = "schemas::object_name")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account_name: Option<String>,
}

/// Compute resources, as in a container.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resources {
    /// Resource requests. Default: cpu 10m, memory 32Mi. Example: {cpu: 100m, memory: 128Mi}
    #[schemars(schema_with = "schemas::quantities")]
    #[serde(default = "default::requests")]
    pub requests: BTreeMap<String, IntOrString>,

    /// Resource limits. Default: none. Example: {memory: 512Mi}
    #[schemars(schema_with = "schemas::quantities")]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, IntOrString>,
}

/// Pull policy of an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum PullPolicy {
    /// When a pod starts.
    Always,
    /// If the node does not have it.
    #[default]
    IfNotPresent,
    /// Never: the node must have it.
    Never,
}

impl Default for Resources {
    fn default() -> Self {
        Self { requests: default::requests(), limits: BTreeMap::new() }
    }
}
