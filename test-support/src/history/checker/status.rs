//! What the gateway reported of a call: each answer must have been possible when it was given.

use std::{collections::BTreeSet, time::Duration};

use super::{
    Rule,
    call::{CANCELLED, Call},
    end::End,
    runs::RunEnd,
};
use crate::history::event::{Reported, Step};

impl Call<'_> {
    /// Of calls that share an id the gateway reports the newest, and which that is, is not known
    /// here.
    pub(super) fn check_status(&self, broken: &mut BTreeSet<Rule>) {
        if self.shares_id() {
            return;
        }
        for (answered, step) in &self.steps {
            if let Step::StatusAnswered { asked, reported } = step
                && !self.can_be(*reported, *asked, *answered)
            {
                broken.insert(Rule::WrongStatus);
            }
        }
    }

    pub(super) fn can_be(&self, reported: Reported, asked: Duration, answered: Duration) -> bool {
        match reported {
            // A little later it may still be with the worker that gives it back when it is due.
            Reported::Scheduled => {
                self.due_at().is_some_and(|due| asked < due + self.rules.lease)
                    && !self.has_ended(asked)
            }
            Reported::Queued => {
                let may_be_queued = !self.has_started(asked)
                    || self.is_hit(asked)
                    || self.is_requeued(asked, answered);
                may_be_queued && !self.has_ended(asked)
            }
            Reported::Waiting => {
                (self.has_started(answered) || self.is_hit(answered)) && !self.has_ended(asked)
            }
            Reported::Delivered | Reported::Running => !self.has_ended(asked),
            Reported::Done(CANCELLED) => self.may_be_cancelled(),
            Reported::Done(status) => {
                (self.has_started(answered) || self.is_hit(answered))
                    && self.cancelled_at().is_none_or(|at| answered < at)
                    && (self.callbacks().all(|(_, other, _)| other == status)
                        || self.ran_again_to(status))
            }
            Reported::Dead => {
                let is_dead =
                    self.died_at().is_some_and(|died| died <= answered + self.rules.slack);
                is_dead || self.was_deleted()
            }
            Reported::Cancelled => {
                let is_wanted = self
                    .steps
                    .iter()
                    .any(|(at, step)| *step == Step::CancelSent && *at <= answered);
                is_wanted
                    && !self.is_refused_before(asked)
                    && (self.callbacks().all(|(_, status, _)| status == CANCELLED)
                        || self.is_end_forgotten(answered))
            }
            Reported::Expired => {
                self.rules.max_age.is_some()
                    && self.callbacks().all(|(_, status, _)| status == super::call::EXPIRED)
                    && !self.runs.iter().any(|run| self.succeeded(run))
            }
            Reported::Unknown => !self.is_known(asked, answered),
            Reported::Unavailable => true,
            Reported::Other(_) => false,
        }
    }

    /// Whether it ran more than once, after a replay or a fault, and the function returned this
    /// status: a worker may remember another invocation than the one of the callback.
    fn ran_again_to(&self, status: u16) -> bool {
        let mut ends = self.runs.iter().filter_map(|run| run.end);
        self.runs.len() > 1 && ends.any(|(_, end)| end == RunEnd::Returned(status))
    }

    /// Whether it was delivered before a time for certain.
    fn has_started(&self, time: Duration) -> bool {
        self.runs.first().is_some_and(|first| first.started <= time)
    }

    /// Whether its queue had other consumers by the time of the answer, and it had not been started
    /// by one of them when the client asked.
    fn is_requeued(&self, asked: Duration, answered: Duration) -> bool {
        self.faults.is_requeued(answered, |since| {
            self.runs.iter().any(|run| since < run.started && run.started <= asked)
        })
    }

    /// Whether a fault may have hit it before a time, so that no server may know any more that it
    /// was delivered, or the function never saw it.
    fn is_hit(&self, time: Duration) -> bool {
        let since = self.submitted_at();
        self.was_deleted()
            || self.faults.forgotten(since, time) > 0
            || self.faults.between(since, time, self.rules.lease) > 0
    }

    /// Whether it had ended at a time for certain. Its result is stored before that is
    /// acknowledged, and what a fault hits may be acknowledged late.
    fn has_ended(&self, time: Duration) -> bool {
        let over = match self.end() {
            Some(End::Deleted) | None => return false,
            Some(End::Cancelled) => self.cancelled_at(),
            Some(_) if self.wants_callback() => {
                self.callbacks().find(|(.., taken)| *taken).map(|(at, ..)| at)
            }
            Some(_) => self.runs.iter().rev().find(|run| self.succeeded(run)).and_then(|run| {
                let (at, _) = run.end?;
                Some(at)
            }),
        };
        let Some(over) = over else { return false };
        // Two leases: one in which the acknowledgement may be lost, and another in which it is
        // given again.
        let settled = over + self.rules.lease * 2;
        settled < time && self.faults.between(over, time, self.rules.lease) == 0
    }

    fn is_refused_before(&self, time: Duration) -> bool {
        let refusal = self
            .cancellations()
            .into_iter()
            .any(|cancel| matches!(cancel.answer, Some((at, 404 | 409)) if at <= time));
        refusal && self.cancelled_at().is_none()
    }

    /// Whether the gateway must know it: it is stored and has not started yet, or its cancellation
    /// was confirmed.
    fn is_known(&self, asked: Duration, answered: Duration) -> bool {
        if self.accepted_at().is_none_or(|accepted| asked < accepted) || self.was_deleted() {
            return false;
        }
        let is_stored = self.saw(Step::LeftQueued)
            || self.runs.first().is_some_and(|first| self.is_after(first.started, answered));
        is_stored || self.cancelled_at().is_some_and(|cancelled| cancelled <= asked)
    }
}
