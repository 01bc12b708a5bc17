//! Remembers the last version of each queue that the operator has written.
//!
//! The watch shows a write a little later, on a busy API server up to a second. A reconciliation of
//! the state before the write would do the same work again, and report it again.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use kube::ResourceExt;

use crate::crd::AsyncQueue;

/// By uid, the `metadata.resourceVersion` of a queue after the last write, until the watch has
/// shown it.
#[derive(Debug, Default)]
pub(crate) struct Written(Mutex<HashMap<String, u64>>);

// === impl Written ===

impl Written {
    /// Records the queue that the API server returned for a write.
    pub(crate) fn note(&self, queue: &AsyncQueue) {
        if let (Some(uid), Some(version)) = (queue.uid(), version(queue)) {
            self.versions().insert(uid, version);
        }
    }

    /// Returns whether this queue is older than the one that was written.
    pub(crate) fn is_ahead_of(&self, queue: &AsyncQueue) -> bool {
        let (Some(uid), Some(seen)) = (queue.uid(), version(queue)) else { return false };
        let mut versions = self.versions();
        let ahead = versions.get(&uid).is_some_and(|written| *written > seen);
        if !ahead {
            versions.remove(&uid);
        }
        ahead
    }

    fn versions(&self) -> MutexGuard<'_, HashMap<String, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the version of a queue. Versions of one kind of objects are numbers that grow:
/// <https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions>. `None` if a
/// version is not a number.
fn version(queue: &AsyncQueue) -> Option<u64> {
    queue.metadata.resource_version.as_deref()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    #[test]
    fn what_was_written_is_ahead_until_it_is_seen() {
        let of = |version: &str| {
            let mut queue = fixtures::queue("q");
            queue.metadata.resource_version = Some(version.to_owned());
            queue
        };
        let written = Written::default();
        assert!(!written.is_ahead_of(&of("9")));
        written.note(&of("10"));
        assert!(written.is_ahead_of(&of("9")));
        assert!(!written.is_ahead_of(&of("10")));
        // An entry is removed once its version was seen.
        assert!(written.versions().is_empty());
        written.note(&of("11"));
        assert!(!written.is_ahead_of(&of("no number")));
    }
}
