//! The messages that are being handled, one task each, and the slots that they take.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::{JoinError, JoinSet},
};
use tracing::warn;

/// Running tasks.
#[derive(Debug)]
pub(crate) struct Tasks {
    set: JoinSet<()>,
    held: Held,
    slots: mpsc::UnboundedSender<()>,
    freed: mpsc::UnboundedReceiver<()>,
    /// Places of those that have left their slots.
    waiting_room: Arc<Semaphore>,
}

/// The slot of a message, free for another when this is dropped, or before, when its task leaves it.
#[derive(Debug)]
pub(crate) struct Slot {
    freed: mpsc::UnboundedSender<()>,
    waiting_room: Arc<Semaphore>,
    /// Of a task that has left its slot, so that it is free already.
    place: Option<OwnedSemaphorePermit>,
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

// === impl Tasks ===

impl Tasks {
    /// For messages in so many slots.
    pub(crate) fn new(max: usize) -> Self {
        let (slots, freed) = mpsc::unbounded_channel();
        let waiting_room = Arc::new(Semaphore::new(max));
        Self { set: JoinSet::new(), held: Held::default(), slots, freed, waiting_room }
    }

    /// Claims the message at a sequence; `None` if somebody has it in hand already.
    pub(crate) fn claim(&self, sequence: u64) -> Option<Claim> {
        let is_free = self.held.lock().insert(sequence);
        is_free.then(|| Claim { held: self.held.clone(), sequence })
    }

    /// Spawns a task that takes a slot.
    pub(crate) fn spawn<T>(&mut self, task: impl FnOnce(Slot) -> T)
    where
        T: Future<Output = ()> + Send + 'static,
    {
        let (freed, waiting_room) = (self.slots.clone(), self.waiting_room.clone());
        self.set.spawn(task(Slot { freed, waiting_room, place: None }));
    }

    /// Waits until a slot is free again, and returns how many are by then.
    pub(crate) async fn freed(&mut self) -> usize {
        let count = self.freed.recv_many(&mut Vec::new(), usize::MAX).await;
        self.forget_ended();
        count
    }

    /// Waits until a task has ended; `None` if there is none.
    pub(crate) async fn ended(&mut self) -> Option<()> {
        self.set.join_next().await.map(told)
    }

    /// How many tasks have not ended.
    pub(crate) fn running(&mut self) -> usize {
        self.forget_ended();
        self.set.len()
    }

    fn forget_ended(&mut self) {
        while let Some(ended) = self.set.try_join_next() {
            told(ended);
        }
    }
}

/// Says how a task ended, if it should not have ended so.
fn told(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        warn!(%error, "the task of a call failed; its message is delivered again after the lease");
    }
}

// === impl Slot ===

impl Slot {
    /// Frees the slot while its task goes on, unless as many have done so as there are slots: where the server takes no
    /// acknowledgement at all, calls are not made one after another for nothing.
    pub(crate) fn leave(&mut self) {
        if self.place.is_none()
            && let Ok(place) = self.waiting_room.clone().try_acquire_owned()
        {
            self.place = Some(place);
            self.free();
        }
    }

    fn free(&self) {
        // Who is not there any more counts no slots.
        let _ = self.freed.send(());
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.place.is_none() {
            self.free();
        }
    }
}

// === impl Held ===

impl Held {
    fn lock(&self) -> MutexGuard<'_, HashSet<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Claim ===

impl Drop for Claim {
    fn drop(&mut self) {
        self.held.lock().remove(&self.sequence);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_message_is_held_until_its_task_has_ended_or_failed_or_lets_go_of_it() {
        let mut tasks = Tasks::new(3);
        let [ends, fails, lets_go] = [1, 2, 3].map(|sequence| tasks.claim(sequence).unwrap());
        assert!([1, 2, 3].iter().all(|sequence| tasks.claim(*sequence).is_none()));
        tasks.spawn(async move |_| drop(lets_go));
        tasks.spawn(async move |_| {
            let _ends = ends;
        });
        tasks.spawn(async move |_| {
            let _fails = fails;
            panic!("on purpose");
        });
        while tasks.ended().await.is_some() {}
        assert!(tasks.running() == 0 && [1, 2, 3].iter().all(|sequence| tasks.claim(*sequence).is_some()));
    }

    #[tokio::test]
    async fn a_slot_is_free_when_its_task_has_ended_or_failed_or_leaves_it() {
        let mut tasks = Tasks::new(3);
        tasks.spawn(async |_slot| {});
        tasks.spawn(async |_slot| panic!("on purpose"));
        tasks.spawn(async |mut slot| {
            slot.leave();
            std::future::pending::<()>().await;
        });
        let mut freed = 0;
        while freed < 3 {
            freed += tasks.freed().await;
        }
        assert_eq!(tasks.running(), 1);
    }

    #[tokio::test]
    async fn as_many_tasks_leave_their_slots_as_there_are_slots() {
        let mut tasks = Tasks::new(1);
        let (left, mut leaves) = mpsc::unbounded_channel();
        for _ in 0..2 {
            let left = left.clone();
            tasks.spawn(async move |mut slot| {
                slot.leave();
                // Once more is the same.
                slot.leave();
                left.send(()).unwrap();
                std::future::pending::<()>().await;
            });
        }
        for _ in 0..2 {
            leaves.recv().await.unwrap();
        }
        assert_eq!(tasks.freed().await, 1);
        assert!(tasks.freed().now_or_never().is_none());
    }
}
