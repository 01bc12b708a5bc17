//! The rules, held against one call.

use std::{collections::BTreeSet, ops::RangeInclusive, time::Duration};

use super::{
    Rule, Rules, Tally,
    runs::{self, Run, RunEnd},
};
use crate::history::event::Step;

/// What a caller is told of a call that was cancelled.
const CANCELLED: u16 = asyncqueue::cancel::CANCELLED;

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Done,
    Dead,
    Cancelled,
}

/// What was seen of one call.
pub(super) struct Call<'a> {
    steps: Vec<(Duration, Step)>,
    runs: Vec<Run>,
    /// When a worker or its lease may have died.
    excuses: &'a [RangeInclusive<Duration>],
    rules: &'a Rules,
}

impl<'a> Call<'a> {
    pub(super) fn new(
        steps: Vec<(Duration, Step)>,
        excuses: &'a [RangeInclusive<Duration>],
        rules: &'a Rules,
    ) -> Self {
        Self { runs: runs::of(&steps), steps, excuses, rules }
    }

    /// What became of it, and the rules that it breaks.
    pub(super) fn check(&self) -> (Tally, BTreeSet<Rule>) {
        let (mut tally, mut broken) = (self.tally(), BTreeSet::new());
        self.check_end(&mut broken);
        self.check_runs(&mut broken, &mut tally);
        self.check_caller(&mut broken, &mut tally);
        self.check_client(&mut broken);
        (tally, broken)
    }

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
