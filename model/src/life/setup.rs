//! The bounds of one search.

use crate::guard::Guard;

/// The numbers of calls, workers and faults of a search, and the guard that is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Number of calls, all with the same id: at most [`CALLS`](super::state::CALLS).
    pub calls: u8,
    /// Number of workers: at most [`WORKERS`](super::state::WORKERS).
    pub workers: u8,
    /// Number of slots of each worker.
    pub slots: u8,
    /// `maxAttempts`.
    pub max_attempts: u8,
    /// Whether callbacks are wanted.
    pub callbacks: bool,
    /// Whether the function may fail.
    pub failures: bool,
    /// Which kind of message, if any, is too large to be stored.
    pub oversized: Oversized,
    /// Whether calls outside the model may take slots, so that waits may end before a redelivery.
    pub is_crowded: bool,
    /// How soon workers learn of a cancellation.
    pub broadcast: Broadcast,
    /// How often clients may request a cancellation.
    pub cancels: u8,
    /// How often each fault may happen.
    pub faults: Faults,
    /// The guard that is removed.
    pub without: Option<Guard>,
}

/// What is larger than NATS accepts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Oversized {
    /// Nothing.
    #[default]
    Nothing,
    /// The result of the function.
    Result,
    /// The dead letter, unless content is left out.
    DeadLetter,
}

/// How soon workers learn of a cancellation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broadcast {
    /// All workers that are up learn of it before the gateway answers. Needed only if a change of
    /// leader may forget a delivery.
    Prompt,
    /// They learn of it at any time.
    Slow,
}

/// How often each fault may happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Faults {
    /// A worker dies and is restarted.
    pub crashes: u8,
    /// A worker is paused for a while.
    pub pauses: u8,
    /// A lease runs out although its worker is alive: NATS can't be reached for longer than a
    /// lease.
    pub outages: u8,
    /// An ack does not reach the server.
    pub lost_acks: u8,
    /// A change of leader forgets the last delivery or unconfirmed ack of a call.
    pub leader_changes: u8,
    /// The consumer is deleted and created again, and does not know of any delivery.
    pub consumer_losses: u8,
    /// The stream is deleted and created again.
    pub recreations: u8,
    /// A worker that shuts down hands back a call.
    pub hand_backs: u8,
    /// The platform fails, which is not an attempt.
    pub platform_failures: u8,
    /// A call becomes older than `maxAge`.
    pub expiries: u8,
    /// The duplicate window of the dead-letter stream passes.
    pub windows: u8,
    /// A gateway stops in the middle of a cancellation.
    pub aborts: u8,
}

impl Default for Setup {
    /// Returns the smallest bounds: one call with a callback, one worker with one slot, one
    /// attempt, and no faults.
    fn default() -> Self {
        Self {
            calls: 1,
            workers: 1,
            slots: 1,
            max_attempts: 1,
            callbacks: true,
            failures: true,
            oversized: Oversized::Nothing,
            is_crowded: false,
            broadcast: Broadcast::Prompt,
            cancels: 0,
            faults: Faults::default(),
            without: None,
        }
    }
}

impl Setup {
    /// Returns whether a guard is active.
    #[must_use]
    pub fn has(&self, guard: Guard) -> bool {
        self.without != Some(guard)
    }
}
