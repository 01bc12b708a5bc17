//! One call, and what is known of it.

use std::{collections::BTreeSet, time::Duration};

use super::{
    Rule, Rules, Tally,
    lateness::Lateness,
    runs::{self, Run, RunEnd},
};
use crate::history::{
    event::{QueueNumber, Step},
    faults::Faults,
};

/// What the callback of a cancelled call says.
pub(super) const CANCELLED: u16 = asyncqueue::call::CANCELLED_STATUS;

/// What the callback of an expired call says.
pub(super) const EXPIRED: u16 = 504;

/// What was seen of one call.
pub(super) struct Call<'a> {
    pub(super) steps: Vec<(Duration, Step)>,
    pub(super) runs: Vec<Run>,
    pub(super) faults: &'a Faults,
    pub(super) rules: &'a Rules,
    lateness: &'a Lateness,
}

/// A request for a cancellation, and its answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cancellation {
    pub(super) sent: Duration,
    /// When it was answered, and how; `None`: there was no answer.
    pub(super) answer: Option<(Duration, u16)>,
}

/// The queue that a call was submitted to.
pub(super) fn queue(steps: &[(Duration, Step)]) -> QueueNumber {
    let queue = steps.iter().find_map(|(_, step)| match step {
        Step::Submitted { queue, .. } => Some(*queue),
        _ => None,
    });
    queue.unwrap_or_default()
}

impl<'a> Call<'a> {
    pub(super) fn new(
        steps: Vec<(Duration, Step)>,
        faults: &'a Faults,
        lateness: &'a Lateness,
        rules: &'a Rules,
    ) -> Self {
        Self { runs: runs::of(&steps), steps, faults, rules, lateness }
    }

    /// How it ended, and the rules that it breaks.
    pub(super) fn check(&self) -> (Tally, BTreeSet<Rule>) {
        let (mut tally, mut broken) = (self.tally(), BTreeSet::new());
        self.check_end(&mut broken);
        self.check_delay(&mut broken);
        self.check_invocations(&mut broken, &mut tally);
        self.check_cancellations(&mut broken);
        self.check_callbacks(&mut broken, &mut tally);
        self.check_client(&mut broken);
        self.check_status(&mut broken);
        self.check_results(&mut broken);
        (tally, broken)
    }

    pub(super) fn saw(&self, wanted: Step) -> bool {
        self.steps.iter().any(|(_, step)| *step == wanted)
    }

    /// When its dead letters were stored.
    pub(super) fn letters(&self) -> impl Iterator<Item = Duration> {
        self.steps.iter().filter_map(|(_, step)| match step {
            Step::DeadLetter { stored } => Some(*stored),
            _ => None,
        })
    }

    pub(super) fn died_at(&self) -> Option<Duration> {
        self.letters().min()
    }

    pub(super) fn submitted_at(&self) -> Duration {
        self.steps.first().map_or(Duration::ZERO, |(at, _)| *at)
    }

    /// The last time at which something happened to it. The last look does not count.
    pub(super) fn over_at(&self) -> Duration {
        let happened = self.steps.iter().rev().find(|(_, step)| {
            !matches!(
                step,
                Step::LeftQueued
                    | Step::LeftResult
                    | Step::DeadLetter { .. }
                    | Step::ResultDeadLetter
                    | Step::Replayed
                    | Step::StatusAnswered { .. }
                    | Step::ResultRead { .. }
            )
        });
        happened.map_or(self.submitted_at(), |(at, _)| *at)
    }

    pub(super) fn shares_id(&self) -> bool {
        self.steps.iter().any(|(_, step)| matches!(step, Step::Submitted { shares_id: true, .. }))
    }

    pub(super) fn wants_callback(&self) -> bool {
        self.steps.iter().any(|(_, step)| matches!(step, Step::Submitted { callback: true, .. }))
    }

    /// The first 202.
    pub(super) fn accepted_at(&self) -> Option<Duration> {
        self.steps.iter().find_map(|(at, step)| match step {
            Step::Answered { status: 202, .. } => Some(*at),
            _ => None,
        })
    }

    /// The requests for its cancellation that came after it was accepted, with their answers.
    pub(super) fn cancellations(&self) -> Vec<Cancellation> {
        let mut cancellations: Vec<Cancellation> = Vec::new();
        for (at, step) in &self.steps {
            match step {
                Step::CancelSent => cancellations.push(Cancellation { sent: *at, answer: None }),
                Step::CancelAnswered { status, .. } => {
                    if let Some(last) = cancellations.last_mut() {
                        last.answer = Some((*at, *status));
                    }
                }
                _ => {}
            }
        }
        // Of calls that share an id, those that are stored when it comes are meant. Who waits for
        // the result learns only from the 202 of the cancellation that the call was stored.
        cancellations.retain(|cancel| {
            let is_confirmed = matches!(cancel.answer, Some((_, 202))) && !self.shares_id();
            is_confirmed || self.accepted_at().is_some_and(|accepted| accepted <= cancel.sent)
        });
        cancellations
    }

    /// When its cancellation was confirmed.
    pub(super) fn cancelled_at(&self) -> Option<Duration> {
        self.cancellations().iter().find_map(|cancel| match cancel.answer {
            Some((at, 202)) => Some(at),
            _ => None,
        })
    }

    /// Whether it may have been cancelled: somebody asked for it, and the last answer was no
    /// refusal.
    pub(super) fn may_be_cancelled(&self) -> bool {
        self.saw(Step::CancelSent)
            && !self.is_refused()
            && (self.shares_id() || !self.is_cancel_refused())
    }

    /// Whether the client was answered at last that it can't be cancelled.
    pub(super) fn is_cancel_refused(&self) -> bool {
        let last = self.cancellations().last().and_then(|cancel| cancel.answer);
        self.cancelled_at().is_none() && matches!(last, Some((_, 404 | 409)))
    }

    /// The callbacks: when, with which status, and whether they were taken.
    pub(super) fn callbacks(&self) -> impl Iterator<Item = (Duration, u16, bool)> {
        self.steps.iter().filter_map(|(at, step)| match step {
            Step::CallbackReceived { status, taken } => Some((*at, *status, *taken)),
            _ => None,
        })
    }

    pub(super) fn succeeded(&self, run: &Run) -> bool {
        match run.end {
            Some((_, RunEnd::Returned(status))) => !self.rules.retried.contains(&status),
            _ => false,
        }
    }

    /// Whether an invocation had answered this status before a time, and is not retried for it.
    pub(super) fn has_succeeded_before(&self, time: Duration, status: u16) -> bool {
        let mut done = self.runs.iter().filter(|run| self.succeeded(run));
        done.any(|run| match run.end {
            Some((at, RunEnd::Returned(returned))) => at <= time && returned == status,
            _ => false,
        })
    }

    /// Whether an invocation surely started after a time at which the call had ended, or was not to
    /// start. What has succeeded or is dead may run again for a fault, or a replay.
    pub(super) fn has_begun_after(&self, time: Duration) -> bool {
        let has_succeeded =
            self.runs.iter().any(|run| self.succeeded(run) && run.returned_before(time));
        let has_ended = has_succeeded || self.died_at().is_some();
        !has_ended && self.runs.iter().any(|run| self.is_after(run.started, time))
    }

    /// Whether an invocation had failed at a time, so that the next may follow it.
    pub(super) fn failed_before(&self, run: &Run, time: Duration) -> bool {
        match run.end {
            Some((at, RunEnd::Returned(status))) => {
                at <= time && self.rules.retried.contains(&status)
            }
            Some((at, RunEnd::Failed)) => at <= time,
            // Cut off at its time limit; its worker's end of the connection may be closed before
            // ours.
            Some((at, RunEnd::BrokenOff)) => self.is_over_limit(run, at.min(time)),
            None => self.is_over_limit(run, time),
        }
    }

    fn is_over_limit(&self, run: &Run, time: Duration) -> bool {
        // Its worker counts from when it sent the call.
        time.saturating_sub(run.started) + self.rules.slack >= self.rules.time_limit
    }

    /// Whether something that was recorded at `time` surely happened after what was recorded at
    /// `before`, though another connection brought it.
    pub(super) fn is_after(&self, time: Duration, before: Duration) -> bool {
        time > before + self.rules.skew + self.lateness_between(before, time)
    }

    /// For how long the recorder was late between two times.
    pub(super) fn lateness_between(&self, since: Duration, until: Duration) -> Duration {
        self.lateness.between(since, until)
    }
}
