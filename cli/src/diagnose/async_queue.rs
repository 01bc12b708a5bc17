//! An `AsyncQueue` as kubectl prints it, as far as it says what is wrong.

use serde::Deserialize;

/// The reason of a condition if what a queue needs belongs to another one.
pub(super) const RESOURCE_CONFLICT: &str = "ResourceConflict";

/// An `AsyncQueue`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct AsyncQueue {
    pub(super) metadata: Metadata,
    #[serde(default)]
    pub(super) spec: Spec,
    #[serde(default)]
    pub(super) status: Status,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Metadata {
    pub(super) name: String,
    pub(super) namespace: String,
    #[serde(default)]
    pub(super) uid: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Spec {
    pub(super) replicas: Option<u32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Status {
    #[serde(default)]
    pub(super) conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Condition {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) status: String,
    pub(super) reason: String,
    pub(super) message: String,
}

/// What `kubectl get` prints: one object, or a list.
#[derive(Deserialize)]
#[serde(untagged)]
enum Printed {
    List { items: Vec<AsyncQueue> },
    One(AsyncQueue),
}

// === impl AsyncQueue ===

impl AsyncQueue {
    /// Reads what `kubectl get -o json` prints. Nothing means that there is no such object.
    pub(crate) fn read(printed: &[u8]) -> Result<Vec<Self>, String> {
        if printed.trim_ascii().is_empty() {
            return Ok(Vec::new());
        }
        match serde_json::from_slice(printed) {
            Ok(Printed::List { items }) => Ok(items),
            Ok(Printed::One(queue)) => Ok(vec![queue]),
            Err(error) => Err(format!("kubectl printed no AsyncQueue: {error}")),
        }
    }

    /// Returns its namespace and its name, separated by `/`.
    pub(crate) fn full_name(&self) -> String {
        format!("{}/{}", self.metadata.namespace, self.metadata.name)
    }

    /// Returns whether its conditions are about a stream whose owner has this UID. If it is not the
    /// owner, they are about a stream of the same name on another NATS: unless the operator has
    /// found the stream to be taken, or has not handled the object yet.
    pub(crate) fn is_about_stream_of(&self, owner_uid: &str) -> bool {
        let conditions = &self.status.conditions;
        self.metadata.uid == owner_uid
            || conditions.is_empty()
            || conditions.iter().any(|condition| condition.reason == RESOURCE_CONFLICT)
    }

    /// Returns the arguments of kubectl that name it.
    pub(super) fn kubectl_name(&self) -> String {
        format!("asyncqueue {} -n {}", self.metadata.name, self.metadata.namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::samples::{UID, async_queue},
        *,
    };

    #[test]
    fn objects_and_lists_are_read() {
        let one = r#"{"metadata": {"name": "jobs", "namespace": "ns", "uid": "1-2"},
            "spec": {"replicas": 0},
            "status": {"conditions": [{"type": "Ready", "status": "False", "reason": "R",
            "message": "M", "lastTransitionTime": "2026-11-24T10:00:00Z"}]}}"#;
        let list = format!(
            r#"{{"items": [{one}, {{"metadata":
            {{"name": "jobs", "namespace": "other"}}}}]}}"#
        );
        let read = |text: &str| AsyncQueue::read(text.as_bytes());
        let one = read(one).unwrap().remove(0);
        assert_eq!((one.full_name().as_str(), one.spec.replicas), ("ns/jobs", Some(0)));
        assert_eq!(one.status.conditions[0].message, "M");
        assert_eq!(one.kubectl_name(), "asyncqueue jobs -n ns");
        let list = read(&list).unwrap();
        assert_eq!((list.len(), list[1].full_name().as_str()), (2, "other/jobs"));
        assert_eq!((one.metadata.uid.as_str(), list[1].metadata.uid.as_str()), ("1-2", ""));
        assert!(read("\n").unwrap().is_empty());
        assert!(read("{").unwrap_err().starts_with("kubectl printed no AsyncQueue"));
    }

    #[test]
    fn conditions_of_an_async_queue_that_is_not_the_owner_are_about_another_stream() {
        let queue = |reason| async_queue(&[("Ready", "False", reason, "M.")]);
        assert!(queue("WorkerExited").is_about_stream_of(UID));
        assert!(!queue("WorkerExited").is_about_stream_of("2"));
        assert!(queue(RESOURCE_CONFLICT).is_about_stream_of("2"));
        assert!(async_queue(&[]).is_about_stream_of("2"));
    }
}
