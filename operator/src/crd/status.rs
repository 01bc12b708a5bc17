//! What is known of a queue.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{self, Time};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{
    condition::Condition,
    conditions::{ConditionStatus, condition_type, find, reason},
};

/// Observed state of the queue. Counts of calls are updated every few seconds, and absent while
/// NATS is unavailable.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AsyncQueueStatus {
    /// The metadata.generation for which this status was computed. If it is lower, the operator has
    /// not processed the last change yet. -1: it has not processed this queue at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Ready: calls are accepted, and at least one worker of the current revision runs, or
    /// spec.replicas is 0. During a rollout it keeps its status. It combines StreamReady (the
    /// stream stores calls), ConsumerReady (workers can receive them) and WorkersReady. The reason
    /// of one that is not True is a fixed value, such as ImagePullFailed, and its message names the
    /// cause and the remedy.
    ///
    /// Progressing is True while workers are replaced, started or stopped, and False with the cause
    /// if that is blocked. For tools that use kstatus, Reconciling is present while Progressing is
    /// True, and Stalled while it is blocked.
    ///
    /// Suspended is True while spec.suspend pauses the delivery of calls. UniqueSequences is False
    /// for streams that an earlier version or another program created: they work, and should be
    /// recreated once. CallsBlocked is True while workers can't store the records that end calls:
    /// results, dead letters or tombstones; its message names them and the remedy. FunctionsRefused
    /// is present while functions name this queue from namespaces that spec.functions does not
    /// admit. SettingsPending is present while maxInflight, timeout and retry can't be written to
    /// the directory: workers use the previous ones. Migrating is True while a change of
    /// spec.fairness waits for calls in flight, and False if attempts of calls were lost with it.
    /// LanesShared is present while functions of a queue with fairness: Function share a lane,
    /// since there are too many of them; its message has the numbers and the remedy.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    #[schemars(with = "Vec<v1::Condition>")]
    #[serde(default)]
    pub conditions: Vec<Condition>,

    /// Stream that this queue owns; absent until it owns one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,

    /// Durable consumer that the workers share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumer: Option<String>,

    /// Time at which the stream was created. A later time than before means that the stream was
    /// deleted externally, with its calls, and recreated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_created: Option<Time>,

    /// Number of existing workers.
    #[serde(default)]
    pub replicas: i32,

    /// Number of ready workers.
    #[serde(default)]
    pub ready_replicas: i32,

    /// Label selector of the worker pods, for autoscalers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,

    /// Stored calls that do not run now: they wait for a worker, or for their retry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<i64>,

    /// Calls that run now, as reported by the workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inflight: Option<i64>,

    /// Stored calls that were delivered more than once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redelivered: Option<i64>,

    /// Dead letters, stored in the stream NAME-dead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letters: Option<i64>,

    /// Lanes of the queue: consumers of functions, and those that functions share. Absent without
    /// fairness: Function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lanes: Option<i64>,

    /// Functions that have refused calls in the last 10 minutes, by name: at most 10. Only with
    /// perFunction.adaptive. Written at most once a minute, and only if a function comes or goes,
    /// or its limit changes by more than half.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limited_functions: Vec<LimitedFunctionStatus>,

    /// Functions whose calls go to this queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub functions: Option<i64>,
}

/// A function that refuses calls, and the limit that follows.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LimitedFunctionStatus {
    /// Function, as name.namespace.
    pub function: String,

    /// Number of invocations that the workers have learned to open at once: of all workers
    /// together.
    pub limit: i64,
}

// === impl AsyncQueueStatus ===

impl AsyncQueueStatus {
    /// Returns the status and the reason of the condition Ready, as fixed values for a metric: a
    /// reason that another version wrote is `Other`.
    pub(crate) fn readiness(&self) -> (&'static str, &'static str) {
        let Some(ready) = find(&self.conditions, condition_type::READY) else {
            return (ConditionStatus::Unknown.as_str(), "NotReconciled");
        };
        let statuses = ConditionStatus::ALL.map(ConditionStatus::as_str);
        let fixed = |text: &str, all: &[&'static str]| {
            all.iter().copied().find(|fixed| *fixed == text).unwrap_or("Other")
        };
        (fixed(&ready.status, &statuses), fixed(&ready.reason, &reason::ALL))
    }
}
