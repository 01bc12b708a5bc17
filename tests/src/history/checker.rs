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

use super::event::{CallNumber, Event, Excuse, Step, What};
use runs::{Run, RunEnd};

mod runs;

/// What a caller is told of a call that was cancelled.
const CANCELLED: u16 = asyncqueue::cancel::CANCELLED;

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

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Done,
    Dead,
    Cancelled,
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
        let call = Call { runs: runs::of(&steps), steps, excuses: &excuses, rules };
        let (mut tally, mut broken) = (call.tally(), BTreeSet::new());
        call.check_end(&mut broken);
        call.check_runs(&mut broken, &mut tally);
        call.check_caller(&mut broken, &mut tally);
        call.check_client(&mut broken);
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

/// What was seen of one call.
struct Call<'a> {
    steps: Vec<(Duration, Step)>,
    runs: Vec<Run>,
    /// When a worker or its lease may have died.
    excuses: &'a [RangeInclusive<Duration>],
    rules: &'a Rules,
}

impl Call<'_> {
    fn tally(&self) -> Tally {
        let (end, accepted) = (self.end(), self.is_accepted());
        Tally {
            accepted: u64::from(accepted),
            done: u64::from(end == Some(End::Done)),
            dead: u64::from(end == Some(End::Dead)),
            cancelled: u64::from(end == Some(End::Cancelled)),
            lost: u64::from(accepted && end.is_none() && !self.saw(Step::LeftQueued)),
            ..Tally::default()
        }
    }

    /// How it ended. A cancellation that was confirmed is its end, unless another had come before it.
    fn end(&self) -> Option<End> {
        let other = if self.saw(Step::Buried) {
            Some(End::Dead)
        } else {
            self.runs.iter().any(|run| self.succeeded(run)).then_some(End::Done)
        };
        match self.cancelled_at() {
            Some(at) if other.is_none() || !self.ended_before(at) => Some(End::Cancelled),
            _ => other,
        }
    }

    /// Whether it had ended otherwise when its cancellation was confirmed: its caller says so, or, where nobody is told,
    /// its last run does.
    fn ended_before(&self, cancelled: Duration) -> bool {
        match self.told().next() {
            Some((_, status, _)) => status != CANCELLED,
            None => self.runs.last().is_some_and(|run| run.returned_before(cancelled)),
        }
    }

    fn check_end(&self, broken: &mut BTreeSet<Rule>) {
        let end = self.end();
        if self.saw(Step::LeftQueued) || self.saw(Step::LeftResult) {
            broken.insert(Rule::Unfinished);
        } else if self.is_accepted() && end.is_none() {
            broken.insert(Rule::Lost);
        }
        let buried = self.steps.iter().filter(|(_, step)| *step == Step::Buried).count();
        let statuses: BTreeSet<u16> = self.told().map(|(_, status, _)| status).collect();
        let is_dead_and_more = buried > 0 && (end != Some(End::Dead) || statuses.contains(&CANCELLED));
        if buried > 1 || statuses.len() > 1 || is_dead_and_more {
            broken.insert(Rule::TwoEnds);
        }
    }

    fn check_runs(&self, broken: &mut BTreeSet<Rule>, tally: &mut Tally) {
        let Some(first) = self.runs.first() else { return };
        for pair in self.runs.windows(2) {
            let (run, next) = (&pair[0], &pair[1]);
            if !self.failed_before(run, next.started) {
                tally.rerun += 1;
                if !self.is_excused(run.started, next.started) {
                    broken.insert(Rule::RanAgain);
                }
            }
        }
        let (last, over) = (
            self.runs.last().unwrap_or(first).started,
            self.steps.last().map_or(first.started, |(at, _)| *at),
        );
        // A delivery that was lost has counted, too, as an attempt.
        let excused = self.is_excused(self.steps.first().map_or(first.started, |(at, _)| *at), over);
        let failed = self.runs.iter().filter(|run| self.failed_before(run, over)).count() as u64;
        if failed > self.rules.attempts && !excused {
            broken.insert(Rule::RanTooOften);
        }
        if self.saw(Step::Buried) && failed < self.rules.attempts && !excused {
            broken.insert(Rule::DiedEarly);
        }
        if self.cancelled_at().is_some_and(|at| last > at + self.rules.slack) {
            broken.insert(Rule::StartedAfterCancel);
        }
        if self.is_refused() {
            broken.insert(Rule::RanThoughRefused);
        }
    }

    fn check_caller(&self, broken: &mut BTreeSet<Rule>, tally: &mut Tally) {
        let told: Vec<_> = self.told().collect();
        for pair in told.windows(2) {
            let ((at, _, taken), (again, ..)) = (pair[0], pair[1]);
            if taken {
                tally.retold += 1;
                if !self.is_excused(at, again) {
                    broken.insert(Rule::ToldAgain);
                }
            }
        }
        let wants = self.steps.iter().any(|(_, step)| matches!(step, Step::Submitted { callback: true }));
        let is_heard = told.iter().any(|(.., taken)| *taken);
        let is_kept = self.saw(Step::ResultBuried) || self.saw(Step::LeftResult);
        if wants && self.end().is_some() && !is_heard && !is_kept {
            broken.insert(Rule::NotTold);
        }
    }

    fn check_client(&self, broken: &mut BTreeSet<Rule>) {
        for (_, step) in &self.steps {
            match step {
                Step::Hung => {
                    broken.insert(Rule::Hung);
                }
                Step::Answered { status: 429 | 503 | 507, retry_after: false } => {
                    broken.insert(Rule::NoRetryAfter);
                }
                _ => {}
            }
        }
    }

    fn saw(&self, wanted: Step) -> bool {
        self.steps.iter().any(|(_, step)| *step == wanted)
    }

    fn answers(&self) -> impl Iterator<Item = u16> {
        self.steps.iter().filter_map(|(_, step)| match step {
            Step::Answered { status, .. } => Some(*status),
            _ => None,
        })
    }

    fn is_accepted(&self) -> bool {
        self.answers().any(|status| status == 202)
    }

    /// Whether each answer says that it is not stored. 503 says that it may be; so does silence.
    fn is_refused(&self) -> bool {
        let may_be_stored = self.steps.iter().any(|(_, step)| {
            matches!(step, Step::Answered { status: 202 | 503, .. } | Step::Unanswered | Step::Hung)
        });
        !may_be_stored && self.answers().next().is_some()
    }

    fn cancelled_at(&self) -> Option<Duration> {
        self.steps.iter().find_map(|(at, step)| match step {
            Step::CancelAnswered { status: 202 } => Some(*at),
            _ => None,
        })
    }

    fn told(&self) -> impl Iterator<Item = (Duration, u16, bool)> {
        self.steps.iter().filter_map(|(at, step)| match step {
            Step::Told { status, taken } => Some((*at, *status, *taken)),
            _ => None,
        })
    }

    fn succeeded(&self, run: &Run) -> bool {
        matches!(run.end, Some((_, RunEnd::Returned(status))) if !self.rules.retried.contains(&status))
    }

    /// Whether a run had failed at a time, so that the next may follow it.
    fn failed_before(&self, run: &Run, time: Duration) -> bool {
        match run.end {
            Some((at, RunEnd::Returned(status))) => at <= time && self.rules.retried.contains(&status),
            Some((at, RunEnd::Failed)) => at <= time,
            // Cut off at its time limit; its worker's end of the connection may be closed before ours.
            Some((at, RunEnd::BrokenOff)) => self.is_over_limit(run, at.min(time)),
            None => self.is_over_limit(run, time),
        }
    }

    fn is_over_limit(&self, run: &Run, time: Duration) -> bool {
        time.saturating_sub(run.started) >= self.rules.time_limit
    }

    /// Whether a worker or its lease may have died so that what was first seen at `first` comes again at `again`. What
    /// begins within a lease after the fault may have been delivered before it.
    fn is_excused(&self, first: Duration, again: Duration) -> bool {
        let since = first.saturating_sub(self.rules.lease);
        self.excuses.iter().any(|excuse| *excuse.start() <= again && since <= *excuse.end())
    }
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
