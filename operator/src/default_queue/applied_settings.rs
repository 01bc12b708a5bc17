//! Reads what the settings say about the default queue, and computes what that changes. Pure.
//!
//! The settings are applied when they change, and not at every start: until then, changes of the
//! queue itself stay. An annotation records what was last applied.

use serde_json::{Map, Value, json};

use crate::{
    Settings, crd::AsyncQueueSpec, labels::DEFAULT_QUEUE_SETTINGS_ANNOTATION,
    partial_spec::PartialSpec,
};

/// Fields of the default queue that a setting gives a value.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct AppliedSettings(PartialSpec);

/// Returns the merge patch for a queue on which `recorded` was last applied; `None` if that is
/// already the desired state. A field that is no longer set gets its default back.
pub(super) fn patch(recorded: Option<&str>, desired: &AppliedSettings) -> Option<Value> {
    let previous = recorded.map(AppliedSettings::from_record).unwrap_or_default();
    if previous == *desired {
        return None;
    }
    let record = desired.annotation().map(|(_, record)| record);
    let annotations = json!({ DEFAULT_QUEUE_SETTINGS_ANNOTATION: record });
    let spec = desired.0.patch_from(&previous.0);
    Some(json!({ "metadata": { "annotations": annotations }, "spec": spec }))
}

// === impl AppliedSettings ===

impl AppliedSettings {
    /// Returns the fields of the settings. A setting of one field wins over `default_queue_spec`.
    pub(super) fn from_settings(settings: &Settings) -> Self {
        let mut spec = settings.default_queue_spec.0.clone().unwrap_or_default();
        let timeout = settings.default_queue_timeout.as_ref().map(ToString::to_string);
        let ack_wait = settings.default_queue_ack_wait.as_ref().map(ToString::to_string);
        let single = [
            settings.default_queue_max_inflight.0.map(|number| ("maxInflight", json!(number))),
            timeout.map(|timeout| ("timeout", json!(timeout))),
            ack_wait.map(|ack_wait| ("consumer", json!({ "ackWait": ack_wait }))),
        ];
        for (name, value) in single.into_iter().flatten() {
            spec.merge(&PartialSpec::from_fields(Map::from_iter([(name.to_owned(), value)])));
        }
        Self(spec)
    }

    /// Returns the spec of a new queue.
    pub(super) fn new_spec(&self) -> Result<AsyncQueueSpec, serde_json::Error> {
        self.0.complete()
    }

    /// Returns the annotation that records them; `None` if no field is set.
    pub(super) fn annotation(&self) -> Option<(String, String)> {
        (!self.0.is_empty())
            .then(|| (DEFAULT_QUEUE_SETTINGS_ANNOTATION.to_owned(), self.0.to_string()))
    }

    /// Reads the annotation. Version 0.1 recorded `consumer.ackWait` as `ackWait`.
    fn from_record(record: &str) -> Self {
        let mut fields: Map<String, Value> = serde_json::from_str(record).unwrap_or_default();
        if let Some(ack_wait) = fields.remove("ackWait") {
            fields.insert("consumer".to_owned(), json!({ "ackWait": ack_wait }));
        }
        Self(PartialSpec::from_fields(fields))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::settings::Cli;

    fn settings(arguments: &[&str]) -> AppliedSettings {
        let arguments = ["asyncqueue-operator"].iter().chain(arguments);
        AppliedSettings::from_settings(&Cli::parse_from(arguments).settings)
    }

    const FIVE: &str = "--default-queue-max-inflight=5";
    const ACK_WAIT: &str = "--default-queue-ack-wait=1m";

    #[test]
    fn a_new_queue_has_the_settings_and_defaults() {
        let spec = settings(&[FIVE, "--default-queue-ack-wait=90s"]).new_spec().unwrap();
        assert_eq!((spec.max_inflight, spec.timeout), (5, AsyncQueueSpec::default().timeout));
        assert_eq!(spec.consumer.ack_wait.to_string(), "1m30s");
        assert_eq!(settings(&[]).new_spec().unwrap(), AsyncQueueSpec::default());
        assert_eq!(settings(&[]).annotation(), None);
    }

    #[test]
    fn any_field_of_the_spec_can_be_set() {
        let whole = r#"--default-queue-spec={"maxInflight":7,"retry":{"maxAttempts":3}}"#;
        let spec = settings(&[whole]).new_spec().unwrap();
        assert_eq!((spec.max_inflight, spec.retry.max_attempts), (7, 3));
        assert_eq!(spec.retry.jitter, AsyncQueueSpec::default().retry.jitter);
        // A setting of one field wins.
        assert_eq!(settings(&[whole, FIVE]).new_spec().unwrap().max_inflight, 5);
    }

    #[test]
    fn settings_are_applied_when_they_change() {
        let five = settings(&[FIVE]);
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
        assert_eq!(patch(None, &settings(&[])), None);
    }

    #[test]
    fn a_removed_setting_restores_the_default() {
        // As version 0.1 recorded it.
        let record = r#"{"maxInflight":5,"timeout":"15m","ackWait":"1m"}"#;
        let patch = patch(Some(record), &settings(&[ACK_WAIT])).unwrap();
        assert_eq!(
            patch["spec"],
            json!({ "maxInflight": null, "timeout": null, "consumer": { "ackWait": "1m" } })
        );
        let applied = r#"{"consumer":{"ackWait":"1m"}}"#;
        assert_eq!(patch["metadata"]["annotations"][DEFAULT_QUEUE_SETTINGS_ANNOTATION], applied);
        assert_eq!(super::patch(Some(applied), &settings(&[ACK_WAIT])), None);
        let patch = super::patch(Some(record), &settings(&[])).unwrap();
        assert_eq!(patch["spec"]["consumer"], json!({ "ackWait": null }));
        assert!(patch["metadata"]["annotations"][DEFAULT_QUEUE_SETTINGS_ANNOTATION].is_null());
    }
}
