//! The bounds of one search.

use crate::guard::Guard;

/// Time after a renewal in which invocations may start. One unit of time stands for five seconds of
/// the product.
pub(super) const STARTS_WITHIN: u8 = 2;

/// The numbers of workers and faults of a search, and the guard that is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Number of workers at the beginning: at most [`WORKERS`](super::state::WORKERS).
    pub workers: u8,
    /// `concurrency`: at most [`OPEN`](super::state::OPEN).
    pub total: u8,
    /// `concurrency` after it was changed.
    pub next_total: u8,
    /// `maxInflight`.
    pub max_inflight: u8,
    /// Whether the rate is limited.
    pub has_rate: bool,
    /// How often each fault may happen.
    pub faults: Faults,
    /// The guard that is removed.
    pub without: Option<Guard>,
}

/// How often each fault, and each change of workers and limits, may happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Faults {
    /// A worker is killed, and stays away.
    pub crashes: u8,
    /// A worker is stopped, for as long as you like.
    pub stops: u8,
    /// A worker can't reach NATS, for as long as you like.
    pub outages: u8,
    /// A worker gives up a write. NATS has it already, gets it later, or never.
    pub lost_writes: u8,
    /// A worker is added.
    pub joins: u8,
    /// A worker is asked to end.
    pub leaves: u8,
    /// `concurrency` changes.
    pub changes: u8,
}

impl Default for Setup {
    /// Returns the smallest bounds: two workers that share two slots, without faults.
    fn default() -> Self {
        Self {
            workers: 2,
            total: 2,
            next_total: 2,
            max_inflight: 2,
            has_rate: false,
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

    /// Returns the total that a worker knows.
    pub(super) fn total(&self, has_changed: bool) -> u8 {
        if has_changed { self.next_total } else { self.total }
    }
}
