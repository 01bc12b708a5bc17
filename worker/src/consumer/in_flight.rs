//! Runs a task for each message that is being handled, and counts the slots that they take.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::{JoinError, JoinSet},
};
use tracing::{debug, warn};

/// The running tasks.
#[derive(Debug)]
pub(crate) struct Tasks {
    set: JoinSet<()>,
    in_flight: InFlight,
    slots: mpsc::UnboundedSender<()>,
    freed: mpsc::UnboundedReceiver<()>,
    /// Places of tasks that have left their slots.
    waiting_room: Arc<Semaphore>,
}

/// The slot of a message. It is free for another one when this is dropped, or earlier if its task
/// leaves it.
#[derive(Debug)]
pub(crate) struct Slot {
    freed: mpsc::UnboundedSender<()>,
    waiting_room: Arc<Semaphore>,
    /// Place of a task that has left its slot, so that the slot is free already.
    place: Option<OwnedSemaphorePermit>,
}

/// What a task holds of its message.
#[derive(Debug)]
pub(crate) struct Ticket {
    claim: Option<Claim>,
    slot: Slot,
}

/// The sequences of messages that are in flight here, and how often each was delivered again since
/// it was claimed. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct InFlight(Arc<Mutex<HashMap<u64, u64>>>);

/// The claim to the message at one sequence of the stream, until this is dropped. While it is held,
/// a repeated delivery of the message can't be claimed.
#[derive(Debug)]
pub(crate) struct Claim {
    in_flight: InFlight,
    sequence: u64,
}

// === impl Tasks ===

impl Tasks {
    /// Creates the tasks for messages in `max` slots.
    pub(crate) fn new(max: usize) -> Self {
        let (slots, freed) = mpsc::unbounded_channel();
        let waiting_room = Arc::new(Semaphore::new(max));
        Self { set: JoinSet::new(), in_flight: InFlight::default(), slots, freed, waiting_room }
    }

    /// Claims the message at a sequence. Returns `None` if it is in flight here already: this
    /// delivery is then no attempt.
    pub(crate) fn claim(&self, sequence: u64) -> Option<Claim> {
        if self.in_flight.count_repeat(sequence) {
            return None;
        }
        self.in_flight.lock().insert(sequence, 0);
        Some(Claim { in_flight: self.in_flight.clone(), sequence })
    }

    /// Returns the messages that are in flight.
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

    /// Waits until a slot becomes free, and returns how many have become free by then.
    pub(crate) async fn freed(&mut self) -> usize {
        let count = self.freed.recv_many(&mut Vec::new(), usize::MAX).await;
        self.forget_ended();
        count
    }

    /// Waits until a task has ended. Returns `None` if no task is left.
    pub(crate) async fn ended(&mut self) -> Option<()> {
        self.set.join_next().await.map(told)
    }

    /// Returns how many tasks have not ended.
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

/// Logs how a task ended, if it failed.
fn told(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        warn!(%error, "the task of a call failed; its message is delivered again after the lease");
    }
}

// === impl Ticket ===

impl Ticket {
    /// Creates the ticket of a message that was not delivered and has no slot.
    pub(crate) fn without_slot() -> Self {
        let (freed, waiting_room) = (mpsc::unbounded_channel().0, Arc::new(Semaphore::new(1)));
        Self { claim: None, slot: Slot { freed, waiting_room, place: None } }
    }

    /// Returns how often the message was delivered again while it is in flight here. These
    /// deliveries are no attempts.
    pub(crate) fn repeats(&self) -> u64 {
        self.claim.as_ref().map_or(0, Claim::repeats)
    }

    /// Gives the claim up: the next delivery is another attempt.
    pub(crate) fn give_up_claim(&mut self) {
        self.claim = None;
    }

    /// Frees the slot while the task continues, unless as many tasks as there are slots have done
    /// so. Where the server accepts no ack at all, one call after another would otherwise run in
    /// vain.
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
        // Fails only if the slots are not counted any more.
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
    /// Counts a repeated delivery of a message that is in flight. Returns whether it is in flight.
    pub(crate) fn count_repeat(&self, sequence: u64) -> bool {
        let mut messages = self.lock();
        let Some(repeats) = messages.get_mut(&sequence) else { return false };
        // The server has lost its record of the delivery: it was killed before it wrote the record,
        // its consumer was recreated, or the lease ran out. The end of the call will be the end of
        // this delivery too.
        debug!(sequence, "delivered again while it is being handled");
        *repeats += 1;
        true
    }

    /// Returns whether a message is in flight.
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
        assert!(
            tasks.running() == 1
                && [1, 2, 3].iter().all(|sequence| tasks.claim(*sequence).is_some())
        );
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
                // A second call has no effect.
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
