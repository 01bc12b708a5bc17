//! Some fields of the spec of an `AsyncQueue`, as a setting and an annotation have them. Pure.

use std::{fmt, str::FromStr};

use serde_json::{Map, Value};

use crate::crd::AsyncQueueSpec;

/// Some fields of a spec, in JSON.
#[derive(Clone, Debug, Default, PartialEq)]
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
    /// Creates it from fields that are not checked.
    pub(crate) fn from_fields(fields: Map<String, Value>) -> Self {
        Self(fields)
    }

    /// Returns whether it has no field.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the spec with these fields, and the defaults for all others.
    pub(crate) fn complete(&self) -> Result<AsyncQueueSpec, serde_json::Error> {
        serde_json::from_value(Value::Object(self.0.clone()))
    }

    /// Sets the fields of `update`, those of nested objects one by one.
    pub(crate) fn merge(&mut self, update: &Self) {
        merge(&mut self.0, &update.0);
    }

    /// Returns the merge patch to these fields from `previous`: a field that only `previous` has
    /// gets its default.
    pub(crate) fn patch_from(&self, previous: &Self) -> Value {
        let mut patch = removal(&previous.0);
        merge(&mut patch, &self.0);
        patch.into()
    }
}

impl fmt::Display for PartialSpec {
    /// As JSON.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Value::Object(self.0.clone()))
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
    fn a_patch_sets_fields_and_removes_those_of_before() {
        let spec = |text: &str| text.parse::<PartialSpec>().unwrap();
        let before = spec(r#"{"maxInflight":5,"retry":{"maxAttempts":3,"jitter":"None"}}"#);
        let after = spec(r#"{"retry":{"maxAttempts":4}}"#);
        assert_eq!(
            after.patch_from(&before),
            json!({ "maxInflight": null, "retry": { "maxAttempts": 4, "jitter": null } })
        );
        let mut merged = before;
        merged.merge(&after);
        let expected = spec(r#"{"maxInflight":5,"retry":{"maxAttempts":4,"jitter":"None"}}"#);
        assert_eq!(merged, expected);
        assert_eq!(merged.to_string().parse::<PartialSpec>().unwrap(), expected);
    }
}
