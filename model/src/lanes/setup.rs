//! The bounds of one search.

use crate::guard::Guard;

/// Number of calls.
pub const CALLS: usize = 2;

/// The numbers of changes and faults of a search, and the guard that is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// The function of each call.
    pub functions: [u8; CALLS],
    /// Whether the queue has lanes at the beginning.
    pub has_lanes: bool,
    /// How often the fairness changes.
    pub changes: u8,
    /// How often each fault may happen.
    pub faults: Faults,
    /// The guard that is removed.
    pub without: Option<Guard>,
}

/// How often each fault may happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Faults {
    /// An invocation fails, and its call waits for a retry.
    pub retries: u8,
    /// The operator is restarted.
    pub restarts: u8,
    /// The user suspends the queue.
    pub suspensions: u8,
}

impl Default for Setup {
    /// Returns the smallest bounds: a queue with lanes, two calls of one function, and no faults.
    fn default() -> Self {
        let faults = Faults::default();
        Self { functions: [0, 0], has_lanes: true, changes: 0, faults, without: None }
    }
}

impl Setup {
    /// Returns whether a guard is active.
    #[must_use]
    pub fn has(self, guard: Guard) -> bool {
        self.without != Some(guard)
    }
}
