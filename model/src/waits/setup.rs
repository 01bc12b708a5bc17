//! The bounds of one search.

use crate::guard::Guard;

/// The numbers of faults of a search, and the guard that is removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Setup {
    /// How often each fault may happen.
    pub faults: Faults,
    /// The guard that is removed.
    pub without: Option<Guard>,
}

/// How often each fault may happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Faults {
    /// A worker crashes.
    pub crashes: u8,
    /// A call is delivered while another worker has it.
    pub leases: u8,
    /// A gateway loses its connection to NATS, and what is published in the meantime.
    pub disconnects: u8,
    /// A client has waited for as long as it wanted to.
    pub deadlines: u8,
}

impl Setup {
    /// Returns whether a guard is active.
    #[must_use]
    pub fn has(self, guard: Guard) -> bool {
        self.without != Some(guard)
    }
}
