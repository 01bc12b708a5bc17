//! Selects the changes of a queue that need a reconciliation: those of its spec, its annotations
//! and its finalizers. Changes of the status, which the operator writes itself, need none.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
};

use futures::{Stream, StreamExt};
use kube::runtime::watcher::{self, Event};
use uuid::Uuid;

use super::context::Changes;
use crate::{cache::object::uid, crd::AsyncQueue};

/// Hash of each queue at its last reconciliation, in eight bytes, by uid. (kube's own filter of
/// this kind takes a quarter of a kilobyte for each queue.)
#[derive(Debug, Default)]
struct Known(HashMap<Uuid, u64>);

/// Returns the queues with such a change, in the form that a controller expects.
pub(super) fn news(
    changes: impl Changes<AsyncQueue>,
) -> impl Stream<Item = watcher::Result<AsyncQueue>> + Send {
    let mut known = Known::default();
    changes.filter_map(move |event| std::future::ready(known.news(event).map(Ok)))
}

// === impl Known ===

impl Known {
    /// Returns the queue of an event if it needs a reconciliation.
    fn news(&mut self, event: Event<AsyncQueue>) -> Option<AsyncQueue> {
        match event {
            Event::Apply(queue) | Event::InitApply(queue) => {
                let now = fingerprint(&queue);
                (self.0.insert(uid(&queue.metadata), now) != Some(now)).then_some(queue)
            }
            Event::Delete(queue) => {
                self.0.remove(&uid(&queue.metadata));
                None
            }
            Event::Init | Event::InitDone => None,
        }
    }
}

/// Returns the hash of a queue. Changes of the spec and the deletion are in the generation, which
/// the API server counts.
fn fingerprint(queue: &AsyncQueue) -> u64 {
    let meta = &queue.metadata;
    let mut hasher = DefaultHasher::new();
    (meta.generation, &meta.annotations, &meta.finalizers).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{crd::AsyncQueueStatus, fixtures};

    #[test]
    fn a_queue_is_looked_at_when_it_changes_and_not_for_its_status() {
        let (queue, mut known) = (fixtures::queue("q"), Known::default());
        assert!(known.news(Event::InitApply(queue.clone())).is_some());
        assert!(known.news(Event::Apply(queue.clone())).is_none());
        let status = Some(AsyncQueueStatus::default());
        assert!(known.news(Event::Apply(AsyncQueue { status, ..queue.clone() })).is_none());
        let changes: [fn(&mut AsyncQueue); 3] = [
            |queue| queue.metadata.generation = Some(9),
            |queue| queue.metadata.finalizers = Some(vec!["f".to_owned()]),
            |queue| queue.metadata.annotations = Some([("a".to_owned(), "b".to_owned())].into()),
        ];
        for change in changes {
            let mut other = queue.clone();
            change(&mut other);
            assert!(known.news(Event::Apply(other)).is_some());
            assert!(known.news(Event::Apply(queue.clone())).is_some());
        }
        // The entry of a deleted queue is removed.
        assert!(known.news(Event::Delete(queue)).is_none() && known.0.is_empty());
    }
}
