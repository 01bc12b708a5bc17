//! Selects the changes of a queue that need a reconciliation: those of its spec, its annotations
//! and its finalizers. Changes of the status, which the operator writes itself, need none.

use futures::{Stream, StreamExt};
use kube::runtime::{Predicate, PredicateConfig, WatchStreamExt, predicates, watcher};

use super::context::Changes;
use crate::crd::AsyncQueue;

/// Returns the queues that need a reconciliation, in the form that a controller expects. A deletion
/// counts as a change of the spec: both increment the generation.
///
/// A queue that has not changed for an hour is returned at its next change of any kind: by then its
/// entry has expired.
pub(super) fn needs_reconciliation(
    changes: impl Changes<AsyncQueue>,
) -> impl Stream<Item = watcher::Result<AsyncQueue>> + Send {
    let predicate =
        predicates::generation.combine(predicates::annotations).combine(predicates::finalizers);
    changes.map(Ok).applied_objects().predicate_filter(predicate, PredicateConfig::default())
}

#[cfg(test)]
mod tests {
    use futures::stream::iter;
    use kube::runtime::watcher::Event;

    use super::*;
    use crate::{crd::AsyncQueueStatus, fixtures};

    #[tokio::test]
    async fn a_status_change_needs_no_reconciliation() {
        let queue = fixtures::queue("q");
        let status = Some(AsyncQueueStatus::default());
        let changed: [fn(&mut AsyncQueue); 3] = [
            |queue| queue.metadata.generation = Some(9),
            |queue| queue.metadata.finalizers = Some(vec!["f".to_owned()]),
            |queue| queue.metadata.annotations = Some([("a".to_owned(), "b".to_owned())].into()),
        ];
        let changed = changed.map(|change| {
            let mut other = queue.clone();
            change(&mut other);
            other
        });
        let events = [
            Event::InitApply(queue.clone()),
            Event::Apply(queue.clone()),
            Event::Apply(AsyncQueue { status, ..queue.clone() }),
        ];
        let events = events.into_iter().chain(changed.clone().map(Event::Apply));
        let selected: Vec<_> =
            needs_reconciliation(iter(events)).map(watcher::Result::unwrap).collect().await;
        assert_eq!(selected[0], queue);
        assert_eq!(selected[1..], changed);
    }
}
