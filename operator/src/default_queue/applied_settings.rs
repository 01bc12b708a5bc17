//! Reads what the settings say about the default queue, and computes what that changes. Pure.
//!
//! The settings are applied when they change, and not at every start: until then, changes of the
//! queue itself stay. An annotation records what was last applied.

use std::str::FromStr;

use serde_json::{Map, Value, json};

use crate::{Settings, crd::AsyncQueueSpec, labels::DEFAULT_QUEUE_SETTINGS_ANNOTATION};

/// Some fields of a spec, in JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartialSpec(Map<String, Value>);

/// Error for a text that is not a part of a spec.
#[derive(Debug, thiserror::Error)]
pub enum PartialSpecError {
    /// It is not a JSON object.
    #[error("write it as a JSON object, as in {{\"maxInflight\": 5}}: {0}")]
    NotAnObject(serde_json::Error),
    /// A field has a wrong type.
    #[error("it is not a part of an AsyncQueue's spec, which kubectl explain describes: {0}")]
    NotASpec(serde_json::Error),
}

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
    let mut spec = removal(&previous.0.0);
    merge(&mut spec, &desired.0.0);
    let record = desired.annotation().map(|(_, record)| record);
    let annotations = json!({ DEFAULT_QUEUE_SETTINGS_ANNOTATION: record });
    Some(json!({ "metadata": { "annotations": annotations }, "spec": spec }))
}

/// Returns the merge patch that removes these fields and no others.
fn removal(fields: &Map<String, Value>) -> Map<String, Value> {
    let removed = fields.iter().map(|(name, value)| {
        let value = value.as_object().map_or(Value::Null, |fields| removal(fields).into());
        (name.clone(), value)
    });
    removed.collect()
}

/// Sets the fields of `update` in `fields`, those of nested objects one by one.
fn merge(fields: &mut Map<String, Value>, update: &Map<String, Value>) {
    for (name, value) in update {
        match (fields.get_mut(name), value) {
            (Some(Value::Object(fields)), Value::Object(update)) => merge(fields, update),
            _ => {
                fields.insert(name.clone(), value.clone());
            }
        }
    }
}

// === impl PartialSpec ===

impl PartialSpec {
    /// Returns the spec with these fields, and the defaults for all others.
    fn complete(&self) -> Result<AsyncQueueSpec, serde_json::Error> {
        serde_json::from_value(Value::Object(self.0.clone()))
    }
}

impl FromStr for PartialSpec {
    type Err = PartialSpecError;

    fn from_str(text: &str) -> Result<Self, PartialSpecError> {
        let fields = serde_json::from_str(text).map_err(PartialSpecError::NotAnObject)?;
        let partial = Self(fields);
        partial.complete().map_err(PartialSpecError::NotASpec)?;
        Ok(partial)
    }
}

// === impl AppliedSettings ===

impl AppliedSettings {
    /// Returns the fields of the settings. A setting of one field wins over `default_queue_spec`.
    pub(super) fn from_settings(settings: &Settings) -> Self {
        let mut fields = settings.default_queue_spec.0.clone().unwrap_or_default().0;
        let timeout = settings.default_queue_timeout.as_ref().map(ToString::to_string);
        let ack_wait = settings.default_queue_ack_wait.as_ref().map(ToString::to_string);
        let single = [
            settings.default_queue_max_inflight.0.map(|number| json!({ "maxInflight": number })),
            timeout.map(|timeout| json!({ "timeout": timeout })),
            ack_wait.map(|ack_wait| json!({ "consumer": { "ackWait": ack_wait } })),
        ];
        for field in single.into_iter().flatten() {
            if let Value::Object(field) = field {
                merge(&mut fields, &field);
            }
        }
        Self(PartialSpec(fields))
    }

    /// Returns the spec of a new queue.
    pub(super) fn new_spec(&self) -> Result<AsyncQueueSpec, serde_json::Error> {
        self.0.complete()
    }

    /// Returns the annotation that records them; `None` if no field is set.
    pub(super) fn annotation(&self) -> Option<(String, String)> {
        let fields = &self.0.0;
        (!fields.is_empty()).then(|| {
            let record = Value::Object(fields.clone()).to_string();
            (DEFAULT_QUEUE_SETTINGS_ANNOTATION.to_owned(), record)
        })
    }

    /// Reads the annotation. Version 0.1 recorded `consumer.ackWait` as `ackWait`.
    fn from_record(record: &str) -> Self {
        let mut fields: Map<String, Value> = serde_json::from_str(record).unwrap_or_default();
        if let Some(ack_wait) = fields.remove("ackWait") {
            fields.insert("consumer".to_owned(), json!({ "ackWait": ack_wait }));
        }
        Self(PartialSpec(fields))
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
    fn what_is_not_a_spec_is_refused() {
        for (text, why) in [
            ("5", "JSON object"),
            ("{maxInflight: 5}", "JSON object"),
            (r#"{"maxInflight":"five"}"#, "not a part of an AsyncQueue's spec"),
        ] {
            let error = text.parse::<PartialSpec>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
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
