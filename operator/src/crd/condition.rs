//! Conditions, of which each queue has eight, and more while something is under way, stuck or
//! refused.

use std::{borrow::Cow, ops::Deref};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Deserializer, Serialize};

use super::{
    conditions,
    conditions::{condition_type, reason},
};

/// A condition as Kubernetes has them (`metav1.Condition`, which is its schema), in two thirds of
/// the memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What the condition is of.
    #[serde(rename = "type")]
    pub type_: Word,
    /// `True`, `False` or `Unknown`.
    pub status: Word,
    /// Why, in a fixed word.
    pub reason: Word,
    /// Why, for people.
    pub message: Box<str>,
    /// The `metadata.generation` that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// When the status became what it is.
    pub last_transition_time: Time,
}

/// A fixed word of a condition, of which there is one copy for all queues. One that another version
/// of this program has written and this one does not know reads as `Other`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Word(&'static str);

/// What is read in the place of words that are not known.
const OTHER: &str = "Other";

// === impl Word ===

impl From<&'static str> for Word {
    fn from(word: &'static str) -> Self {
        Self(word)
    }
}

impl Deref for Word {
    type Target = str;

    fn deref(&self) -> &str {
        self.0
    }
}

impl Word {
    /// The word as it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        let statuses = conditions::ConditionStatus::ALL.map(conditions::ConditionStatus::as_str);
        let mut words = statuses.into_iter().chain(condition_type::ALL).chain(reason::ALL);
        Ok(Self(words.find(|word| *word == text).unwrap_or(OTHER)))
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1;
    use serde_json::{from_value, json, to_value};

    use super::*;

    #[test]
    fn it_is_written_as_kubernetes_has_it_and_other_words_are_read() {
        let mut written = json!({
            "type": "StreamReady",
            "status": "Unknown",
            "reason": "NatsUnavailable",
            "message": "no answer",
            "observedGeneration": 3,
            "lastTransitionTime": "2026-01-02T03:04:05Z",
        });
        let read: Condition = from_value(written.clone()).unwrap();
        assert_eq!(
            (&*read.type_, &*read.status, &*read.reason),
            ("StreamReady", "Unknown", "NatsUnavailable")
        );
        assert_eq!(to_value(&read).unwrap(), written);
        assert_eq!(
            to_value(from_value::<v1::Condition>(written.clone()).unwrap()).unwrap(),
            written
        );

        written["reason"] = json!("OfAnotherVersion");
        assert_eq!(&*from_value::<Condition>(written).unwrap().reason, OTHER);
    }
}
