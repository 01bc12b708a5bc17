//! Replays what was seen of each call against the model of the protocol: the model has a run with
//! these steps, or one of the two is wrong.

use std::{fmt, time::Duration};

use asyncqueue::call::CANCELLED_STATUS;
use asyncqueue_model::explain::{
    Divergence, explain,
    observation::{End, Fault, Observation, Outcome},
};
use test_support::history::{
    checker::Rules,
    event::Event,
    faults::{FaultKind, FaultWindow, is_in_last_moment},
    trace::{RESENT_WITHIN, Trace, TraceStep, traces},
};

/// The status of a call whose time limit was reached, and of one that has expired.
const TIMED_OUT: u16 = 504;

/// What the replay of a history comes to.
#[derive(Debug, Default)]
pub(crate) struct Replayed {
    /// Calls of which the model has a run.
    pub(crate) explained: usize,
    /// Calls with so many faults that there are too many runs to look at.
    pub(crate) too_large: usize,
    /// Calls of which the model has no run, and the first step that it does not allow.
    pub(crate) unexplained: Vec<String>,
}

impl fmt::Display for Replayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let calls = self.explained + self.too_large + self.unexplained.len();
        write!(f, "the model explains {} of {calls} calls", self.explained)?;
        match self.too_large {
            0 => Ok(()),
            count => write!(f, ", and {count} have too many faults to say"),
        }
    }
}

/// Replays the calls of a history.
pub(crate) fn replay(history: &[Event], rules: &Rules) -> Replayed {
    let mut replayed = Replayed::default();
    for trace in traces(history) {
        let explained = |trace: &Trace| explain(&observations(trace, rules));
        match explained(&trace) {
            Ok(()) => replayed.explained += 1,
            Err(_) if readings(&trace).any(|trace| explained(&trace).is_ok()) => {
                replayed.explained += 1;
            }
            Err(Divergence::TooLarge { .. }) => replayed.too_large += 1,
            Err(divergence) => {
                replayed.unexplained.push(format!("call {}: {divergence}", trace.call));
            }
        }
    }
    replayed
}

/// A trace without what may have been sent once more within an attempt, from the least to the most
/// of that.
fn readings(trace: &Trace) -> impl Iterator<Item = Trace> {
    let within = [20, 10, 5, 2, 1].map(|part| RESENT_WITHIN / part);
    within.into_iter().filter_map(|within| trace.without_resends(within))
}

/// A trace as the model takes it.
fn observations(trace: &Trace, rules: &Rules) -> Vec<Observation> {
    let mut steps: Vec<(Duration, Observation)> = Vec::new();
    for fault in &trace.faults {
        steps.extend(of_fault(fault, trace, rules.lease));
    }
    let submitted = Observation::Submitted {
        callback: trace.callback,
        max_attempts: u8::try_from(rules.attempts).expect("few attempts"),
    };
    for (at, step) in &trace.steps {
        if *step == TraceStep::Accepted
            && let Some(age) = rules.max_age
        {
            steps.push((*at + age.saturating_sub(rules.slack), Observation::Fault(Fault::Expiry)));
        }
        steps.extend(of_step(*step, submitted, trace, rules).map(|step| (*at, step)));
    }
    if trace.shares_id
        && let (Some((first, _)), Some((last, _))) = (trace.steps.first(), trace.steps.last())
    {
        // Others with the id may be meant by their cancellations, and so may this one.
        steps.push((*first, Observation::CancelSent));
        steps.push((*last, Observation::CancelUnknown));
    }
    steps.sort_by_key(|(at, _)| *at);
    steps.into_iter().map(|(_, step)| step).collect()
}

fn of_step(
    step: TraceStep,
    submitted: Observation,
    trace: &Trace,
    rules: &Rules,
) -> Option<Observation> {
    let is_of_this_call = !trace.shares_id;
    Some(match step {
        TraceStep::Submitted => submitted,
        TraceStep::Accepted => Observation::Accepted,
        TraceStep::Refused(503) | TraceStep::Unanswered => Observation::Unanswered,
        TraceStep::Refused(_) => Observation::Refused,
        TraceStep::Started(_) => Observation::Started,
        TraceStep::Returned(_, status) if rules.retried.contains(&status) => {
            Observation::Returned(Outcome::Failed)
        }
        TraceStep::Returned(..) => Observation::Returned(Outcome::Ok),
        TraceStep::Failed(_) => Observation::Returned(Outcome::Failed),
        TraceStep::BrokenOff(_) => Observation::BrokenOff,
        TraceStep::Callback(status, is_taken) => {
            let end = match status {
                CANCELLED_STATUS => Some(End::Cancelled),
                TIMED_OUT => None,
                status if rules.retried.contains(&status) => Some(End::Dead),
                _ => Some(End::Done),
            };
            Observation::Callback { end, is_taken }
        }
        TraceStep::CancelSent if is_of_this_call => Observation::CancelSent,
        TraceStep::CancelConfirmed if is_of_this_call => Observation::CancelConfirmed,
        TraceStep::CancelRefused(_) if is_of_this_call => Observation::CancelRefused,
        TraceStep::CancelOpen if is_of_this_call => Observation::CancelUnknown,
        TraceStep::CancelSent
        | TraceStep::CancelConfirmed
        | TraceStep::CancelRefused(_)
        | TraceStep::CancelOpen => return None,
        TraceStep::LeftQueued => Observation::LeftQueued,
        TraceStep::LeftResult => Observation::LeftResult,
        TraceStep::DeadLetter => Observation::LeftDead,
        TraceStep::ResultDeadLetter => Observation::LeftDeadResult,
    })
}

/// A fault that lasts may hit a call once in each lease, and its effects are over two leases after
/// it. A server that is killed may have forgotten several deliveries of a call.
fn of_fault(window: &FaultWindow, trace: &Trace, lease: Duration) -> Vec<(Duration, Observation)> {
    let fault = match window.kind {
        FaultKind::Lost | FaultKind::Killed | FaultKind::Unwritten => Fault::WorkerOrLeaseLost,
        FaultKind::Forgotten => Fault::ConsumerRecreated,
        // A queued call and one that waits are the same to the model.
        FaultKind::Requeued => return Vec::new(),
        FaultKind::Deleted => Fault::StreamRecreated,
    };
    let is_forgotten = |(at, step): &&(Duration, TraceStep)| {
        matches!(step, TraceStep::Started(_)) && is_in_last_moment(*at, window.since)
    };
    let at_once = match window.kind {
        FaultKind::Killed => trace.steps.iter().filter(is_forgotten).count().max(1),
        _ => 1,
    };
    let mut steps = Vec::new();
    let (mut at, over) = (window.since, window.until + lease * 2);
    for _ in 1..at_once {
        steps.push((at, Observation::Fault(fault)));
        steps.push((over, Observation::FaultOver(fault)));
    }
    while at <= window.until {
        steps.push((at, Observation::Fault(fault)));
        steps.push((over, Observation::FaultOver(fault)));
        at += lease;
    }
    steps
}
