//! How often a call was invoked, and when.

use std::collections::BTreeSet;

use super::{
    Rule, Tally,
    call::Call,
    runs::{self, Run},
};

impl Call<'_> {
    pub(super) fn check_invocations(&self, broken: &mut BTreeSet<Rule>, tally: &mut Tally) {
        self.check_start(broken);
        self.check_attempts(broken);
        tally.rerun += self.check_repeats(broken);
        if !self.runs.is_empty() && self.is_refused() {
            broken.insert(Rule::RanThoughRefused);
        }
    }

    /// Each invocation but the first follows one that failed, or a fault of its own.
    fn check_repeats(&self, broken: &mut BTreeSet<Rule>) -> u64 {
        let pairs = self.runs.windows(2).map(|pair| (&pair[0], &pair[1]));
        let repeats: Vec<_> = pairs
            .filter(|(run, next)| !self.failed_before(run, next.started))
            // What begins within a lease after the fault may have been delivered before it.
            .map(|(run, next)| (run.started.saturating_sub(self.rules.lease), next.started))
            .collect();
        let count = repeats.len() as u64;
        if self.faults.unexcused(repeats) > 0 {
            broken.insert(Rule::RanAgain);
        }
        count
    }

    fn check_attempts(&self, broken: &mut BTreeSet<Rule>) {
        // The attempts of a delayed call count from when it is due.
        let since = self.due_at().unwrap_or_default().max(self.submitted_at());
        let (over, lease) = (self.over_at(), self.rules.lease);
        let failed: Vec<_> = self.runs.iter().filter(|run| self.failed_before(run, over)).collect();
        let count = failed.len() as u64;
        let is_forgotten = |run: &&&Run| self.faults.is_delivery_forgotten(run.started);
        let forgotten = failed.iter().filter(is_forgotten).count() as u64;
        let hits = self.faults.between(since, over, lease);
        // A consumer that is made again counts from the beginning.
        let rounds = 1 + self.faults.forgotten(since, over);
        let attempts = self.rules.attempts * rounds;
        if count > attempts + hits + forgotten + runs::resent(&self.runs) {
            broken.insert(Rule::RanTooOften);
        }
        // A delivery that was lost with its worker was an attempt too. One that comes while the
        // call runs was none.
        let spans: Vec<_> =
            failed.iter().filter_map(|run| run.end.map(|(end, _)| (run.started, end))).collect();
        if let Some(died) = self.died_at() {
            let lost = self.faults.outside(since, died, lease, &spans);
            if count + lost < self.rules.attempts {
                broken.insert(Rule::DiedEarly);
            }
        }
    }

    fn check_start(&self, broken: &mut BTreeSet<Rule>) {
        let (Some(within), Some(accepted)) = (self.rules.starts_within, self.accepted_at()) else {
            return;
        };
        let is_late = match self.runs.first() {
            Some(first) => first.started > accepted + within,
            None => !self.may_be_cancelled() && !self.was_deleted(),
        };
        if is_late {
            broken.insert(Rule::HeldUp);
        }
    }
}
