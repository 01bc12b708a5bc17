//! Divides the limits of a queue among its workers. Pure.
//!
//! The workers of a queue have to agree on this, also while they are of different versions.

use std::collections::{BTreeMap, BTreeSet};

use super::{FunctionShare, Shares, WHOLE_RATE, WorkerShare};
use crate::names::FunctionName;

/// What a worker needs to know to renew its share.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// The id of the worker.
    pub worker: &'a str,
    /// Total number of open invocations, if it is limited.
    pub concurrency: Option<u32>,
    /// Whether the rate is limited.
    pub has_rate: bool,
    /// Maximum number of calls that the worker runs.
    pub max_inflight: u32,
    /// Number of invocations that it has open.
    pub open: u32,
    /// Whether it shuts down.
    pub leaving: bool,
    /// Whether long calls use all its slots.
    pub busy: bool,
    /// The functions with limits.
    pub functions: &'a BTreeMap<FunctionName, FunctionClaim>,
}

/// What a worker needs to know to renew its share in the limits of a function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FunctionClaim {
    /// Total number of open invocations, if it is limited.
    pub concurrency: Option<u32>,
    /// Whether the rate is limited.
    pub has_rate: bool,
    /// Number of invocations that the worker has open.
    pub open: u32,
}

/// What follows when a worker renews its share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// The shares to write.
    pub shares: Shares,
    /// The share of this worker in them.
    pub own: WorkerShare,
    /// Number of invocations that may be open from now on. It is less than the share while more
    /// are open than the worker is entitled to.
    pub slots: u32,
    /// The same for each function.
    pub function_slots: BTreeMap<FunctionName, u32>,
}

/// The workers that share something in equal parts, seen from one of them.
#[derive(Clone, Copy, Debug)]
struct Members {
    count: usize,
    /// Position of this worker. `None`: it is entitled to nothing.
    position: Option<usize>,
}

/// Returns the shares after this worker has renewed its own, without those of the `dead` workers.
///
/// Each worker is entitled to an equal part. It takes no more than what the others leave, and gives
/// up at once what is above that, except for invocations that are open. So the sum exceeds the
/// total only by invocations that are open already, and none starts before enough of them have
/// ended. They are there after the total was lowered, where a limit is new, and in a worker that
/// returns after its lease.
#[must_use]
pub fn renew(shares: &Shares, dead: &BTreeSet<String>, claim: &Claim<'_>) -> Renewal {
    let mut workers = shares.workers.clone();
    workers.retain(|worker, _| !dead.contains(worker));
    let own = workers.remove(claim.worker).unwrap_or_default();
    let sum = |of: fn(&WorkerShare) -> u32| workers.values().map(of).fold(0, u32::saturating_add);
    let members = Members::of(&workers, claim.worker, !claim.leaving, |share| !share.leaving);
    let slots = claim.concurrency.map_or(0, |total| {
        let target = members.part(total, 0).min(claim.max_inflight);
        next_share(total, sum(|share| share.slots), target)
    });
    let rate = if claim.has_rate {
        next_share(WHOLE_RATE, sum(|share| share.rate), members.part(WHOLE_RATE, 0))
    } else {
        0
    };
    let (functions, function_slots) = renew_functions(&workers, claim);
    let own = WorkerShare {
        beat: own.beat.wrapping_add(1),
        slots: claim.concurrency.map_or(0, |_| slots.max(claim.open)),
        rate,
        leaving: claim.leaving,
        busy: claim.busy,
        functions,
    };
    workers.insert(claim.worker.to_owned(), own.clone());
    Renewal { shares: Shares { workers }, own, slots, function_slots }
}

/// Returns the shares of this worker in the limits of functions, and how many invocations of each
/// may be open from now on. What can't be divided goes to another worker for each function.
fn renew_functions(
    others: &BTreeMap<String, WorkerShare>,
    claim: &Claim<'_>,
) -> (BTreeMap<String, FunctionShare>, BTreeMap<FunctionName, u32>) {
    let is_member = !claim.leaving && !claim.busy;
    let members =
        Members::of(others, claim.worker, is_member, |share| !share.leaving && !share.busy);
    let (mut shares, mut allowed) = (BTreeMap::new(), BTreeMap::new());
    for (function, of) in claim.functions {
        let (name, rotation) = (function.to_string(), rotation(function));
        let sum = |of: fn(&FunctionShare) -> u32| {
            let shares = others.values().filter_map(|share| share.functions.get(&name));
            shares.map(of).fold(0, u32::saturating_add)
        };
        let slots = of.concurrency.map_or(0, |total| {
            let target = members.part(total, rotation).min(claim.max_inflight);
            next_share(total, sum(|share| share.slots), target)
        });
        let rate = if of.has_rate {
            let target = members.part(WHOLE_RATE, rotation);
            next_share(WHOLE_RATE, sum(|share| share.rate), target)
        } else {
            0
        };
        let share = FunctionShare { slots: of.concurrency.map_or(0, |_| slots.max(of.open)), rate };
        if share != FunctionShare::default() {
            shares.insert(name, share);
        }
        allowed.insert(function.clone(), slots);
    }
    (shares, allowed)
}

// === impl Members ===

impl Members {
    /// Counts the members among the other workers, and this one if it is a member.
    fn of(
        others: &BTreeMap<String, WorkerShare>,
        worker: &str,
        is_member: bool,
        are_members: fn(&WorkerShare) -> bool,
    ) -> Self {
        let members = || others.iter().filter(|(_, share)| are_members(share));
        let before = members().filter(|(other, _)| other.as_str() < worker).count();
        let count = members().count() + usize::from(is_member);
        Self { count, position: is_member.then_some(before) }
    }

    /// Returns the equal part of this worker. The members from the one at `rotation` on get what
    /// can't be divided.
    fn part(self, total: u32, rotation: usize) -> u32 {
        let Some(position) = self.position else { return 0 };
        let position = (position + rotation % self.count) % self.count;
        let workers = u32::try_from(self.count).unwrap_or(u32::MAX);
        let has_more = u32::try_from(position).is_ok_and(|position| position < total % workers);
        total / workers + u32::from(has_more)
    }
}

/// Returns a number that differs between functions and is the same in all workers, also in later
/// versions.
fn rotation(function: &FunctionName) -> usize {
    let name = function.to_string();
    name.bytes().fold(0, |hash, byte| (hash * 31 + usize::from(byte)) % 0xffff)
}

/// Returns the shares without this worker.
#[must_use]
pub fn leave(shares: &Shares, worker: &str) -> Shares {
    let mut workers = shares.workers.clone();
    workers.remove(worker);
    Shares { workers }
}

/// Returns what a worker uses from now on: no more than what the others leave.
fn next_share(total: u32, others: u32, target: u32) -> u32 {
    target.min(total.saturating_sub(others))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WORKERS: [&str; 5] = ["a", "b", "c", "d", "e"];

    static NO_FUNCTIONS: BTreeMap<FunctionName, FunctionClaim> = BTreeMap::new();

    fn claim(worker: &str, concurrency: u32) -> Claim<'_> {
        Claim {
            worker,
            concurrency: Some(concurrency),
            has_rate: true,
            max_inflight: 1000,
            open: 0,
            leaving: false,
            busy: false,
            functions: &NO_FUNCTIONS,
        }
    }

    fn renew(shares: &Shares, dead: &BTreeSet<String>, claim: &Claim<'_>) -> Shares {
        super::renew(shares, dead, claim).shares
    }

    fn slots(shares: &Shares) -> Vec<u32> {
        shares.workers.values().map(|share| share.slots).collect()
    }

    #[test]
    fn a_newcomer_gets_what_others_give_up() {
        let none = BTreeSet::new();
        let mut shares = renew(&Shares::default(), &none, &claim("a", 20));
        assert_eq!(slots(&shares), [20]);
        shares = renew(&shares, &none, &claim("b", 20));
        assert_eq!(slots(&shares), [20, 0]);
        // Its invocations are open, and none follows them.
        let renewal = super::renew(&shares, &none, &Claim { open: 17, ..claim("a", 20) });
        assert_eq!((renewal.own.slots, renewal.slots), (17, 10));
        shares = renewal.shares;
        shares = renew(&shares, &none, &claim("b", 20));
        assert_eq!(slots(&shares), [17, 3]);
        shares = renew(&shares, &none, &Claim { open: 2, ..claim("a", 20) });
        shares = renew(&shares, &none, &claim("b", 20));
        assert_eq!(slots(&shares), [10, 10]);
        let rates: Vec<_> = shares.workers.values().map(|share| share.rate).collect();
        assert_eq!(rates, [500_000, 500_000]);
    }

    #[test]
    fn the_share_of_a_dead_worker_is_divided() {
        let dead = BTreeSet::from(["b".to_owned()]);
        let mut shares = Shares::default();
        for _ in 0..2 {
            for worker in ["a", "b", "c"] {
                shares = renew(&shares, &BTreeSet::new(), &claim(worker, 20));
            }
        }
        assert_eq!(slots(&shares), [7, 7, 6]);
        shares = renew(&shares, &dead, &claim("c", 20));
        shares = renew(&shares, &dead, &claim("a", 20));
        assert_eq!(slots(&shares), [10, 10]);
    }

    #[test]
    fn a_worker_that_leaves_keeps_what_runs() {
        let none = BTreeSet::new();
        let mut shares = renew(&Shares::default(), &none, &claim("a", 4));
        let leaving = Claim { leaving: true, open: 3, ..claim("a", 4) };
        shares = renew(&shares, &none, &leaving);
        shares = renew(&shares, &none, &claim("b", 4));
        assert_eq!(slots(&shares), [3, 1]);
        assert_eq!(slots(&leave(&shares, "a")), [1]);
    }

    #[test]
    fn a_worker_takes_no_more_than_it_runs() {
        let small = Claim { max_inflight: 2, ..claim("a", 20) };
        assert_eq!(slots(&renew(&Shares::default(), &BTreeSet::new(), &small)), [2]);
    }

    #[test]
    fn a_limit_that_is_new_counts_what_is_open() {
        let none = BTreeSet::new();
        let open = Claim { open: 9, ..claim("a", 4) };
        let mut shares = renew(&Shares::default(), &none, &open);
        assert_eq!(slots(&shares), [9]);
        shares = renew(&shares, &none, &claim("b", 4));
        assert_eq!(slots(&shares), [9, 0]);
        shares = renew(&shares, &none, &Claim { open: 1, ..claim("a", 4) });
        shares = renew(&shares, &none, &claim("b", 4));
        assert_eq!(slots(&shares), [2, 2]);
    }

    fn functions(names: &[&str], total: u32, open: u32) -> BTreeMap<FunctionName, FunctionClaim> {
        let claim = FunctionClaim { concurrency: Some(total), has_rate: true, open };
        let name = |name: &&str| FunctionName::new(name, "ns").unwrap();
        names.iter().map(|function| (name(function), claim)).collect()
    }

    /// The slots of each worker for a function.
    fn slots_of(shares: &Shares, function: &str) -> Vec<u32> {
        let of = |share: &WorkerShare| share.functions.get(function).map_or(0, |share| share.slots);
        shares.workers.values().map(of).collect()
    }

    #[test]
    fn workers_share_the_limits_of_functions() {
        let (none, functions) = (BTreeSet::new(), functions(&["f"], 10, 0));
        let mut shares = Shares::default();
        for _ in 0..2 {
            for worker in ["a", "b", "c"] {
                let claim = Claim { functions: &functions, ..claim(worker, 100) };
                shares = renew(&shares, &none, &claim);
            }
        }
        let mut slots = slots_of(&shares, "f.ns");
        slots.sort_unstable();
        assert_eq!(slots, [3, 3, 4]);
        // A function without a limit has no entry.
        shares = renew(&shares, &none, &claim("a", 100));
        assert_eq!(slots_of(&shares, "f.ns")[0], 0);
        assert!(shares.workers["a"].functions.is_empty());
    }

    #[test]
    fn functions_that_run_one_call_at_a_time_have_different_workers() {
        let (none, names) = (BTreeSet::new(), ["f1", "f2", "f3", "f4", "f5", "f6"]);
        let functions = functions(&names, 1, 0);
        let mut shares = Shares::default();
        for _ in 0..2 {
            for worker in ["a", "b", "c"] {
                let claim = Claim { functions: &functions, ..claim(worker, 100) };
                shares = renew(&shares, &none, &claim);
            }
        }
        let of = |share: &WorkerShare| share.functions.values().map(|share| share.slots).sum();
        let sums: Vec<u32> = shares.workers.values().map(of).collect();
        assert_eq!(sums, [2, 2, 2]);
    }

    #[test]
    fn a_busy_worker_leaves_functions_to_others() {
        let none = BTreeSet::new();
        let (idle, running) = (functions(&["f", "g"], 1, 0), functions(&["f", "g"], 1, 1));
        let claims = |functions| Claim { functions, ..claim("a", 100) };
        let mut shares = renew(&Shares::default(), &none, &claims(&idle));
        shares = renew(&shares, &none, &Claim { functions: &idle, ..claim("b", 100) });
        assert_eq!(
            (slots_of(&shares, "f.ns"), slots_of(&shares, "g.ns")),
            (vec![1, 0], vec![1, 0])
        );
        // What it runs, it keeps.
        let busy = super::renew(&shares, &none, &Claim { busy: true, ..claims(&running) });
        assert!(busy.function_slots.values().all(|slots| *slots == 0), "{busy:?}");
        assert_eq!(slots_of(&busy.shares, "f.ns"), [1, 0]);
        shares = renew(&shares, &none, &Claim { busy: true, ..claims(&idle) });
        shares = renew(&shares, &none, &Claim { functions: &idle, ..claim("b", 100) });
        assert_eq!(
            (slots_of(&shares, "f.ns"), slots_of(&shares, "g.ns")),
            (vec![0, 1], vec![0, 1])
        );
    }

    #[test]
    fn a_worker_that_returns_starts_nothing_above_the_total() {
        let (none, dead) = (BTreeSet::new(), BTreeSet::from(["b".to_owned()]));
        let mut shares = Shares::default();
        for _ in 0..2 {
            shares = renew(&shares, &none, &claim("a", 2));
            shares = renew(&shares, &none, &claim("b", 2));
        }
        shares = renew(&shares, &dead, &claim("a", 2));
        assert_eq!(slots(&shares), [2]);
        // An invocation of `b` is still open, and `a` has two.
        for _ in 0..2 {
            let renewal = super::renew(&shares, &none, &Claim { open: 1, ..claim("b", 2) });
            assert_eq!((renewal.own.slots, renewal.slots), (1, 0));
            shares = renewal.shares;
        }
        let renewal = super::renew(&shares, &none, &Claim { open: 2, ..claim("a", 2) });
        assert_eq!((renewal.own.slots, renewal.slots), (2, 1));
        shares = renew(&renewal.shares, &none, &claim("b", 2));
        shares = renew(&shares, &none, &claim("a", 2));
        shares = renew(&shares, &none, &claim("b", 2));
        assert_eq!(slots(&shares), [1, 1]);
    }

    proptest! {
        #[test]
        fn no_revision_exceeds_the_total_of_a_function(
            total in 1_u32..20,
            steps in prop::collection::vec(
                (0_usize..5, 0_u32..20, any::<bool>(), any::<bool>()),
                1..100,
            ),
        ) {
            let (mut shares, f) = (Shares::default(), "f.ns");
            for (worker, open, dies, busy) in steps {
                let worker = WORKERS[worker];
                let own = shares.workers.get(worker).and_then(|share| share.functions.get(f));
                // A worker never has more open than its share.
                let open = open.min(own.map_or(0, |share| share.slots));
                let functions = functions(&["f"], total, open);
                let claim = Claim { busy, functions: &functions, ..claim(worker, 100) };
                let dead = shares.workers.keys().find(|other| *other != worker && dies);
                let dead = dead.cloned().into_iter().collect();
                let renewal = super::renew(&shares, &dead, &claim);
                shares = renewal.shares;
                prop_assert!(slots_of(&shares, f).iter().sum::<u32>() <= total);
                let own = shares.workers[worker].functions.get(f).copied().unwrap_or_default();
                prop_assert!(own.slots >= open);
                prop_assert!(renewal.function_slots.values().all(|slots| *slots <= own.slots));
                let rates = shares.workers.values().filter_map(|share| share.functions.get(f));
                prop_assert!(rates.map(|share| share.rate).sum::<u32>() <= WHOLE_RATE);
            }
        }

        #[test]
        fn no_revision_exceeds_the_total(
            total in 1_u32..60,
            steps in prop::collection::vec((0_usize..5, 0_u32..60, any::<bool>()), 1..100),
        ) {
            let mut shares = Shares::default();
            for (worker, open, dies) in steps {
                let worker = WORKERS[worker];
                let own = shares.workers.get(worker).map_or(0, |share| share.slots);
                // A worker never has more open than its share.
                let claim = Claim { open: open.min(own), ..claim(worker, total) };
                let dead = shares.workers.keys().find(|other| *other != worker && dies);
                let dead = dead.cloned().into_iter().collect();
                shares = renew(&shares, &dead, &claim);
                let rate: u32 = shares.workers.values().map(|share| share.rate).sum();
                prop_assert!(slots(&shares).iter().sum::<u32>() <= total);
                prop_assert!(rate <= WHOLE_RATE);
                prop_assert!(shares.workers[worker].slots >= claim.open);
            }
        }

        #[test]
        fn busy_workers_come_to_equal_parts(total in 1_u32..60, workers in 1_usize..=5) {
            // Each uses all that it may, and its invocations end before it renews its share.
            let mut allowed = [0; 5];
            let mut shares = Shares::default();
            for round in 0..6 {
                // The last ones come later.
                for (index, worker) in WORKERS.iter().take(workers.min(round + 2)).enumerate() {
                    let claim = Claim { open: allowed[index], ..claim(worker, total) };
                    let renewal = super::renew(&shares, &BTreeSet::new(), &claim);
                    allowed[index] = renewal.slots;
                    shares = renewal.shares;
                }
                prop_assert!(slots(&shares).iter().sum::<u32>() <= total);
            }
            prop_assert_eq!(allowed.iter().sum::<u32>(), total);
            let used = &allowed[..workers];
            prop_assert!(used.iter().max().unwrap() - used.iter().min().unwrap() <= 1);
        }

        #[test]
        fn idle_workers_come_to_equal_parts_in_two_rounds(
            total in 1_u32..60,
            workers in 1_usize..=5,
            before in prop::collection::vec(0_u32..12, 5),
        ) {
            let mut shares = Shares::default();
            let mut free = total;
            for (worker, slots) in WORKERS.iter().take(workers).zip(before) {
                let slots = slots.min(free);
                free -= slots;
                let share = WorkerShare { slots, ..WorkerShare::default() };
                shares.workers.insert((*worker).to_owned(), share);
            }
            for _ in 0..2 {
                for worker in WORKERS.iter().take(workers) {
                    shares = renew(&shares, &BTreeSet::new(), &claim(worker, total));
                }
            }
            let shares = slots(&shares);
            prop_assert_eq!(shares.iter().sum::<u32>(), total);
            prop_assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1);
        }
    }
}
