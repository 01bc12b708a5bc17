//! The callback of a call: one, if the client wants it, unless its receiver takes none.

use std::collections::BTreeSet;

use super::{Rule, Tally, call::Call, end::End};
use crate::history::event::Step;

impl Call<'_> {
    pub(super) fn check_callbacks(&self, broken: &mut BTreeSet<Rule>, tally: &mut Tally) {
        let callbacks: Vec<_> = self.callbacks().collect();
        let repeats: Vec<_> = callbacks
            .windows(2)
            .filter(|pair| pair[0].2)
            .map(|pair| (pair[0].0.saturating_sub(self.rules.lease), pair[1].0))
            .collect();
        tally.repeated += repeats.len() as u64;
        if self.faults.unexcused(repeats) > 0 {
            broken.insert(Rule::CallbackRepeated);
        }
        let is_taken = callbacks.iter().any(|(.., taken)| *taken);
        let is_kept = self.saw(Step::ResultDeadLetter) || self.saw(Step::LeftResult);
        // Results on their way are deleted with their queue.
        let has_end = self.end().is_some_and(|end| end != End::Deleted) && !self.was_deleted();
        if self.wants_callback() && has_end && !is_taken && !is_kept {
            broken.insert(Rule::CallbackMissing);
        }
    }
}
