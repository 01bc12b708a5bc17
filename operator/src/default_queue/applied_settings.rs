//! Reads what the settings say about the default queue, and computes what that changes. Pure.
//!
//! The settings are applied when they change, and not at every start: until then, changes of the
//! queue itself stay. An annotation records what was last applied.

use asyncqueue::GoDuration;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{Settings, crd::AsyncQueueSpec, labels::DEFAULT_QUEUE_SETTINGS_ANNOTATION};

/// Fields of the default queue; those that have no setting are `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AppliedSettings {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_inflight: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timeout: Option<GoDuration>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ack_wait: Option<GoDuration>,
}

// === impl AppliedSettings ===

impl AppliedSettings {
    /// Returns the fields of the settings.
    pub(super) fn from_settings(settings: &Settings) -> Self {
        Self {
            max_inflight: settings.default_queue_max_inflight.0,
            timeout: settings.default_queue_timeout.0,
            ack_wait: settings.default_queue_ack_wait.0,
        }
    }

    /// Returns the spec with these fields.
    pub(super) fn apply_to(&self, mut spec: AsyncQueueSpec) -> AsyncQueueSpec {
        spec.max_inflight = self.max_inflight.unwrap_or(spec.max_inflight);
        spec.timeout = self.timeout.unwrap_or(spec.timeout);
        if let Some(ack_wait) = self.ack_wait {
            spec.consumer.ack_wait = ack_wait;
        }
        spec
    }

    /// Returns the annotation that records them; `None` if no field is set.
    pub(super) fn annotation(&self) -> Option<(String, String)> {
        (*self != Self::default())
            .then(|| (DEFAULT_QUEUE_SETTINGS_ANNOTATION.to_owned(), self.record()))
    }

    fn record(&self) -> String {
        // Three fields that are text or numbers: that does not fail.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// Returns the merge patch for a queue on which `recorded` was last applied; `None` if that is
/// already the desired state. A field that is no longer set gets its default back.
pub(super) fn patch(recorded: Option<&str>, desired: &AppliedSettings) -> Option<Value> {
    let previous: AppliedSettings =
        recorded.and_then(|recorded| serde_json::from_str(recorded).ok()).unwrap_or_default();
    if previous == *desired {
        return None;
    }
    let mut spec = Map::new();
    let mut put = |name: &str, value: Option<Value>, was_set: bool| {
        if value.is_some() || was_set {
            spec.insert(name.to_owned(), value.unwrap_or_default());
        }
    };
    put("maxInflight", desired.max_inflight.map(Value::from), previous.max_inflight.is_some());
    put("timeout", desired.timeout.map(|time| time.to_string().into()), previous.timeout.is_some());
    let ack_wait = desired.ack_wait.map(|time| json!(time.to_string()));
    if ack_wait.is_some() || previous.ack_wait.is_some() {
        spec.insert("consumer".to_owned(), json!({ "ackWait": ack_wait }));
    }
    let record = desired.annotation().map(|(_, record)| record);
    let annotations = json!({ DEFAULT_QUEUE_SETTINGS_ANNOTATION: record });
    Some(json!({ "metadata": { "annotations": annotations }, "spec": spec }))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn settings(max_inflight: Option<i32>, ack_wait: Option<u64>) -> AppliedSettings {
        let ack_wait = ack_wait.map(|seconds| GoDuration(Duration::from_secs(seconds)));
        AppliedSettings { max_inflight, timeout: None, ack_wait }
    }

    #[test]
    fn a_new_queue_has_the_settings_and_defaults() {
        let spec = settings(Some(5), Some(90)).apply_to(AsyncQueueSpec::default());
        assert_eq!((spec.max_inflight, spec.timeout), (5, AsyncQueueSpec::default().timeout));
        assert_eq!(spec.consumer.ack_wait.to_string(), "1m30s");
        assert_eq!(
            settings(None, None).apply_to(AsyncQueueSpec::default()),
            AsyncQueueSpec::default()
        );
        assert_eq!(settings(None, None).annotation(), None);
    }

    #[test]
    fn settings_are_applied_when_they_change() {
        let five = settings(Some(5), None);
        let record = r#"{"maxInflight":5}"#;
        assert_eq!(
            patch(None, &five),
            Some(json!({
                "metadata": { "annotations": { DEFAULT_QUEUE_SETTINGS_ANNOTATION: record } },
                "spec": { "maxInflight": 5 },
            }))
        );
        // A change of the queue itself stays.
        assert_eq!(patch(Some(record), &five), None);
        assert_eq!(patch(None, &settings(None, None)), None);
    }

    #[test]
    fn a_removed_setting_restores_the_default() {
        let record = r#"{"maxInflight":5,"timeout":"15m","ackWait":"1m"}"#;
        let patch = patch(Some(record), &settings(None, Some(60))).unwrap();
        assert_eq!(
            patch["spec"],
            json!({ "maxInflight": null, "timeout": null, "consumer": { "ackWait": "1m" } })
        );
        assert_eq!(
            patch["metadata"]["annotations"][DEFAULT_QUEUE_SETTINGS_ANNOTATION],
            r#"{"ackWait":"1m"}"#
        );
        let patch = super::patch(Some(record), &settings(None, None)).unwrap();
        assert_eq!(patch["spec"]["consumer"], json!({ "ackWait": null }));
        assert!(patch["metadata"]["annotations"][DEFAULT_QUEUE_SETTINGS_ANNOTATION].is_null());
    }
}
