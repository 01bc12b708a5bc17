//! The bounds of one search.

use crate::guard::Guard;

/// The kind of batch and the numbers of faults of a search, and the guard that is removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Setup {
    /// Whether the first failure cancels the rest.
    pub cancels_rest: bool,
    /// Whether a program sweeps batches.
    pub sweeps: bool,
    /// How often each fault may happen.
    pub faults: Faults,
    /// The guard that is removed.
    pub without: Option<Guard>,
}

/// How often each fault may happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Faults {
    /// A call fails.
    pub failures: u8,
    /// A worker crashes.
    pub crashes: u8,
    /// A call is delivered while another worker has it.
    pub leases: u8,
    /// The duplicate window passes, so that NATS knows no message id.
    pub windows: u8,
    /// A call is purged.
    pub purges: u8,
}

impl Setup {
    /// Returns whether a guard is active.
    #[must_use]
    pub fn has(self, guard: Guard) -> bool {
        self.without != Some(guard)
    }
}
