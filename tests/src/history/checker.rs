//! What the system promises of each call, held against a history.
//!
//! Every call that was answered with 202 ends in exactly one of done, dead, cancelled; none is lost; none starts after a
//! confirmed cancellation; none runs twice unless a worker or its lease died. And what follows from that: whoever wants
//! to be told the end is told it, once; what was refused does not run; a gateway never lets a client wait.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::RangeInclusive,
    time::Duration,
};

use call::Call;

use super::event::{CallNumber, Event, Excuse, Step, What};

mod call;
mod runs;

/// The settings of the system that a history came from, as far as they decide what is right.
#[derive(Clone, Debug)]
pub struct Rules {
    /// How long a worker may be silent about a call before another has it.
    pub lease: Duration,
    /// How long a run may take before its worker breaks it off, which is a failure of the run.
    pub time_limit: Duration,
    /// How many runs of a call may fail.
    pub attempts: u64,
    /// Statuses after which a call is run again.
    pub retried: BTreeSet<u16>,
    /// A run that a worker began before it heard of the cancellation may be seen by the function this much after the
    /// client heard of it: the two are told by two connections.
    pub slack: Duration,
}

/// What a history comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What became of how many calls.
    pub tally: Tally,
    /// The promises that were broken.
    pub broken: Vec<Broken>,
}

/// What became of how many calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Calls that were answered with 202.
    pub accepted: u64,
    /// Of all calls, answered with 202 or not, those that are done.
    pub done: u64,
    /// Those that are dead.
    pub dead: u64,
    /// Those that were cancelled.
    pub cancelled: u64,
    /// Runs that were no retry of a failed run: what a crash costs.
    pub rerun: u64,
    /// Results that were posted again though the receiver had taken them.
    pub retold: u64,
    /// Calls that were answered with 202 and have no end.
    pub lost: u64,
}

/// A promise that was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The call.
    pub call: CallNumber,
    /// The promise.
    pub rule: Rule,
}

/// The promises, by how they are broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// 202, and then nothing: not on the queue, and no end.
    Lost,
    /// It, or its result, was still on the way at the last look.
    Unfinished,
    /// It has two ends, or its caller was told two.
    TwoEnds,
    /// A run started after the cancellation was confirmed.
    StartedAfterCancel,
    /// It ran again though no run of it had failed and no worker or lease had died.
    RanAgain,
    /// More runs failed than there are attempts.
    RanTooOften,
    /// It is dead though it had attempts left.
    DiedEarly,
    /// It ran though the client was told that it is not stored.
    RanThoughRefused,
    /// Its caller was not told the end.
    NotTold,
    /// Its caller was told again what it had taken, and no worker or lease had died.
    ToldAgain,
    /// The client had no answer in time.
    Hung,
    /// The client was refused for now, and not told when to try again.
    NoRetryAfter,
}

/// Holds a history against the rules.
#[must_use]
pub fn check(history: &[Event], rules: &Rules) -> Report {
    let mut steps: BTreeMap<CallNumber, Vec<(Duration, Step)>> = BTreeMap::new();
    for event in history {
        if let What::Step(call, step) = event.what {
            steps.entry(call).or_default().push((event.at, step));
        }
    }
    let excuses = excuses(history);
    let mut report = Report::default();
    for (number, steps) in steps {
        let (tally, broken) = Call::new(steps, &excuses, rules).check();
        report.tally.add(&tally);
        report.broken.extend(broken.into_iter().map(|rule| Broken { call: number, rule }));
    }
    report
}

/// The times in which a worker or its lease may have died.
fn excuses(history: &[Event]) -> Vec<RangeInclusive<Duration>> {
    let (mut excuses, mut begun) = (Vec::new(), Vec::new());
    for event in history {
        match event.what {
            What::Fault { excuse: Excuse::Once, .. } => excuses.push(event.at..=event.at),
            What::Fault { excuse: Excuse::Begins, .. } => begun.push(event.at),
            What::Fault { excuse: Excuse::Ends, .. } => {
                excuses.extend(begun.pop().map(|since| since..=event.at));
            }
            What::Fault { excuse: Excuse::None, .. } | What::Step(..) => {}
        }
    }
    excuses.extend(begun.into_iter().map(|since| since..=Duration::MAX));
    excuses
}

// === impl Tally ===

impl Tally {
    /// Adds another.
    pub fn add(&mut self, other: &Self) {
        self.accepted += other.accepted;
        self.done += other.done;
        self.dead += other.dead;
        self.cancelled += other.cancelled;
        self.rerun += other.rerun;
        self.retold += other.retold;
        self.lost += other.lost;
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost => "lost: it was answered 202 and has no end",
            Self::Unfinished => "unfinished: it, or its result, is still on the way",
            Self::TwoEnds => "two ends",
            Self::StartedAfterCancel => "started after its cancellation was confirmed",
            Self::RanAgain => "ran again though no run had failed and no worker or lease had died",
            Self::RanTooOften => "ran more often than it has attempts",
            Self::DiedEarly => "a dead letter though it had attempts left",
            Self::RanThoughRefused => "ran though it was refused",
            Self::NotTold => "its caller was not told the end",
            Self::ToldAgain => "its caller was told again what it had taken",
            Self::Hung => "the gateway did not answer in time",
            Self::NoRetryAfter => "refused for now without saying when to try again",
        })
    }
}

#[cfg(test)]
mod tests;
