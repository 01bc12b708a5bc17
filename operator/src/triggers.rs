//! Looks at a queue at once, for what no watch of the Kubernetes API tells of.

use futures::{Stream, channel::mpsc};
use kube::{ResourceExt, runtime::reflector::ObjectRef};

use crate::crd::AsyncQueue;

/// The ways to all controllers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Triggers(Vec<Trigger>);

/// The way to the controller of one namespace, or of all.
#[derive(Clone, Debug)]
struct Trigger {
    namespace: Option<String>,
    queues: mpsc::UnboundedSender<ObjectRef<AsyncQueue>>,
}

// === impl Triggers ===

impl Triggers {
    /// Adds the way to a controller, which follows the stream. That holds a queue's name for each look at most, and the
    /// controller looks once for all of one queue that it finds there.
    pub(crate) fn add(
        &mut self,
        namespace: Option<&str>,
    ) -> impl Stream<Item = ObjectRef<AsyncQueue>> + Send + use<> {
        let (sender, receiver) = mpsc::unbounded();
        self.0.push(Trigger { namespace: namespace.map(str::to_owned), queues: sender });
        receiver
    }

    /// Has a queue looked at.
    pub(crate) fn look(&self, queue: &AsyncQueue) {
        let namespace = queue.namespace().unwrap_or_default();
        for trigger in &self.0 {
            if trigger.namespace.as_ref().is_none_or(|watched| *watched == namespace) {
                // Whoever does not listen any more is about to end.
                let _ = trigger.queues.unbounded_send(ObjectRef::new(&queue.name_any()).within(&namespace));
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
        let (mut here, mut elsewhere) = (triggers.add(Some("openfaas")), triggers.add(Some("elsewhere")));
        triggers.look(&fixtures::queue("q"));
        let name = |queue: Option<Option<ObjectRef<AsyncQueue>>>| queue.flatten().map(|queue| queue.name);
        assert_eq!(name(all.next().now_or_never()).as_deref(), Some("q"));
        assert_eq!(name(here.next().now_or_never()).as_deref(), Some("q"));
        assert_eq!(name(elsewhere.next().now_or_never()), None);
    }
}
