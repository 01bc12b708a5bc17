//! The messages that are being handled, one task each.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::task::JoinSet;
use tracing::warn;

/// Running tasks.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    set: JoinSet<()>,
    held: Held,
}

/// The sequences of messages that are in somebody's hands here. Clones are the same.
#[derive(Clone, Debug, Default)]
struct Held(Arc<Mutex<HashSet<u64>>>);

/// The claim to the message at one sequence of the stream, until this is dropped: delivered again meanwhile, it is
/// nobody else's.
#[derive(Debug)]
pub(crate) struct Claim {
    held: Held,
    sequence: u64,
}

impl Tasks {
    /// Claims the message at a sequence; `None` if somebody has it in hand already.
    pub(crate) fn claim(&self, sequence: u64) -> Option<Claim> {
        let is_free = self.held.lock().insert(sequence);
        is_free.then(|| Claim { held: self.held.clone(), sequence })
    }

    pub(crate) fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.set.spawn(task);
    }

    /// Waits until a task has ended, and returns how many have by then; `None` if there is none.
    pub(crate) async fn ended(&mut self) -> Option<usize> {
        let mut next = Some(self.set.join_next().await?);
        let mut count = 0;
        while let Some(ended) = next {
            if let Err(error) = ended {
                warn!(%error, "the task of a call failed; its message is delivered again after the lease");
            }
            count += 1;
            next = self.set.try_join_next();
        }
        Some(count)
    }

    pub(crate) fn len(&self) -> usize {
        self.set.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.set.is_empty()
    }
}

impl Held {
    fn lock(&self) -> MutexGuard<'_, HashSet<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.held.lock().remove(&self.sequence);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_message_is_held_until_its_task_has_ended_or_failed_or_lets_go_of_it() {
        let mut tasks = Tasks::default();
        let [ends, fails, lets_go] = [1, 2, 3].map(|sequence| tasks.claim(sequence).unwrap());
        assert!([1, 2, 3].iter().all(|sequence| tasks.claim(*sequence).is_none()));
        tasks.spawn(async move { drop(lets_go) });
        tasks.spawn(async move {
            let _ends = ends;
        });
        tasks.spawn(async move {
            let _fails = fails;
            panic!("on purpose");
        });
        while tasks.ended().await.is_some() {}
        assert!(tasks.is_empty() && [1, 2, 3].iter().all(|sequence| tasks.claim(*sequence).is_some()));
    }
}
