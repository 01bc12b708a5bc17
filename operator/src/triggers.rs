//! Triggers the reconciliation of a queue for changes that no watch of the Kubernetes API reports.

use futures::{Stream, channel::mpsc};
use kube::{ResourceExt, runtime::reflector::ObjectRef};

use crate::crd::AsyncQueue;

/// The triggers of all controllers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Triggers(Vec<Trigger>);

/// The trigger of the controller of one namespace, or of all.
#[derive(Clone, Debug)]
struct Trigger {
    namespace: Option<String>,
    queues: mpsc::UnboundedSender<ObjectRef<AsyncQueue>>,
}

// === impl Triggers ===

impl Triggers {
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
    pub(crate) fn look(&self, queue: &AsyncQueue) {
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

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt};

    use super::*;
    use crate::fixtures;

    #[test]
    fn a_queue_is_looked_at_by_the_controller_of_its_namespace() {
        let mut triggers = Triggers::default();
        let mut all = triggers.add(None);
        let (mut here, mut elsewhere) =
            (triggers.add(Some("openfaas")), triggers.add(Some("elsewhere")));
        triggers.look(&fixtures::queue("q"));
        let name =
            |queue: Option<Option<ObjectRef<AsyncQueue>>>| queue.flatten().map(|queue| queue.name);
        assert_eq!(name(all.next().now_or_never()).as_deref(), Some("q"));
        assert_eq!(name(here.next().now_or_never()).as_deref(), Some("q"));
        assert_eq!(name(elsewhere.next().now_or_never()), None);
    }
}
