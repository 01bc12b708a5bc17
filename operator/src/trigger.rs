//! Triggers the reconciliation of a queue for changes that no watch of the Kubernetes API reports.

use std::time::Duration;

use futures::{Stream, channel::mpsc};
use kube::{ResourceExt, runtime::reflector::ObjectRef};
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    cache::{object::uid, watch::MultiStore},
    crd::AsyncQueue,
};

/// Interval, in seconds, of the reconciliations of a queue in its desired state. Changes on NATS,
/// for which there may be no advisory, are reverted within this time.
const RESYNC_SECONDS: u64 = 10;

/// With many queues, the number that is reconciled each second: a reconciliation takes a handful of
/// requests to NATS.
const RECONCILES_PER_SECOND: u64 = 50;

/// The triggers of all controllers.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReconcileTrigger(Vec<Trigger>);

/// The trigger of the controller of one namespace, or of all.
#[derive(Clone, Debug)]
struct Trigger {
    namespace: Option<String>,
    queues: mpsc::UnboundedSender<ObjectRef<AsyncQueue>>,
}

// === impl ReconcileTrigger ===

impl ReconcileTrigger {
    /// Adds the trigger of a controller, which follows the returned stream. The stream holds at
    /// most one queue name for each trigger, and the controller reconciles each queue in it once.
    pub(crate) fn add(
        &mut self,
        namespace: Option<&str>,
    ) -> impl Stream<Item = ObjectRef<AsyncQueue>> + Send + use<> {
        let (sender, receiver) = mpsc::unbounded();
        self.0.push(Trigger { namespace: namespace.map(str::to_owned), queues: sender });
        receiver
    }

    /// Triggers the reconciliation of a queue.
    pub(crate) fn enqueue(&self, queue: &AsyncQueue) {
        let namespace = queue.namespace().unwrap_or_default();
        for trigger in &self.0 {
            if trigger.namespace.as_ref().is_none_or(|watched| *watched == namespace) {
                // A controller that has dropped its stream is about to end.
                let _ = trigger
                    .queues
                    .unbounded_send(ObjectRef::new(&queue.name_any()).within(&namespace));
            }
        }
    }
}

/// Triggers reconciliations for as long as it is polled.
pub(crate) async fn resync(queues: &MultiStore<AsyncQueue>, triggers: &ReconcileTrigger) {
    queues.wait_until_ready().await;
    let mut clock = interval(Duration::from_secs(1));
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for second in 0.. {
        clock.tick().await;
        let queues = queues.all();
        let period = period(queues.len());
        let is_due = |queue: &AsyncQueue| phase(queue) % period == second % period;
        for queue in queues.iter().filter(|queue| is_due(queue)) {
            triggers.enqueue(queue);
        }
    }
}

/// Returns the time, in seconds, in which each of so many queues is reconciled once.
fn period(queues: usize) -> u64 {
    RESYNC_SECONDS.max(u64::try_from(queues).unwrap_or(u64::MAX) / RECONCILES_PER_SECOND)
}

/// Returns the position of a queue among all: random, but always the same.
fn phase(queue: &AsyncQueue) -> u64 {
    uid(&queue.metadata).as_u64_pair().1
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt};

    use super::*;
    use crate::fixtures;

    #[test]
    fn a_queue_is_enqueued_in_its_namespace() {
        let mut triggers = ReconcileTrigger::default();
        let mut all = triggers.add(None);
        let (mut here, mut elsewhere) =
            (triggers.add(Some("openfaas")), triggers.add(Some("elsewhere")));
        triggers.enqueue(&fixtures::queue("q"));
        let name =
            |queue: Option<Option<ObjectRef<AsyncQueue>>>| queue.flatten().map(|queue| queue.name);
        assert_eq!(name(all.next().now_or_never()).as_deref(), Some("q"));
        assert_eq!(name(here.next().now_or_never()).as_deref(), Some("q"));
        assert_eq!(name(elsewhere.next().now_or_never()), None);
    }

    #[test]
    fn many_queues_are_reconciled_less_often() {
        for (queues, seconds) in [(0, 10), (1, 10), (500, 10), (10_000, 200)] {
            assert_eq!(period(queues), seconds, "{queues}");
        }
    }
}
