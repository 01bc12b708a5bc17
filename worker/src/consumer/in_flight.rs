//! Runs a task for each message in flight, and counts the slots that the tasks use.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet},
};
use tracing::{debug, warn};

/// The running tasks.
#[derive(Debug)]
pub(crate) struct InFlight {
    set: JoinSet<()>,
    sequences: InFlightSet,
    freed_tx: mpsc::UnboundedSender<()>,
    freed_rx: mpsc::UnboundedReceiver<()>,
    early_releases: Arc<EarlyReleases>,
}

/// How many tasks have released their slots early, and how many may.
#[derive(Debug)]
struct EarlyReleases {
    count: AtomicUsize,
    max: AtomicUsize,
}

/// The slot of a message. It is free for another one when this is dropped, or earlier if its task
/// releases it.
#[derive(Debug)]
pub(crate) struct Slot {
    freed_tx: mpsc::UnboundedSender<()>,
    early_releases: Arc<EarlyReleases>,
    /// Whether the task has released its slot early, so that the slot is free already.
    is_released: bool,
}

/// Permission to handle a message: its claim and its slot.
#[derive(Debug)]
pub(crate) struct InFlightPermit {
    claim: Option<SequenceGuard>,
    slot: Slot,
}

/// The sequences of messages that are in flight here, and how often each was delivered again since
/// it was claimed. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct InFlightSet(Arc<Mutex<HashMap<u64, u64>>>);

/// The claim to the message at one sequence of the stream, until this is dropped. While it is held,
/// a repeated delivery of the message can't be claimed.
#[derive(Debug)]
pub(crate) struct SequenceGuard {
    sequences: InFlightSet,
    sequence: u64,
}

// === impl InFlight ===

impl InFlight {
    /// Creates the tasks for messages in `max` slots. The messages are claimed in `sequences`.
    pub(crate) fn new(max: usize, sequences: InFlightSet) -> Self {
        let (freed_tx, freed_rx) = mpsc::unbounded_channel();
        Self {
            set: JoinSet::new(),
            sequences,
            freed_tx,
            freed_rx,
            early_releases: Arc::new(EarlyReleases::new(max)),
        }
    }

    /// Changes the number of slots.
    pub(crate) fn set_max(&self, max: usize) {
        self.early_releases.max.store(max, Ordering::Relaxed);
    }

    /// Claims the message at a sequence. Returns `None` if it is in flight here already: this
    /// delivery then does not count as an attempt.
    pub(crate) fn claim(&self, sequence: u64) -> Option<SequenceGuard> {
        if self.sequences.count_redelivery(sequence) {
            return None;
        }
        self.sequences.lock().insert(sequence, 0);
        Some(SequenceGuard { sequences: self.sequences.clone(), sequence })
    }

    /// Returns the messages that are in flight.
    pub(crate) fn in_flight(&self) -> InFlightSet {
        self.sequences.clone()
    }

    /// Spawns a task that uses a slot.
    pub(crate) fn spawn<T>(&mut self, claim: SequenceGuard, task: impl FnOnce(InFlightPermit) -> T)
    where
        T: Future<Output = ()> + Send + 'static,
    {
        let (freed_tx, early_releases) = (self.freed_tx.clone(), self.early_releases.clone());
        let slot = Slot { freed_tx, early_releases, is_released: false };
        self.set.spawn(task(InFlightPermit { claim: Some(claim), slot }));
    }

    /// Waits until a slot becomes free, and returns how many have become free by then.
    pub(crate) async fn wait_for_free_slots(&mut self) -> usize {
        let count = self.freed_rx.recv_many(&mut Vec::new(), usize::MAX).await;
        self.reap_finished();
        count
    }

    /// Waits until a task has ended. Returns `None` if no task is left.
    pub(crate) async fn join_next(&mut self) -> Option<()> {
        self.set.join_next().await.map(log_panic)
    }

    /// Returns how many tasks have not ended.
    pub(crate) fn running(&mut self) -> usize {
        self.reap_finished();
        self.set.len()
    }

    fn reap_finished(&mut self) {
        while let Some(ended) = self.set.try_join_next() {
            log_panic(ended);
        }
    }
}

/// Logs it if a task panicked.
fn log_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        warn!(
            %error,
            "the task of a message panicked: the message is delivered again after the lease"
        );
    }
}

// === impl InFlightPermit ===

impl InFlightPermit {
    /// Creates the permit of a message that was not delivered and has no slot.
    pub(crate) fn without_slot() -> Self {
        let (freed_tx, early_releases) =
            (mpsc::unbounded_channel().0, Arc::new(EarlyReleases::new(1)));
        Self { claim: None, slot: Slot { freed_tx, early_releases, is_released: false } }
    }

    /// Returns how often the message was delivered again while it is in flight here. These
    /// deliveries do not count as attempts.
    pub(crate) fn redeliveries(&self) -> u64 {
        self.claim.as_ref().map_or(0, SequenceGuard::redeliveries)
    }

    /// Releases the claim: the next delivery is another attempt.
    pub(crate) fn release_claim(&mut self) {
        self.claim = None;
    }

    /// Frees the slot while the task continues, unless as many tasks as there are slots have done
    /// so. Where the server accepts no ack at all, one call after another would otherwise run in
    /// vain.
    pub(crate) fn release_slot_early(&mut self) {
        self.slot.release_early();
    }
}

// === impl EarlyReleases ===

impl EarlyReleases {
    fn new(max: usize) -> Self {
        Self { count: AtomicUsize::new(0), max: AtomicUsize::new(max) }
    }

    /// Counts a task that releases its slot. Returns `false` if it may not.
    fn try_add(&self) -> bool {
        let max = self.max.load(Ordering::Relaxed);
        let add = |count| (count < max).then_some(count + 1);
        self.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
    }
}

// === impl Slot ===

impl Slot {
    fn release_early(&mut self) {
        if !self.is_released && self.early_releases.try_add() {
            self.is_released = true;
            self.free();
        }
    }

    fn free(&self) {
        // Fails only if slots are no longer counted.
        let _ = self.freed_tx.send(());
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.is_released {
            self.early_releases.count.fetch_sub(1, Ordering::Relaxed);
        } else {
            self.free();
        }
    }
}

// === impl InFlightSet ===

impl InFlightSet {
    /// Counts a repeated delivery of a message that is in flight. Returns whether it is in flight.
    pub(crate) fn count_redelivery(&self, sequence: u64) -> bool {
        let mut messages = self.lock();
        let Some(redeliveries) = messages.get_mut(&sequence) else { return false };
        // The server has lost its record of the delivery: it was killed before it wrote the record,
        // its consumer was recreated, or the lease ran out. The end of the call will be the end of
        // this delivery too.
        debug!(sequence, "message redelivered while it is in flight here");
        *redeliveries += 1;
        true
    }

    /// Returns how many messages are in flight: delivered here, and not settled.
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Returns whether a message is in flight.
    pub(crate) fn contains(&self, sequence: u64) -> bool {
        self.lock().contains_key(&sequence)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl SequenceGuard ===

impl SequenceGuard {
    pub(super) fn redeliveries(&self) -> u64 {
        self.sequences.lock().get(&self.sequence).copied().unwrap_or_default()
    }
}

impl Drop for SequenceGuard {
    fn drop(&mut self) {
        self.sequences.lock().remove(&self.sequence);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn claimed(tasks: &InFlight, sequence: u64) -> SequenceGuard {
        tasks.claim(sequence).unwrap()
    }

    #[tokio::test]
    async fn a_message_is_claimed_until_its_task_ends_or_fails() {
        let mut tasks = InFlight::new(3, InFlightSet::default());
        let [ends, fails, gives_up] = [1, 2, 3].map(|sequence| claimed(&tasks, sequence));
        assert!([1, 2, 3].iter().all(|sequence| tasks.claim(*sequence).is_none()));
        tasks.spawn(ends, async move |_permit| {});
        tasks.spawn(fails, async move |permit| {
            let _permit = permit;
            panic!("on purpose");
        });
        let (done, is_done) = tokio::sync::oneshot::channel();
        tasks.spawn(gives_up, async move |mut permit| {
            permit.release_claim();
            done.send(()).unwrap();
            std::future::pending::<()>().await;
        });
        is_done.await.unwrap();
        for _ in 0..2 {
            tasks.join_next().await.unwrap();
        }
        assert!(
            tasks.running() == 1
                && [1, 2, 3].iter().all(|sequence| tasks.claim(*sequence).is_some())
        );
    }

    #[tokio::test]
    async fn deliveries_of_a_message_in_flight_are_counted() {
        let mut tasks = InFlight::new(1, InFlightSet::default());
        let claim = claimed(&tasks, 1);
        assert!(tasks.claim(1).is_none() && tasks.claim(1).is_none());
        let (seen, redeliveries) = tokio::sync::oneshot::channel();
        tasks.spawn(claim, async move |permit| seen.send(permit.redeliveries()).unwrap());
        assert_eq!(redeliveries.await.unwrap(), 2);
        tasks.join_next().await.unwrap();
        let again = claimed(&tasks, 1);
        assert_eq!(again.redeliveries(), 0);
    }

    #[tokio::test]
    async fn a_slot_is_free_when_its_task_ends_fails_or_releases_it() {
        let mut tasks = InFlight::new(3, InFlightSet::default());
        let [ends, fails, leaves] = [1, 2, 3].map(|sequence| claimed(&tasks, sequence));
        tasks.spawn(ends, async |_permit| {});
        tasks.spawn(fails, async |_permit| panic!("on purpose"));
        tasks.spawn(leaves, async |mut permit| {
            permit.release_slot_early();
            std::future::pending::<()>().await;
        });
        let mut freed = 0;
        while freed < 3 {
            freed += tasks.wait_for_free_slots().await;
        }
        assert_eq!(tasks.running(), 1);
    }

    #[tokio::test]
    async fn at_most_max_tasks_release_their_slots_early() {
        let mut tasks = InFlight::new(1, InFlightSet::default());
        let (left, mut leaves) = mpsc::unbounded_channel();
        for sequence in 0..2 {
            let left = left.clone();
            let claim = claimed(&tasks, sequence);
            tasks.spawn(claim, async move |mut permit| {
                permit.release_slot_early();
                // A second call has no effect.
                permit.release_slot_early();
                left.send(()).unwrap();
                std::future::pending::<()>().await;
            });
        }
        for _ in 0..2 {
            leaves.recv().await.unwrap();
        }
        assert_eq!(tasks.wait_for_free_slots().await, 1);
        assert!(tasks.wait_for_free_slots().now_or_never().is_none());
        tasks.set_max(2);
        let claim = claimed(&tasks, 2);
        tasks.spawn(claim, async |mut permit| permit.release_slot_early());
        assert_eq!(tasks.wait_for_free_slots().await, 1);
    }
}
