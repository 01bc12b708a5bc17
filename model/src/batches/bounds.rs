//! The searches of batches that tests and the program make.

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

const NONE: Faults = Faults { failures: 1, crashes: 0, leases: 0, windows: 0, purges: 0 };

/// Returns the searches of each test run.
#[must_use]
pub fn small() -> Vec<Bounds> {
    let bounds = |name, faults| Bounds { name, setup: Setup { faults, ..Setup::default() } };
    let cancels =
        |bounds: Bounds| Bounds { setup: Setup { cancels_rest: true, ..bounds.setup }, ..bounds };
    let swept = |bounds: Bounds| Bounds { setup: Setup { sweeps: true, ..bounds.setup }, ..bounds };
    vec![
        bounds("a batch, and two crashes", Faults { crashes: 2, ..NONE }),
        bounds("two workers have a call", Faults { crashes: 1, leases: 1, ..NONE }),
        bounds("the window passes", Faults { crashes: 1, windows: 1, leases: 1, ..NONE }),
        swept(bounds("a call is purged", Faults { crashes: 1, purges: 1, ..NONE })),
        cancels(bounds("a failure cancels the rest", Faults { crashes: 1, leases: 1, ..NONE })),
    ]
}

/// Returns the searches that run on demand: two crashes, and all faults together.
#[must_use]
pub fn large() -> Vec<Bounds> {
    let faults = Faults { failures: 2, crashes: 2, leases: 1, windows: 1, purges: 1 };
    let setup = Setup { sweeps: true, faults, ..Setup::default() };
    let cancels = Setup { cancels_rest: true, ..setup };
    vec![
        Bounds { name: "a batch with all faults", setup },
        Bounds { name: "a batch that is cancelled, with all faults", setup: cancels },
    ]
}

/// Returns the bounds in which the checker finds that a guard is missing.
#[must_use]
pub fn without(guard: Guard) -> Setup {
    let setup = Setup { faults: NONE, without: Some(guard), ..Setup::default() };
    let with = |faults| Setup { faults, ..setup };
    match guard {
        Guard::BatchEndBeforeAck => Setup { sweeps: true, ..with(Faults { crashes: 1, ..NONE }) },
        Guard::BatchFirstEndWins => with(Faults { leases: 1, ..NONE }),
        Guard::BatchReadsEnds => with(Faults { crashes: 1, windows: 1, ..NONE }),
        Guard::BatchRepeatReads | Guard::BatchRepeatCounts | Guard::BatchReportKept => {
            with(Faults { crashes: 1, ..NONE })
        }
        Guard::BatchCallbackHasId => with(Faults { crashes: 1, ..NONE }),
        Guard::BatchCancelsBeforeAck | Guard::BatchRepeatCancels => {
            Setup { cancels_rest: true, ..with(Faults { crashes: 1, ..NONE }) }
        }
        _ => setup,
    }
}
