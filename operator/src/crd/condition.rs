//! The conditions of a queue's status.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Serialize};

/// A condition as Kubernetes defines it (`metav1.Condition`, which is its schema).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Type of the condition, such as `Ready`.
    #[serde(rename = "type")]
    pub type_: Cow<'static, str>,
    /// `True`, `False` or `Unknown`.
    pub status: Cow<'static, str>,
    /// Reason for the status, as a fixed value.
    pub reason: Cow<'static, str>,
    /// Reason for the status, as a sentence.
    pub message: Box<str>,
    /// The `metadata.generation` for which the condition was computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Time at which the status last changed.
    pub last_transition_time: Time,
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1;
    use serde_json::{from_value, json, to_value};

    use super::*;

    #[test]
    fn a_condition_is_written_as_kubernetes_writes_it() {
        let written = json!({
            "type": "StreamReady",
            "status": "Unknown",
            "reason": "OfAnotherVersion",
            "message": "no answer",
            "observedGeneration": 3,
            "lastTransitionTime": "2026-01-02T03:04:05Z",
        });
        let read: Condition = from_value(written.clone()).unwrap();
        assert_eq!(
            (&*read.type_, &*read.status, &*read.reason),
            ("StreamReady", "Unknown", "OfAnotherVersion")
        );
        assert_eq!(to_value(&read).unwrap(), written);
        assert_eq!(
            to_value(from_value::<v1::Condition>(written.clone()).unwrap()).unwrap(),
            written
        );
    }
}
