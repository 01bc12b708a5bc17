//! The messages that are being handled, one task each, and the slots that they take.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::{JoinError, JoinSet},
};
use tracing::{debug, warn};

/// Running tasks.
#[derive(Debug)]
pub(crate) struct Tasks {
    set: JoinSet<()>,
    in_flight: InFlight,
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

/// What a task holds of its message.
#[derive(Debug)]
pub(crate) struct Ticket {
    claim: Option<Claim>,
    slot: Slot,
}

/// The sequences of messages that are in flight here, and how often each was delivered again meanwhile. Clones share
/// them.
#[derive(Clone, Debug, Default)]
pub(crate) struct InFlight(Arc<Mutex<HashMap<u64, u64>>>);

/// The claim to the message at one sequence of the stream, until this is dropped: delivered again meanwhile, it is
/// nobody else's.
#[derive(Debug)]
pub(crate) struct Claim {
    in_flight: InFlight,
    sequence: u64,
}

// === impl Tasks ===

impl Tasks {
    /// For messages in so many slots.
    pub(crate) fn new(max: usize) -> Self {
        let (slots, freed) = mpsc::unbounded_channel();
        let waiting_room = Arc::new(Semaphore::new(max));
        Self { set: JoinSet::new(), in_flight: InFlight::default(), slots, freed, waiting_room }
    }

    /// Claims the message at a sequence; `None` if it is in flight here already, which counts this delivery as none.
    pub(crate) fn claim(&self, sequence: u64) -> Option<Claim> {
        if self.in_flight.count_repeat(sequence) {
            return None;
        }
        self.in_flight.lock().insert(sequence, 0);
        Some(Claim { in_flight: self.in_flight.clone(), sequence })
    }

    /// The messages that are in flight.
    pub(crate) fn in_flight(&self) -> InFlight {
        self.in_flight.clone()
    }

    /// Spawns a task that takes a slot.
    pub(crate) fn spawn<T>(&mut self, claim: Claim, task: impl FnOnce(Ticket) -> T)
    where
        T: Future<Output = ()> + Send + 'static,
    {
        let (freed, waiting_room) = (self.slots.clone(), self.waiting_room.clone());
        let slot = Slot { freed, waiting_room, place: None };
        self.set.spawn(task(Ticket { claim: Some(claim), slot }));
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

// === impl Ticket ===

impl Ticket {
    /// The ticket of a message that was not delivered and has no slot.
    pub(crate) fn without_slot() -> Self {
        let (freed, waiting_room) = (mpsc::unbounded_channel().0, Arc::new(Semaphore::new(1)));
        Self { claim: None, slot: Slot { freed, waiting_room, place: None } }
    }

    /// How often the message was delivered again while it is in flight here: these deliveries are no attempts.
    pub(crate) fn repeats(&self) -> u64 {
        self.claim.as_ref().map_or(0, Claim::repeats)
    }

    /// Gives the claim up: the next delivery is another attempt.
    pub(crate) fn give_up_claim(&mut self) {
        self.claim = None;
    }

    /// Frees the slot while the task goes on, unless as many have done so as there are slots: where the server takes no
    /// acknowledgement at all, calls are not made one after another for nothing.
    pub(crate) fn leave_slot(&mut self) {
        self.slot.leave();
    }
}

// === impl Slot ===

impl Slot {
    fn leave(&mut self) {
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

// === impl InFlight ===

impl InFlight {
    /// Counts a delivery of a message that is in flight; returns whether it is.
    pub(crate) fn count_repeat(&self, sequence: u64) -> bool {
        let mut messages = self.lock();
        let Some(repeats) = messages.get_mut(&sequence) else { return false };
        // The server has forgotten that it is here: it was killed before it wrote that down, its consumer was recreated,
        // or the lease ran out. The end of the call, when it comes, is the end of this delivery too.
        debug!(sequence, "delivered again while it is being handled");
        *repeats += 1;
        true
    }

    /// Whether a message is in flight.
    pub(crate) fn contains(&self, sequence: u64) -> bool {
        self.lock().contains_key(&sequence)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Claim ===

impl Claim {
    fn repeats(&self) -> u64 {
        self.in_flight.lock().get(&self.sequence).copied().unwrap_or_default()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.in_flight.lock().remove(&self.sequence);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn claimed(tasks: &Tasks, sequence: u64) -> Claim {
        tasks.claim(sequence).unwrap()
    }

    #[tokio::test]
    async fn a_message_is_held_until_its_task_ends_or_fails() {
        let mut tasks = Tasks::new(3);
        let [ends, fails, gives_up] = [1, 2, 3].map(|sequence| claimed(&tasks, sequence));
        assert!([1, 2, 3].iter().all(|sequence| tasks.claim(*sequence).is_none()));
        tasks.spawn(ends, async move |_ticket| {});
        tasks.spawn(fails, async move |ticket| {
            let _ticket = ticket;
            panic!("on purpose");
        });
        let (done, is_done) = tokio::sync::oneshot::channel();
        tasks.spawn(gives_up, async move |mut ticket| {
            ticket.give_up_claim();
            done.send(()).unwrap();
            std::future::pending::<()>().await;
        });
        is_done.await.unwrap();
        for _ in 0..2 {
            tasks.ended().await.unwrap();
        }
        assert!(tasks.running() == 1 && [1, 2, 3].iter().all(|sequence| tasks.claim(*sequence).is_some()));
    }

    #[tokio::test]
    async fn deliveries_of_a_message_in_flight_are_counted() {
        let mut tasks = Tasks::new(1);
        let claim = claimed(&tasks, 1);
        assert!(tasks.claim(1).is_none() && tasks.claim(1).is_none());
        let (seen, repeats) = tokio::sync::oneshot::channel();
        tasks.spawn(claim, async move |ticket| seen.send(ticket.repeats()).unwrap());
        assert_eq!(repeats.await.unwrap(), 2);
        tasks.ended().await.unwrap();
        let again = claimed(&tasks, 1);
        assert_eq!(again.repeats(), 0);
    }

    #[tokio::test]
    async fn a_slot_is_free_when_its_task_ends_or_fails_or_leaves_it() {
        let mut tasks = Tasks::new(3);
        let [ends, fails, leaves] = [1, 2, 3].map(|sequence| claimed(&tasks, sequence));
        tasks.spawn(ends, async |_ticket| {});
        tasks.spawn(fails, async |_ticket| panic!("on purpose"));
        tasks.spawn(leaves, async |mut ticket| {
            ticket.leave_slot();
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
        for sequence in 0..2 {
            let left = left.clone();
            let claim = claimed(&tasks, sequence);
            tasks.spawn(claim, async move |mut ticket| {
                ticket.leave_slot();
                // Once more is the same.
                ticket.leave_slot();
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
