//! The searches of shares that tests and the program make.

use super::setup::{Faults, Setup};
use crate::guard::Guard;

const NO_FAULTS: Faults =
    Faults { crashes: 0, stops: 0, outages: 0, lost_writes: 0, joins: 0, leaves: 0, changes: 0 };

/// Bounds with a name.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// What the search covers.
    pub name: &'static str,
    /// The bounds.
    pub setup: Setup,
}

fn bounds(name: &'static str, faults: Faults, setup: Setup) -> Bounds {
    Bounds { name, setup: Setup { faults, ..setup } }
}

/// Returns the searches of each test run.
#[must_use]
pub fn small() -> Vec<Bounds> {
    let two = Setup::default();
    let one_slot = Setup { total: 1, next_total: 1, ..two };
    vec![
        bounds("crash and lost write", Faults { crashes: 1, lost_writes: 1, ..NO_FAULTS }, two),
        bounds("stop", Faults { stops: 1, ..NO_FAULTS }, one_slot),
        bounds("outage", Faults { outages: 1, ..NO_FAULTS }, one_slot),
        bounds(
            "lower total",
            Faults { changes: 1, ..NO_FAULTS },
            Setup { total: 2, next_total: 1, ..two },
        ),
        bounds(
            "higher total",
            Faults { changes: 1, ..NO_FAULTS },
            Setup { total: 1, next_total: 2, max_inflight: 1, ..two },
        ),
        bounds(
            "worker added",
            Faults { joins: 1, lost_writes: 1, ..NO_FAULTS },
            Setup { workers: 1, ..two },
        ),
        bounds("worker asked to end", Faults { leaves: 1, ..NO_FAULTS }, two),
        bounds(
            "rate",
            Faults { joins: 1, lost_writes: 1, crashes: 1, ..NO_FAULTS },
            Setup { has_rate: true, workers: 1, ..one_slot },
        ),
    ]
}

/// Returns the searches that run on demand: each two kinds of faults with two workers that share
/// two slots.
#[must_use]
pub fn large() -> Vec<Bounds> {
    let setup = Setup { next_total: 1, ..Setup::default() };
    let pairs = combinations(2).into_iter();
    pairs.map(|faults| bounds("shares of two workers, two faults", faults, setup)).collect()
}

/// Returns all combinations of this number of kinds of faults, with each fault once.
fn combinations(kinds: u32) -> Vec<Faults> {
    let masks = (0_u8..1 << 7).filter(|mask| mask.count_ones() == kinds);
    masks
        .map(|mask| {
            let of = |bit: u8| u8::from(mask & (1 << bit) != 0);
            Faults {
                crashes: of(0),
                stops: of(1),
                outages: of(2),
                lost_writes: of(3),
                joins: of(4),
                leaves: of(5),
                changes: of(6),
            }
        })
        .collect()
}

/// Returns the bounds in which the checker finds that a guard is missing.
#[must_use]
pub fn without(guard: Guard) -> Setup {
    let faults = match guard {
        Guard::DeadShareReturns => Faults { crashes: 1, ..NO_FAULTS },
        Guard::ShareLapses => Faults { stops: 1, ..NO_FAULTS },
        Guard::LeaseFromSending => Faults { outages: 1, ..NO_FAULTS },
        Guard::ShareCountsOpen
        | Guard::ShareFromFree
        | Guard::LowerShareFirst
        | Guard::LowerRateFirst => Faults { joins: 1, ..NO_FAULTS },
        _ => NO_FAULTS,
    };
    let workers = if faults.joins > 0 { 1 } else { 2 };
    let has_rate = guard == Guard::LowerRateFirst;
    Setup { workers, has_rate, faults, without: Some(guard), ..Setup::default() }
}
