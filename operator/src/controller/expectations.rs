//! Remembers the last version of each queue that the operator has written.
//!
//! The watch shows a write a little later, on a busy API server up to a second. A reconciliation of
//! the state before the write would do the same work again, and report it again.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use kube::ResourceExt;

use crate::{cache::object::resource_version, crd::AsyncQueue};

/// By uid, the `metadata.resourceVersion` of a queue after the last write, until the watch has
/// shown it.
#[derive(Debug, Default)]
pub(crate) struct PendingWrites(Mutex<HashMap<String, u64>>);

// === impl PendingWrites ===

impl PendingWrites {
    /// Records the queue that the API server returned for a write.
    pub(crate) fn record(&self, queue: &AsyncQueue) {
        if let (Some(uid), Some(version)) = (queue.uid(), resource_version(&queue.metadata)) {
            self.versions().insert(uid, version);
        }
    }

    /// Returns whether this queue is older than the one that was written.
    pub(crate) fn is_stale(&self, queue: &AsyncQueue) -> bool {
        let (Some(uid), Some(observed)) = (queue.uid(), resource_version(&queue.metadata)) else {
            return false;
        };
        let mut versions = self.versions();
        let is_pending = versions.get(&uid).is_some_and(|written| *written > observed);
        if !is_pending {
            versions.remove(&uid);
        }
        is_pending
    }

    fn versions(&self) -> MutexGuard<'_, HashMap<String, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    #[test]
    fn a_queue_is_stale_until_the_write_is_seen() {
        let of = |version: &str| {
            let mut queue = fixtures::queue("q");
            queue.metadata.resource_version = Some(version.to_owned());
            queue
        };
        let written = PendingWrites::default();
        assert!(!written.is_stale(&of("9")));
        written.record(&of("10"));
        assert!(written.is_stale(&of("9")));
        assert!(!written.is_stale(&of("10")));
        // An entry is removed once its version was seen.
        assert!(written.versions().is_empty());
        written.record(&of("11"));
        assert!(!written.is_stale(&of("no number")));
    }
}
