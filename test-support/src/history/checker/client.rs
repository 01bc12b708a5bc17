//! What the client was answered: it holds, and it comes in time.

use std::{collections::BTreeSet, time::Duration};

use super::{
    Rule,
    call::{CANCELLED, Call},
};
use crate::history::event::Step;

impl Call<'_> {
    pub(super) fn check_client(&self, broken: &mut BTreeSet<Rule>) {
        for (_, step) in &self.steps {
            match step {
                Step::Hung => {
                    broken.insert(Rule::Hung);
                }
                Step::Answered { status: 409, .. } => {
                    broken.insert(Rule::IdRefused);
                }
                Step::Answered { status: 429 | 503 | 507, retry_after: false }
                | Step::CancelAnswered { status: 429 | 503, retry_after: false } => {
                    broken.insert(Rule::NoRetryAfter);
                }
                _ => {}
            }
        }
    }

    pub(super) fn check_cancellations(&self, broken: &mut BTreeSet<Rule>) {
        if let Some(cancelled) = self.cancelled_at() {
            if self.runs.iter().any(|run| self.is_after(run.started, cancelled)) {
                broken.insert(Rule::StartedAfterCancel);
            }
            let ended = self.callbacks().any(|(_, status, _)| status != CANCELLED);
            let is_dead = self.died_at().is_some();
            // Of calls that share an id, some may have ended before it.
            let had_ended =
                self.shares_id() && self.runs.iter().any(|run| run.returned_before(cancelled));
            if (ended || is_dead) && !had_ended && !self.is_end_forgotten(cancelled) {
                broken.insert(Rule::EndedThoughCancelled);
            }
        } else if self.is_cancel_refused()
            && self.callbacks().any(|(_, status, _)| status == CANCELLED)
        {
            broken.insert(Rule::CancelledThoughRefused);
        }
        self.check_refusals(broken);
    }

    /// Whether nothing may be left of its end when it was cancelled: its callback was taken before,
    /// and with it the result, and a fault may have lost the acknowledgement. It would have run
    /// again.
    pub(super) fn is_end_forgotten(&self, cancelled: Duration) -> bool {
        let sent = self.cancellations().first().map(|cancel| cancel.sent);
        let is_taken =
            self.callbacks().any(|(at, _, taken)| taken && sent.is_some_and(|sent| at < sent));
        let since = self.runs.first().map_or(cancelled, |first| first.started);
        let lease = self.rules.lease;
        is_taken && self.faults.between(since.saturating_sub(lease), cancelled, Duration::ZERO) > 0
    }

    /// What could not be cancelled because it had ended does not start after that, unless it runs
    /// again for a fault.
    fn check_refusals(&self, broken: &mut BTreeSet<Rule>) {
        let refusals = self.cancellations().into_iter().filter_map(|cancel| match cancel.answer {
            Some((at, 404 | 409)) => Some(at),
            _ => None,
        });
        for refused in refusals {
            let mut before = None;
            for run in &self.runs {
                let follows = before.is_none_or(|last| self.failed_before(last, run.started));
                if follows && self.is_after(run.started, refused) {
                    broken.insert(Rule::StartedAfterRefusal);
                }
                before = Some(run);
            }
            if self.saw(Step::LeftQueued) && !self.was_deleted() {
                broken.insert(Rule::StartedAfterRefusal);
            }
        }
    }

    /// Whether each answer says that it is not stored. 503 says that it may be; so does no answer.
    pub(super) fn is_refused(&self) -> bool {
        let (mut answers, mut may_be_stored) = (0, false);
        for (_, step) in &self.steps {
            match step {
                Step::Answered { status: 202 | 503, .. } | Step::Unanswered | Step::Hung => {
                    may_be_stored = true;
                }
                Step::Answered { .. } => answers += 1,
                _ => {}
            }
        }
        !may_be_stored && answers > 0
    }
}
