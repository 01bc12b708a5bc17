//! Delayed calls: none starts before its time.

use std::{collections::BTreeSet, time::Duration};

use super::{Rule, call::Call};
use crate::history::event::Step;

impl Call<'_> {
    /// The time until which it is delayed. A repeat of a stored call does not change that.
    pub(super) fn due_at(&self) -> Option<Duration> {
        self.steps.iter().find_map(|(_, step)| match step {
            Step::Delayed { due } => Some(*due),
            _ => None,
        })
    }

    /// The function sees a start later than the worker that sends it, and all clocks are those of
    /// one machine.
    pub(super) fn check_delay(&self, broken: &mut BTreeSet<Rule>) {
        let Some(due) = self.due_at() else { return };
        if self.runs.iter().any(|run| run.started + self.rules.skew < due) {
            broken.insert(Rule::StartedEarly);
        }
    }
}
