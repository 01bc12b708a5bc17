//! A state in which the model may be, given the observations so far.

use super::{
    Known, budget,
    observation::{Fault, Observation, Outcome},
};
use crate::life::{
    Life,
    action::Action,
    state::{Answer, Cancel, Message, Seen, State, Step},
};

/// A state, and the invocations for which no worker waits any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Candidate {
    state: State,
    /// Invocations whose worker has died or closed the connection, and whose end was not observed.
    orphans: u8,
    /// Invocations that their worker broke off at the time limit, which was not observed yet.
    limits: u8,
}

impl Candidate {
    /// Creates the candidate at the beginning.
    pub(super) fn new(state: State) -> Self {
        Self { state, orphans: 0, limits: 0 }
    }

    /// Returns the candidates after one step that is not observed.
    pub(super) fn hidden_steps(self, life: &Life, known: &Known) -> Vec<Self> {
        let mut next = Vec::new();
        for (action, after) in life.steps(&self.state) {
            match action {
                Action::Submit(_) if known.open_submissions == 0 => {}
                // The worker closes the connection at the time limit, before the function detects
                // it.
                Action::Return(_, _, Outcome::Failed) => {
                    if usize::from(self.limits) < known.to_break_off {
                        let after = self.after(life, after);
                        let limited =
                            Self { orphans: self.orphans, limits: self.limits + 1, ..after };
                        next.push((action, limited));
                    }
                }
                Action::Return(..) => {}
                // A step that starts an invocation is observed.
                _ if running(&after) > running(&self.state) => {}
                _ => next.push((action, self.after(life, after))),
            }
        }
        // The last one is tried first.
        next.sort_by_key(|(action, _)| !action.is_fault());
        next.into_iter().map(|(_, next)| next).collect()
    }

    /// Returns the candidates after an observation. The list is empty if it is not possible.
    pub(super) fn observe(self, life: &Life, known: &Known, observation: Observation) -> Vec<Self> {
        let (call, record) = (self.state.calls[0], self.record());
        let is_possible = match observation {
            Observation::Started => return self.starts(life),
            Observation::Returned(how) => return self.returns(life, how, self.orphans > 0),
            Observation::BrokenOff => {
                let mut next = self.returns(life, Outcome::Failed, self.orphans > 0);
                next.extend(self.limits.checked_sub(1).map(|limits| Self { limits, ..self }));
                return next;
            }
            Observation::Fault(fault) => return self.with_fault(fault),
            Observation::FaultOver(fault) => return vec![self.without_fault(known, fault)],
            Observation::CancelSent => {
                let mut next = self;
                next.state.cancels = next.state.cancels.saturating_add(1);
                return vec![next];
            }
            Observation::Submitted { .. }
            | Observation::Unanswered
            | Observation::CancelUnknown => true,
            Observation::Accepted => call.message != Message::Absent,
            Observation::Refused => known.open_submissions > 0 || call.message == Message::Absent,
            Observation::Callback { end, .. } => {
                let is_same = end.is_none_or(|end| record.result == Some(end));
                is_same && record.result.is_some() && known.taken <= 1 + known.faults
            }
            Observation::CancelConfirmed => call.cancel == Cancel::Answered(Answer::Confirmed),
            Observation::CancelRefused => call.cancel == Cancel::Answered(Answer::Refused),
            Observation::LeftQueued => call.is_stored(),
            Observation::LeftResult | Observation::LeftDeadResult => record.result.is_some(),
            Observation::LeftDead => record.letters >= known.dead_left,
        };
        if is_possible { vec![self] } else { vec![] }
    }

    /// Returns whether the trace may end here.
    pub(super) fn is_finished(self, life: &Life, known: &Known) -> bool {
        let (call, record) = (self.state.calls[0], self.record());
        if known.is_queued_left && call.is_stored() {
            return true;
        }
        if call.message == Message::Absent {
            return !known.is_accepted;
        }
        let is_heard = record.result.is_none() || known.taken > 0 || known.results_left > 0;
        let is_kept = known.dead_left == record.letters;
        life.is_at_rest(&self.state) && self.limits == 0 && is_heard && is_kept
    }

    fn starts(self, life: &Life) -> Vec<Self> {
        let started =
            life.steps(&self.state).filter(|(_, after)| running(after) > running(&self.state));
        started.map(|(_, after)| self.after(life, after)).collect()
    }

    /// Ends an invocation: one for which a worker waits, or one that has lost its worker.
    fn returns(self, life: &Life, how: Outcome, has_orphan: bool) -> Vec<Self> {
        let mut next = Vec::new();
        if how == Outcome::PlatformFailed {
            let mut failed = self;
            failed.state.faults.platform_failures = 1;
            next.extend(failed.returned_to_worker(life, how));
        } else {
            next.extend(self.returned_to_worker(life, how));
        }
        if has_orphan {
            next.push(Self { orphans: self.orphans - 1, ..self });
        }
        next
    }

    fn returned_to_worker(self, life: &Life, how: Outcome) -> Vec<Self> {
        let steps = life.steps(&self.state);
        let returned = steps
            .filter(|(action, _)| matches!(action, Action::Return(_, _, this) if *this == how));
        // A worker was waiting, so this is no orphan.
        returned
            .map(|(_, after)| Self { orphans: self.orphans, ..self.after(life, after) })
            .collect()
    }

    /// Returns the candidate with a later state.
    fn after(self, life: &Life, mut state: State) -> Self {
        let lost = running(&self.state).saturating_sub(running(&state));
        // What only rules depend on does not decide what is possible.
        state.calls[0].seen = Seen::default();
        // Workers are interchangeable.
        state.workers[..usize::from(life.setup.workers)].sort_unstable();
        Self { state, orphans: self.orphans + lost, limits: self.limits }
    }

    /// Returns the candidates in which a fault may happen, one for each kind that it may have.
    fn with_fault(self, fault: Fault) -> Vec<Self> {
        let kinds = if fault == Fault::WorkerOrLeaseLost { &Fault::LOST[..] } else { &[fault] };
        let with = |kind: &Fault| {
            let mut next = self;
            let left = budget(&mut next.state.faults, *kind)?;
            *left = left.saturating_add(1);
            Some(next)
        };
        kinds.iter().filter_map(with).collect()
    }

    /// Returns the candidate in which no more faults may happen than those that are not over.
    fn without_fault(mut self, known: &Known, fault: Fault) -> Self {
        let kinds = if fault == Fault::WorkerOrLeaseLost { &Fault::LOST[..] } else { &[fault] };
        let mut open = known.open_faults;
        for kind in kinds {
            let open = budget(&mut open, *kind).map_or(0, |open| *open);
            let most = if Fault::LOST.contains(kind) { open + known.open_losses } else { open };
            if let Some(left) = budget(&mut self.state.faults, *kind) {
                *left = (*left).min(most);
            }
        }
        self
    }

    fn record(self) -> crate::life::state::Record {
        self.state.records[usize::from(self.state.calls[0].sequence)]
    }
}

/// Returns the number of invocations for which workers wait.
fn running(state: &State) -> u8 {
    let tasks = state.workers.iter().filter_map(|worker| worker.tasks[0]);
    let running = tasks.filter(|task| task.step == Step::Running).count();
    u8::try_from(running).unwrap_or(u8::MAX)
}
