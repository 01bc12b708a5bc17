//! Checks whether the model has a run with the observed steps of one call.
//!
//! The search goes through all runs. It takes steps that are not observed at any time, and observed
//! steps when the trace has them.

use std::{collections::HashSet, fmt};

use self::{
    candidate::Candidate,
    observation::{End, Fault, Observation, Outcome},
};
use crate::life::{
    Life,
    setup::{Faults, Setup},
};

mod candidate;
pub mod observation;

/// Maximum number of states at once. A trace with more can't be followed.
const MOST_STATES: usize = 400_000;

/// Why a trace is not a run of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Divergence {
    /// No run has this observation after the previous ones.
    Impossible {
        /// The index of the observation in the trace.
        at: usize,
        /// The observation.
        observation: Observation,
        /// The observations that would have been possible instead.
        possible: Vec<Observation>,
    },
    /// The trace ends, but the model can't come to rest in that state: something about the call is
    /// missing.
    Unfinished,
    /// The trace has too many faults to be followed.
    TooLarge {
        /// The index of the observation at which the search was given up.
        at: usize,
    },
}

/// What the trace has shown so far. It is the same for all candidates.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// Submissions that were not refused. While there is one, the gateway may store the call.
    open_submissions: usize,
    /// Whether the call was accepted.
    is_accepted: bool,
    /// Invocations that will be observed as broken off.
    to_break_off: usize,
    /// Callbacks that the receiver accepted.
    taken: usize,
    /// Faults. Each may cause a repeated callback.
    faults: usize,
    /// Faults that are not over, by their kind.
    open_faults: Faults,
    /// Faults that are not over and whose kind is not known.
    open_losses: u8,
    /// Results that were found waiting for delivery or as dead letters.
    results_left: u8,
    /// Dead letters that were found.
    dead_left: u8,
    /// Whether the call was found on its queue.
    is_queued_left: bool,
}

/// A search for a run with the observations of a trace.
struct Replay<'a> {
    life: Life,
    trace: &'a [Observation],
    /// What is known before each observation, and at the end.
    known: Vec<Known>,
    /// The candidates that were reached, each with the number of observations up to then.
    reached: HashSet<(usize, Candidate)>,
}

/// Checks whether the model has a run with these observations of one call, in this order.
///
/// # Errors
///
/// The first observation that no run allows.
pub fn explain(trace: &[Observation]) -> Result<(), Divergence> {
    Replay::new(trace).run()
}

impl<'a> Replay<'a> {
    fn new(trace: &'a [Observation]) -> Self {
        let is_broken_off = |observation: &&Observation| **observation == Observation::BrokenOff;
        let to_break_off = trace.iter().filter(is_broken_off).count();
        let mut known = vec![Known { to_break_off, ..Known::default() }];
        for (at, observation) in trace.iter().enumerate() {
            let mut next = known[at];
            next.note(*observation);
            known.push(next);
        }
        Self { life: Life::new(setup(trace)), trace, known, reached: HashSet::new() }
    }

    /// Follows one run to its end before it tries another. Runs without faults come first.
    fn run(mut self) -> Result<(), Divergence> {
        let mut waiting = vec![(0, Candidate::new(self.life.first()))];
        let mut furthest = 0;
        while let Some((at, candidate)) = waiting.pop() {
            if !self.reached.insert((at, candidate)) {
                continue;
            }
            if self.reached.len() > MOST_STATES {
                return Err(Divergence::TooLarge { at: furthest });
            }
            furthest = furthest.max(at);
            let known = &self.known[at];
            waiting.extend(
                candidate.hidden_steps(&self.life, known).into_iter().map(|next| (at, next)),
            );
            if let Some(observation) = self.trace.get(at) {
                let seen = candidate.observe(&self.life, &self.known[at + 1], *observation);
                waiting.extend(seen.into_iter().map(|next| (at + 1, next)));
            } else if candidate.is_finished(&self.life, known) {
                return Ok(());
            }
        }
        Err(self.divergence(furthest))
    }

    /// Returns why no run has the observation at an index that some runs reached.
    fn divergence(&self, at: usize) -> Divergence {
        let Some(observation) = self.trace.get(at) else { return Divergence::Unfinished };
        let here = self.reached.iter().filter(|(reached, _)| *reached == at);
        let here: Vec<Candidate> = here.map(|(_, candidate)| *candidate).collect();
        let possible = observations().filter(|observation| {
            let mut known = self.known[at];
            known.note(*observation);
            here.iter()
                .any(|candidate| !candidate.observe(&self.life, &known, *observation).is_empty())
        });
        Divergence::Impossible { at, observation: *observation, possible: possible.collect() }
    }
}

/// Returns the bounds for a trace. Faults are added when they are observed.
fn setup(trace: &[Observation]) -> Setup {
    let (mut callbacks, mut max_attempts, mut stalls) = (false, 1, 0);
    // Cancellations whose answer was observed, but not their request.
    let (mut sent, mut answered) = (0_u8, 0_u8);
    let mut faults = Faults::default();
    for observation in trace {
        match observation {
            Observation::Submitted { callback, max_attempts: attempts } => {
                (callbacks, max_attempts) = (*callback, *attempts);
            }
            Observation::CancelConfirmed
            | Observation::CancelRefused
            | Observation::CancelUnknown => {
                answered = answered.saturating_add(1);
                if *observation == Observation::CancelUnknown {
                    faults.aborts = faults.aborts.saturating_add(1);
                }
            }
            Observation::CancelSent => sent = sent.saturating_add(1),
            Observation::Fault(Fault::Pause | Fault::Outage | Fault::WorkerOrLeaseLost) => {
                stalls += 1;
            }
            _ => {}
        }
    }
    Setup {
        workers: if stalls > 1 { 3 } else { 2 },
        slots: 2,
        max_attempts,
        callbacks,
        cancels: answered.saturating_sub(sent),
        faults,
        is_crowded: true,
        ..Setup::default()
    }
}

/// Returns the observations that are possible for a call.
fn observations() -> impl Iterator<Item = Observation> {
    let ends = [End::Done, End::Dead, End::Cancelled, End::Expired];
    let callbacks = ends.map(|end| Observation::Callback { end: Some(end), is_taken: true });
    let outcomes = [Outcome::Ok, Outcome::Failed].map(Observation::Returned);
    let others = [
        Observation::Accepted,
        Observation::Refused,
        Observation::Started,
        Observation::BrokenOff,
        Observation::CancelConfirmed,
        Observation::CancelRefused,
        Observation::LeftQueued,
        Observation::LeftResult,
        Observation::LeftDead,
    ];
    others.into_iter().chain(outcomes).chain(callbacks)
}

// === impl Known ===

impl Known {
    fn note(&mut self, observation: Observation) {
        match observation {
            Observation::Submitted { .. } => {
                self.open_submissions += 1;
            }
            Observation::Refused => {
                self.open_submissions = self.open_submissions.saturating_sub(1);
            }
            Observation::Accepted => self.is_accepted = true,
            Observation::BrokenOff => self.to_break_off = self.to_break_off.saturating_sub(1),
            Observation::Callback { is_taken: true, .. } => self.taken += 1,
            Observation::LeftResult | Observation::LeftDeadResult => self.results_left += 1,
            Observation::LeftDead => self.dead_left += 1,
            Observation::LeftQueued => self.is_queued_left = true,
            Observation::Fault(fault) => {
                self.faults += 1;
                let open = budget(&mut self.open_faults, fault).unwrap_or(&mut self.open_losses);
                *open = open.saturating_add(1);
            }
            Observation::FaultOver(fault) => {
                let open = budget(&mut self.open_faults, fault).unwrap_or(&mut self.open_losses);
                *open = open.saturating_sub(1);
            }
            _ => {}
        }
    }
}

/// Returns the budget of faults that a fault increases. Returns `None` if its kind is not known.
fn budget(faults: &mut Faults, fault: Fault) -> Option<&mut u8> {
    Some(match fault {
        Fault::Crash => &mut faults.crashes,
        Fault::Pause => &mut faults.pauses,
        Fault::Outage => &mut faults.outages,
        Fault::LostConfirmation => &mut faults.lost_acks,
        Fault::LeaderChange => &mut faults.leader_changes,
        Fault::WorkerOrLeaseLost => return None,
        Fault::ConsumerRecreated => &mut faults.consumer_losses,
        Fault::StreamRecreated => &mut faults.recreations,
        Fault::HandBack => &mut faults.hand_backs,
        Fault::Expiry => &mut faults.expiries,
        Fault::WindowPassed => &mut faults.windows,
    })
}

// === impl Divergence ===

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Impossible { at, observation, possible } => {
                write!(f, "step {at}: the model has no run with `{observation}` here; possible:")?;
                possible.iter().try_for_each(|other| write!(f, " `{other}`"))
            }
            Self::Unfinished => {
                f.write_str("the trace ends, but the model can't come to rest like this")
            }
            Self::TooLarge { at } => write!(f, "step {at}: too many faults to follow the trace"),
        }
    }
}

impl std::error::Error for Divergence {}

#[cfg(test)]
mod tests;
