//! How a call ended: once, and as the client was answered.

use std::{collections::BTreeSet, time::Duration};

use super::{
    Rule, Tally,
    call::{CANCELLED, Call, EXPIRED},
};
use crate::history::event::{Reported, Step};

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Done,
    Dead,
    Cancelled,
    Expired,
    /// Somebody deleted its queue with what was in it.
    Deleted,
}

impl Call<'_> {
    pub(super) fn tally(&self) -> Tally {
        let (end, accepted) = (self.end(), self.accepted_at().is_some());
        let count = |wanted| u64::from(end == Some(wanted));
        Tally {
            accepted: u64::from(accepted),
            done: count(End::Done),
            dead: count(End::Dead),
            cancelled: count(End::Cancelled),
            expired: count(End::Expired),
            lost: u64::from(accepted && end.is_none() && !self.saw(Step::LeftQueued)),
            ..Tally::default()
        }
    }

    /// How it ended, by the strongest sign of it.
    pub(super) fn end(&self) -> Option<End> {
        let by_callback = self.callbacks().next().map(|(_, status, _)| status);
        if self.died_at().is_some() {
            return Some(End::Dead);
        }
        match by_callback {
            Some(CANCELLED) if self.saw(Step::CancelSent) || self.shares_id() => {
                return Some(End::Cancelled);
            }
            Some(EXPIRED) if self.may_be_expired() => return Some(End::Expired),
            Some(_) if self.runs.iter().any(|run| self.succeeded(run)) => return Some(End::Done),
            _ => {}
        }
        let succeeded = self.runs.iter().find(|run| self.succeeded(run));
        match (self.cancelled_at(), succeeded) {
            // Of calls that share an id, some may have ended before the cancellation that was
            // confirmed.
            (Some(at), Some(run)) if self.shares_id() && run.returned_before(at) => Some(End::Done),
            (Some(_), _) => Some(End::Cancelled),
            (None, Some(_)) => Some(End::Done),
            (None, None) if self.may_be_expired() && self.reported(Reported::Expired) => {
                Some(End::Expired)
            }
            // What was not accepted need not have been there to be cancelled.
            (None, None) if self.may_be_cancelled() && self.accepted_at().is_some() => {
                Some(End::Cancelled)
            }
            (None, None) if self.was_deleted() => Some(End::Deleted),
            (None, None) => None,
        }
    }

    pub(super) fn check_end(&self, broken: &mut BTreeSet<Rule>) {
        if self.saw(Step::LeftResult) || self.saw(Step::LeftQueued) && !self.is_end_unwritten() {
            broken.insert(Rule::Unfinished);
        } else if self.accepted_at().is_some() && self.end().is_none() {
            broken.insert(Rule::Lost);
        }
        let letters = self.letters().count();
        let statuses: BTreeSet<u16> = self.callbacks().map(|(_, status, _)| status).collect();
        let is_dead_and_done =
            letters > 0 && statuses.iter().any(|status| !self.is_of_dead(*status));
        if letters > 1 || statuses.len() > 1 || is_dead_and_done {
            broken.insert(Rule::TwoEnds);
        }
        if self.end() == Some(End::Expired) {
            self.check_expiry(broken);
        }
    }

    /// Whether the server may have forgotten that the call has ended, with its message still there:
    /// it had been reported, by a worker that had run it.
    fn is_end_unwritten(&self) -> bool {
        self.runs
            .iter()
            .filter(|run| self.succeeded(run))
            .any(|run| run.end.is_some_and(|(at, _)| self.faults.was_unwritten(at)))
    }

    fn check_expiry(&self, broken: &mut BTreeSet<Rule>) {
        let expired = self.callbacks().next().map(|(at, ..)| at).or_else(|| {
            self.steps.iter().find_map(|(at, step)| match step {
                Step::StatusAnswered { reported: Reported::Expired, .. } => Some(*at),
                _ => None,
            })
        });
        let (Some(expired), Some(max_age)) = (expired, self.rules.max_age) else { return };
        if expired + self.rules.slack < self.submitted_at() + max_age {
            broken.insert(Rule::ExpiredEarly);
        }
        if self.runs.iter().any(|run| self.is_after(run.started, expired)) {
            broken.insert(Rule::StartedAfterExpiry);
        }
    }

    /// Whether the result of a dead call may have this status.
    fn is_of_dead(&self, status: u16) -> bool {
        self.rules.retried.contains(&status)
    }

    fn may_be_expired(&self) -> bool {
        self.rules.max_age.is_some()
    }

    fn reported(&self, wanted: Reported) -> bool {
        self.steps.iter().any(|(_, step)| match step {
            Step::StatusAnswered { reported, .. } => *reported == wanted,
            _ => false,
        })
    }

    /// Whether its queue was deleted with it. What was submitted after that is not excused.
    pub(super) fn was_deleted(&self) -> bool {
        let stored: Duration = self.accepted_at().unwrap_or_else(|| self.submitted_at());
        self.faults.is_deleted_after(stored)
    }
}
