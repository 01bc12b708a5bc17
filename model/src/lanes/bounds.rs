//! The searches of lanes that tests and the program make.

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

/// Returns the searches of each test run.
#[must_use]
pub fn small() -> Vec<Bounds> {
    let faults = Faults { retries: 1, restarts: 1, suspensions: 1 };
    let whole = Setup { faults, ..Setup::default() };
    vec![
        Bounds { name: "lanes come and go", setup: whole },
        Bounds {
            name: "lanes of two functions come and go",
            setup: Setup { functions: [0, 1], ..whole },
        },
        Bounds {
            name: "a queue gets lanes",
            setup: Setup { has_lanes: false, changes: 1, ..whole },
        },
        Bounds { name: "a queue loses its lanes", setup: Setup { changes: 1, ..whole } },
        Bounds {
            name: "a queue loses the lanes of two functions",
            setup: Setup {
                functions: [0, 1],
                changes: 1,
                faults: Faults { suspensions: 0, ..faults },
                ..whole
            },
        },
    ]
}

/// Returns the searches that run on demand: the fairness changes, and changes back.
#[must_use]
pub fn large() -> Vec<Bounds> {
    let twice = |bounds: Bounds| Bounds { setup: Setup { changes: 2, ..bounds.setup }, ..bounds };
    small().into_iter().map(twice).collect()
}

/// Returns the bounds in which the checker finds that a guard is missing.
#[must_use]
pub fn without(guard: Guard) -> Setup {
    let mut faults = Faults::default();
    let changes = match guard {
        Guard::LaneTakesStored
        | Guard::SweepFindsCalls
        | Guard::RemovalPauses
        | Guard::RemovalChecks => 0,
        Guard::LanesFollowPause => {
            faults.suspensions = 1;
            0
        }
        Guard::ChangeRemovesLeftovers => {
            faults.restarts = 1;
            1
        }
        _ => 1,
    };
    Setup { changes, faults, without: Some(guard), ..Setup::default() }
}
