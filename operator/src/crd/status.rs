//! What is known of a queue.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{self, Time};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{
    condition::Condition,
    conditions::{ConditionStatus, condition_type, find},
};

/// What the operator has found and done. Numbers of calls are read every few seconds, and absent
/// while NATS is away.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AsyncQueueStatus {
    /// The metadata.generation that this status is about; less than it, the operator has not seen
    /// the last change yet. -1: it has not seen this queue at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Ready: calls are accepted, and at least one worker of the wanted revision runs, or
    /// spec.replicas is 0. While a rollout gets on it stays what it was. It is made of StreamReady
    /// (the stream stores calls), ConsumerReady (workers can take them) and WorkersReady. The
    /// reason of one that is not True is a fixed word, such as ImagePullFailed, and its message
    /// names the cause and what to do.
    ///
    /// Progressing is True while workers are replaced, started or ended, and False with the cause
    /// where that is stuck. For tools that follow kstatus, Reconciling is there while Progressing
    /// is True, and Stalled while it is stuck.
    ///
    /// Suspended, which is False as long as all is usual, is True while spec.suspend keeps calls
    /// back. UniqueSequences is False for streams that an earlier version or another program
    /// created: they work, and should be recreated once. CallsBlocked is True while workers can't
    /// store what ends calls: results, dead letters or marks; its message says which, and what to
    /// do. FunctionsRefused is True while functions name this queue from namespaces that
    /// spec.functions does not admit, and absent else.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    #[schemars(with = "Vec<v1::Condition>")]
    #[serde(default)]
    pub conditions: Vec<Condition>,

    /// The stream that this queue owns; absent until it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,

    /// The durable consumer that its workers share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumer: Option<String>,

    /// When the stream was created. Later than before means that it was deleted by somebody, and
    /// its calls with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_created: Option<Time>,

    /// Workers that exist.
    #[serde(default)]
    pub replicas: i32,

    /// Workers that are ready.
    #[serde(default)]
    pub ready_replicas: i32,

    /// The label selector of the workers' pods, for autoscalers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,

    /// Calls that are stored and do not run now: they wait for a worker, or for their retry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<i64>,

    /// Calls that run now, as the workers say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inflight: Option<i64>,

    /// Calls that are stored and were given to a worker more than once: they were retried, or their
    /// worker went away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redelivered: Option<i64>,

    /// Calls in the stream of dead letters, NAME-dead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letters: Option<i64>,

    /// Functions whose calls go to this queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub functions: Option<i64>,
}

// === impl AsyncQueueStatus ===

impl AsyncQueueStatus {
    /// Returns the status and the reason of the condition Ready, as fixed values.
    pub(crate) fn readiness(&self) -> (&'static str, &'static str) {
        find(&self.conditions, condition_type::READY)
            .map_or((ConditionStatus::Unknown.as_str(), "NotReconciled"), |ready| {
                (ready.status.as_str(), ready.reason.as_str())
            })
    }
}
