//! The searches that tests and the program make: small bounds for each test run, and for each guard
//! the configuration in which the checker finds that it is missing.

use crate::{
    guard::Guard,
    life::setup::{Broadcast, Faults, Oversized, Setup},
    submission::{Request, Submission},
};

const NO_FAULTS: Faults = Faults {
    crashes: 0,
    pauses: 0,
    outages: 0,
    lost_acks: 0,
    leader_changes: 0,
    consumer_losses: 0,
    recreations: 0,
    hand_backs: 0,
    platform_failures: 0,
    expiries: 0,
    windows: 0,
    aborts: 0,
};

/// Bounds with a name.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// What the search covers.
    pub name: &'static str,
    /// The bounds.
    pub setup: Setup,
}

fn bounds(name: &'static str, setup: Setup) -> Bounds {
    Bounds { name, setup: Setup { broadcast: broadcast(setup.faults), ..setup } }
}

/// Returns the slowest broadcast with which the rules are kept.
#[must_use]
pub fn broadcast(faults: Faults) -> Broadcast {
    if faults.leader_changes + faults.consumer_losses > 0 {
        Broadcast::Prompt
    } else {
        Broadcast::Slow
    }
}

/// Returns the searches of each test run. Together they take less than a minute.
#[must_use]
pub fn small() -> Vec<Bounds> {
    let mut all = small_one();
    all.extend(small_both());
    all
}

fn two() -> Setup {
    Setup { workers: 2, max_attempts: 2, ..Setup::default() }
}

/// Returns the searches with one call.
fn small_one() -> Vec<Bounds> {
    vec![
        bounds("no faults", Setup { cancels: 1, ..two() }),
        bounds(
            "crash and pause, cancelled twice",
            Setup { cancels: 2, faults: Faults { crashes: 1, pauses: 1, ..NO_FAULTS }, ..two() },
        ),
        bounds(
            "crash and pause without callbacks",
            Setup {
                callbacks: false,
                cancels: 1,
                faults: Faults { crashes: 1, pauses: 1, ..NO_FAULTS },
                ..two()
            },
        ),
        bounds(
            "leader change and lost ack",
            Setup {
                cancels: 1,
                faults: Faults { leader_changes: 1, lost_acks: 1, ..NO_FAULTS },
                ..two()
            },
        ),
        bounds(
            "leader change, lost ack and outages at one worker",
            Setup {
                faults: Faults { leader_changes: 1, lost_acks: 1, outages: 2, ..NO_FAULTS },
                workers: 1,
                ..two()
            },
        ),
        bounds(
            "outage, hand back and failure of the platform",
            Setup {
                cancels: 1,
                faults: Faults { outages: 1, hand_backs: 1, platform_failures: 1, ..NO_FAULTS },
                ..two()
            },
        ),
        bounds(
            "outage and hand back after a pause",
            Setup { faults: Faults { outages: 1, hand_backs: 1, pauses: 1, ..NO_FAULTS }, ..two() },
        ),
        bounds(
            "expiry, crash and pause",
            Setup {
                cancels: 1,
                max_attempts: 1,
                faults: Faults { expiries: 1, crashes: 1, pauses: 1, ..NO_FAULTS },
                ..two()
            },
        ),
        bounds(
            "dead letters after the duplicate window",
            Setup {
                max_attempts: 1,
                cancels: 1,
                faults: Faults { windows: 1, crashes: 1, pauses: 1, ..NO_FAULTS },
                ..two()
            },
        ),
        bounds(
            "gateway stops in a cancellation that is repeated",
            Setup { cancels: 2, faults: Faults { aborts: 1, crashes: 1, ..NO_FAULTS }, ..two() },
        ),
        bounds(
            "consumer recreated",
            Setup {
                cancels: 1,
                faults: Faults { consumer_losses: 1, crashes: 1, ..NO_FAULTS },
                ..two()
            },
        ),
        bounds(
            "result that does not fit",
            Setup {
                cancels: 1,
                oversized: Oversized::Result,
                faults: Faults { crashes: 1, ..NO_FAULTS },
                ..two()
            },
        ),
        bounds(
            "dead letter that does not fit",
            Setup {
                cancels: 1,
                oversized: Oversized::DeadLetter,
                faults: Faults { crashes: 1, ..NO_FAULTS },
                ..two()
            },
        ),
    ]
}

/// Returns the searches with two calls that have the same id.
fn small_both() -> Vec<Bounds> {
    let both = || Setup { calls: 2, max_attempts: 1, ..two() };
    vec![
        bounds(
            "stream recreated, with a cancellation",
            Setup { cancels: 1, faults: Faults { recreations: 1, ..NO_FAULTS }, ..both() },
        ),
        bounds(
            "stream recreated while a worker is paused",
            Setup {
                callbacks: false,
                faults: Faults { recreations: 1, pauses: 1, ..NO_FAULTS },
                ..both()
            },
        ),
        bounds(
            "two calls with one id, cancelled and crashed",
            Setup { cancels: 1, faults: Faults { crashes: 1, ..NO_FAULTS }, ..both() },
        ),
        bounds(
            "acks in batches",
            Setup {
                workers: 1,
                slots: 2,
                max_attempts: 2,
                faults: Faults { leader_changes: 1, lost_acks: 1, ..NO_FAULTS },
                ..both()
            },
        ),
    ]
}

/// Returns the searches that run on demand: all combinations of three kinds of faults with one
/// call, and of two kinds with two calls that have the same id.
#[must_use]
pub fn large() -> Vec<Bounds> {
    let mut all = Vec::new();
    for callbacks in [true, false] {
        let one = Setup { workers: 2, max_attempts: 2, cancels: 1, callbacks, ..Setup::default() };
        for faults in combinations(3) {
            all.push(bounds("one call, three faults", Setup { faults, ..one }));
        }
        for faults in combinations(2) {
            let two = Setup { calls: 2, workers: 1, max_attempts: 1, faults, ..one };
            all.push(bounds("two calls, two faults", two));
            all.push(bounds("two calls in two slots", Setup { slots: 2, cancels: 0, ..two }));
        }
    }
    all
}

/// Returns all combinations of this number of kinds of faults, with each fault once.
fn combinations(kinds: u32) -> Vec<Faults> {
    let masks = (0_u16..1 << 12).filter(|mask| mask.count_ones() == kinds);
    masks
        .map(|mask| {
            let of = |bit: u16| u8::from(mask & (1 << bit) != 0);
            Faults {
                crashes: of(0),
                pauses: of(1),
                outages: of(2),
                lost_acks: of(3),
                leader_changes: of(4),
                recreations: of(5),
                hand_backs: of(6),
                platform_failures: of(7),
                expiries: of(8),
                windows: of(9),
                aborts: of(10),
                consumer_losses: of(11),
            }
        })
        .collect()
}

/// Returns the bounds in which the checker finds that a guard is missing. Returns `None` for a
/// guard of another part than the life of calls.
#[must_use]
pub fn without(guard: Guard) -> Option<Setup> {
    let faults = match guard {
        Guard::StreamFirstSequence => Faults { recreations: 1, ..NO_FAULTS },
        Guard::WorkerLooksUpTombstone | Guard::CancelRemovesMessage => {
            Faults { pauses: 1, ..NO_FAULTS }
        }
        Guard::WorkerClaims | Guard::WorkerLeavesSlot | Guard::ConfirmByKind => {
            Faults { leader_changes: 1, ..NO_FAULTS }
        }
        Guard::WorkerDropsStale | Guard::PoisonWaits => {
            Faults { pauses: 1, outages: 1, ..NO_FAULTS }
        }
        Guard::CancelConfirmNeedsLease => Faults { outages: 1, pauses: 1, ..NO_FAULTS },
        Guard::WorkerCountsNoRedelivery => Faults { outages: 1, ..NO_FAULTS },
        Guard::HandBackIsUncounted => Faults { hand_backs: 1, ..NO_FAULTS },
        Guard::NakNeedsLease => Faults { outages: 1, hand_backs: 1, ..NO_FAULTS },
        Guard::PoisonIsNotInvoked | Guard::ResultBeforeAck | Guard::ResultDecidesDeadLetter => {
            Faults { crashes: 1, ..NO_FAULTS }
        }
        Guard::DeadLetterLookedUp => Faults { crashes: 1, windows: 1, ..NO_FAULTS },
        Guard::SettleRepeats | Guard::NakDropsClaim => Faults { lost_acks: 1, ..NO_FAULTS },
        _ => NO_FAULTS,
    };
    let one = Setup { without: Some(guard), faults, ..Setup::default() };
    let retried = Setup { max_attempts: 2, ..one };
    let cancelled = Setup { cancels: 1, ..one };
    let setup = match guard {
        Guard::StreamFirstSequence => Setup { calls: 2, workers: 2, callbacks: false, ..one },
        Guard::TombstoneKeyedBySequence => Setup { calls: 2, ..cancelled },
        Guard::TombstoneFirstWins => Setup { callbacks: false, ..cancelled },
        Guard::WorkerLooksUpTombstone
        | Guard::WorkerChecksCancelled
        | Guard::CancelWaits
        | Guard::CancelRemovesMessage
        | Guard::ResultStoredOnce
        | Guard::ResultDecidesCancel => cancelled,
        Guard::CancelConfirmNeedsLease => {
            Setup { workers: 2, max_attempts: 2, broadcast: Broadcast::Slow, ..cancelled }
        }
        Guard::WorkerClaims => Setup { slots: 2, ..one },
        Guard::WorkerDropsStale | Guard::PoisonWaits => Setup { workers: 2, ..retried },
        Guard::WorkerCountsNoRedelivery => Setup { slots: 2, ..retried },
        Guard::NakNeedsLease => Setup { workers: 2, max_attempts: 3, ..one },
        Guard::ConfirmByKind => Setup { calls: 2, slots: 2, ..retried },
        Guard::ResultDecidesDeadLetter | Guard::SettleRepeats | Guard::NakDropsClaim => retried,
        Guard::ResultRefusalIsFinal => Setup { oversized: Oversized::Result, ..one },
        Guard::DeadLetterShrinks => Setup { oversized: Oversized::DeadLetter, ..one },
        Guard::WorkerLeavesSlot
        | Guard::HandBackIsUncounted
        | Guard::PoisonIsNotInvoked
        | Guard::ResultBeforeAck
        | Guard::DeadLetterLookedUp => one,
        _ => return None,
    };
    Some(setup)
}

/// Returns the searches of submissions: who uses an id or a key twice differs between them.
#[must_use]
pub fn submissions(without: Option<Guard>) -> Vec<Submission> {
    let request = |id, key, content| Request { id, key, content };
    let requests = [
        // A chain: one id for two calls.
        vec![request(Some(1), None, 1), request(Some(1), None, 2)],
        // Two clients send the same call.
        vec![request(Some(1), None, 1), request(Some(1), None, 1), request(Some(1), None, 2)],
        vec![request(None, Some(1), 1), request(None, Some(1), 2)],
        vec![request(Some(1), Some(1), 1), request(Some(1), Some(2), 2), request(Some(1), None, 1)],
        vec![request(Some(1), Some(1), 1), request(Some(2), Some(1), 1)],
        vec![request(None, None, 1), request(None, None, 1)],
    ];
    let search = |requests| Submission { requests, lost_answers: 2, windows: 1, without };
    requests.into_iter().map(search).collect()
}
