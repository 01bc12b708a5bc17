//! The messages that are being handled, one task each.

use std::collections::{HashMap, HashSet};

use tokio::task::{Id, JoinError, JoinSet};
use tracing::warn;

/// Running tasks, each of which holds the message at one sequence of the stream.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    set: JoinSet<()>,
    by_task: HashMap<Id, u64>,
    held: HashSet<u64>,
}

impl Tasks {
    /// Whether the message at a sequence is being handled.
    pub(crate) fn hold(&self, sequence: u64) -> bool {
        self.held.contains(&sequence)
    }

    pub(crate) fn spawn(&mut self, sequence: u64, task: impl Future<Output = ()> + Send + 'static) {
        let id = self.set.spawn(task).id();
        self.by_task.insert(id, sequence);
        self.held.insert(sequence);
    }

    /// Waits until a task has ended, and returns how many have by then; `None` if there is none.
    pub(crate) async fn ended(&mut self) -> Option<usize> {
        let mut next = Some(self.set.join_next_with_id().await?);
        let mut count = 0;
        while let Some(ended) = next {
            count += 1;
            self.forget(ended);
            next = self.set.try_join_next_with_id();
        }
        Some(count)
    }

    fn forget(&mut self, ended: Result<(Id, ()), JoinError>) {
        let id = match ended {
            Ok((id, ())) => id,
            Err(error) => {
                warn!(%error, "the task of a call failed; its message is delivered again after the lease");
                error.id()
            }
        };
        if let Some(sequence) = self.by_task.remove(&id) {
            self.held.remove(&sequence);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.set.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.set.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_message_is_held_until_its_task_has_ended_or_failed() {
        let mut tasks = Tasks::default();
        tasks.spawn(1, async {});
        tasks.spawn(2, async { panic!("on purpose") });
        assert!(tasks.hold(1) && tasks.hold(2) && !tasks.hold(3));
        let mut ended = 0;
        while let Some(count) = tasks.ended().await {
            ended += count;
        }
        assert_eq!(ended, 2);
        assert!(!tasks.hold(1) && !tasks.hold(2) && tasks.is_empty());
    }
}
