//! The steps that the model can take.

use super::state::{CALLS, PROGRAMS};

/// One step. Calls and programs are identified by their index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// A worker gets a call that no worker has, and the call is done.
    Deliver(usize, usize),
    /// The same, and the call fails.
    Fail(usize, usize),
    /// Fault: a worker gets a call that another one has.
    Redeliver(usize, usize),
    /// The program takes its next step.
    Work(usize),
    /// Fault: the program crashes.
    Crash(usize),
    /// The sweep finds a call that has left its queue without an end.
    Sweep(usize),
    /// Fault: the duplicate window passes.
    PassWindow,
    /// Fault: a call is purged.
    Purge(usize),
}

impl Action {
    /// Returns whether the step is a fault.
    #[must_use]
    pub const fn is_fault(self) -> bool {
        !matches!(self, Self::Deliver(..) | Self::Work(_) | Self::Sweep(_))
    }

    /// Returns all steps, possible or not.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let mut all = vec![Self::PassWindow];
        for c in 0..CALLS {
            all.extend([Self::Sweep(c), Self::Purge(c)]);
        }
        for p in 0..PROGRAMS {
            all.extend([Self::Work(p), Self::Crash(p)]);
            for c in 0..CALLS {
                all.extend([Self::Deliver(p, c), Self::Fail(p, c), Self::Redeliver(p, c)]);
            }
        }
        all
    }
}
