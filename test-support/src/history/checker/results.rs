//! The result of a call, as its client read it or waited for it: it is there, it is that of the
//! invocation that ended the call, and it stays the same.

use std::{collections::BTreeSet, time::Duration};

use asyncqueue::EndState;

use super::{
    Rule,
    call::{CANCELLED, Call, EXPIRED},
    end::End,
    runs::{Run, RunEnd},
};
use crate::history::event::{Reported, ResultRead, SeenBody, SeenResult, Step};

/// The statuses that stand for an invocation without a whole response: none came, or not in time.
const NO_RESPONSE: [u16; 2] = [503, 504];

/// A result that a client got.
struct Got {
    asked: Duration,
    at: Duration,
    result: SeenResult,
}

impl Call<'_> {
    pub(super) fn check_results(&self, broken: &mut BTreeSet<Rule>) {
        let got: Vec<_> = self.got_results().collect();
        if got.iter().any(|got| !self.is_right(got)) {
            broken.insert(Rule::WrongResult);
        }
        // The first one that is stored counts.
        if got.windows(2).any(|pair| pair[0].result != pair[1].result) {
            broken.insert(Rule::TwoResults);
        }
        if got.iter().any(|got| self.has_started_after(got)) {
            broken.insert(Rule::StartedAfterResult);
        }
        for (at, step) in &self.steps {
            match step {
                Step::ResultRead { read, is_last: true, .. } if self.is_missing(*read) => {
                    broken.insert(Rule::ResultMissing);
                }
                Step::ResultRead { read: ResultRead::Other(_), .. } => {
                    broken.insert(Rule::WrongResult);
                }
                Step::WaitAnswered { asked, result: None } if self.has_missed(*asked, *at) => {
                    broken.insert(Rule::WaitMissed);
                }
                _ => {}
            }
        }
    }

    fn got_results(&self) -> impl Iterator<Item = Got> {
        self.steps.iter().filter_map(|(at, step)| match *step {
            Step::ResultRead { asked, read: ResultRead::Kept(result), .. }
            | Step::WaitAnswered { asked, result: Some(result) } => {
                Some(Got { asked, at: *at, result })
            }
            _ => None,
        })
    }

    /// Whether the call can have ended so, with what this invocation answered.
    fn is_right(&self, got: &Got) -> bool {
        let SeenResult { end, status, body } = got.result;
        let reported = match end {
            EndState::Done => Reported::Done(status),
            EndState::Dead => Reported::Dead,
            EndState::Cancelled => Reported::Cancelled,
            EndState::Expired => Reported::Expired,
        };
        let is_content_right = match (end, body) {
            (EndState::Done, SeenBody::OfRun(number)) => self
                .answered(number, got.at)
                .is_some_and(|(run, answered)| answered == status && self.succeeded(run)),
            (EndState::Dead, SeenBody::OfRun(number)) => {
                self.answered(number, got.at).is_some_and(|(run, answered)| {
                    answered == status && !self.succeeded(run) && self.is_last(run)
                })
            }
            (EndState::Dead, SeenBody::Empty) => NO_RESPONSE.contains(&status),
            (EndState::Cancelled, SeenBody::Empty) => status == CANCELLED,
            (EndState::Expired, SeenBody::Empty) => status == EXPIRED,
            _ => false,
        };
        is_content_right && self.can_be(reported, got.asked, got.at)
    }

    /// The invocation with this number, if it had answered before a time, and its status.
    fn answered(&self, number: u64, before: Duration) -> Option<(&Run, u16)> {
        let run = self.runs.iter().find(|run| run.number == number)?;
        match run.end {
            Some((at, RunEnd::Returned(status))) if at <= before => Some((run, status)),
            _ => None,
        }
    }

    /// Whether no invocation that ended a dead call came after this one. Under faults two workers
    /// may have had the call.
    fn is_last(&self, run: &Run) -> bool {
        let (since, until) = (self.submitted_at(), self.over_at());
        self.runs.last().is_some_and(|last| last.number == run.number)
            || self.faults.between(since, until, self.rules.lease) > 0
    }

    /// Whether an invocation started surely after the client had the result of a done call, with
    /// NATS there to read it. Who forgets what was delivered does not look for a result.
    fn has_started_after(&self, got: &Got) -> bool {
        let (since, lease) = (self.submitted_at(), self.rules.lease);
        got.result.end == EndState::Done
            && self.runs.iter().any(|run| {
                self.is_after(run.started, got.at)
                    && self.faults.forgotten(since, run.started) == 0
                    && !self.faults.last_between(got.at.saturating_sub(lease), run.started)
            })
    }

    /// Whether the result must be there, and this says that it is not.
    fn is_missing(&self, read: ResultRead) -> bool {
        if matches!(read, ResultRead::Kept(_) | ResultRead::Unavailable) || self.was_deleted() {
            return false;
        }
        match self.end() {
            Some(End::Done | End::Dead | End::Expired) => self.saw(Step::ResultWanted),
            // A gateway tries once, and the call is cancelled without it.
            Some(End::Cancelled) => {
                self.saw(Step::ResultWanted)
                    && self.cancellations().len() == 1
                    && self.cancelled_at().is_some()
                    && self.faults.between(self.submitted_at(), self.over_at(), self.rules.lease)
                        == 0
            }
            Some(End::Deleted) | None => false,
        }
    }

    /// Whether a wait was answered without the result that had been there for a lease.
    fn has_missed(&self, asked: Duration, answered: Duration) -> bool {
        let lease = self.rules.lease;
        let done = self.runs.iter().filter(|run| self.succeeded(run)).filter_map(|run| run.end);
        let cancelled = self.cancelled_at().filter(|_| !self.shares_id());
        let ended = done.map(|(at, _)| at).chain(self.died_at()).chain(cancelled).min();
        ended.is_some_and(|ended| {
            let since = asked.min(ended).saturating_sub(lease);
            ended + lease + self.lateness_between(ended, answered) < answered
                && self.faults.between(since, answered, lease) == 0
                && !self.was_deleted()
        })
    }
}
