//! Which version of each queue we have written last.
//!
//! A write is seen by the watch a little later, on a busy API server a second. A look at what was before it would find the
//! same to do once more, and tell of it once more.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use kube::ResourceExt;

use crate::crd::AsyncQueue;

/// By uid, the `metadata.resourceVersion` of a queue as it was after our last write, until that is seen.
#[derive(Debug, Default)]
pub(crate) struct Written(Mutex<HashMap<String, u64>>);

// === impl Written ===

impl Written {
    /// Notes what the API server answered to a write.
    pub(crate) fn note(&self, queue: &AsyncQueue) {
        if let (Some(uid), Some(version)) = (queue.uid(), version(queue)) {
            self.versions().insert(uid, version);
        }
    }

    /// Whether this is an older queue than the one that we have written.
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

/// Versions of one kind of objects are numbers that grow:
/// <https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions>. Of one that is no number, nothing is
/// known.
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
        // Nothing is kept of what was seen.
        assert!(written.versions().is_empty());
        written.note(&of("11"));
        assert!(!written.is_ahead_of(&of("no number")));
    }
}
