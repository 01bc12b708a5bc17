//! The searches of waits that tests and the program make.

use super::setup::{Faults, Setup};
use crate::guard::Guard;

/// Bounds with a name.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// What the search covers.
    pub name: &'static str,
    /// The bounds.
    pub setup: Setup,
}

const NONE: Faults = Faults { crashes: 0, leases: 0, disconnects: 0, deadlines: 0 };

/// Returns the searches of each test run.
#[must_use]
pub fn small() -> Vec<Bounds> {
    let bounds = |name, faults| Bounds { name, setup: Setup { faults, without: None } };
    vec![
        bounds("waits without faults", NONE),
        bounds("a worker crashes", Faults { crashes: 1, deadlines: 1, ..NONE }),
        bounds("two workers have a call", Faults { leases: 1, deadlines: 1, ..NONE }),
        bounds("a gateway loses its connection", Faults { disconnects: 1, deadlines: 1, ..NONE }),
    ]
}

/// Returns the searches that run on demand: all faults together.
#[must_use]
pub fn large() -> Vec<Bounds> {
    let faults = Faults { crashes: 2, leases: 1, disconnects: 1, deadlines: 2 };
    vec![Bounds { name: "waits with all faults", setup: Setup { faults, without: None } }]
}

/// Returns the bounds in which the checker finds that a guard is missing.
#[must_use]
pub fn without(guard: Guard) -> Setup {
    let faults = match guard {
        Guard::WaitReadsAtTheEnd => Faults { disconnects: 1, deadlines: 1, ..NONE },
        Guard::KeptResultFirstWins => Faults { leases: 1, ..NONE },
        Guard::WorkerReadsKeptResult => Faults { crashes: 1, ..NONE },
        _ => NONE,
    };
    Setup { faults, without: Some(guard) }
}
