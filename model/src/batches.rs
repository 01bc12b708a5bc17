//! The end of a batch: how the ends of its calls are recorded and counted, and how it is reported.

use stateright::{Model, Property};

use self::{
    action::Action,
    setup::Setup,
    state::{CALLS, End, Ends, Message, Program, SWEEP, State, Step},
};
use crate::{guard::Guard, rule::Rule, search::Progress};

pub mod action;
pub mod bounds;
pub mod setup;
pub mod state;

/// The model, within the bounds of a [`Setup`].
#[derive(Clone, Debug)]
pub struct Batches {
    /// The bounds.
    pub setup: Setup,
    actions: Vec<Action>,
}

impl Batches {
    /// Creates the model within these bounds.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        Self { actions: Action::all(), setup }
    }

    fn after(&self, state: &State, action: Action) -> Option<State> {
        let (setup, mut next) = (self.setup, *state);
        let s = &mut next;
        match action {
            Action::Deliver(p, c) => {
                let is_free = !s.is_held(c);
                is_free.then(|| deliver(setup, s, p, c, End::Done)).flatten()
            }
            Action::Fail(p, c) => {
                s.faults.failures = s.faults.failures.checked_sub(1)?;
                let is_free = !s.is_held(c) && !s.calls[c].is_cancelled;
                is_free.then(|| deliver(setup, s, p, c, End::Failed)).flatten()
            }
            Action::Redeliver(p, c) => {
                s.faults.leases = s.faults.leases.checked_sub(1)?;
                let is_held = s.is_held(c);
                is_held.then(|| deliver(setup, s, p, c, End::Done)).flatten()
            }
            Action::Work(p) => work(setup, s, p),
            Action::Crash(p) => {
                s.faults.crashes = s.faults.crashes.checked_sub(1)?;
                let program = &mut s.programs[p];
                (program.step != Step::Idle).then(|| *program = Program::IDLE)
            }
            Action::Sweep(c) => sweep(setup, s, c),
            Action::PassWindow => {
                s.faults.windows = s.faults.windows.checked_sub(1)?;
                if s.batch.has_callback {
                    s.batch.repeats += 1;
                }
                (s.batch.counted, s.batch.has_callback) = ([false; CALLS], false);
                Some(())
            }
            Action::Purge(c) => {
                s.faults.purges = s.faults.purges.checked_sub(1)?;
                let call = &mut s.calls[c];
                call.is_stored().then(|| call.message = Message::Purged)
            }
        }?;
        Some(next)
    }
}

/// A worker gets a call, and runs it unless it is cancelled.
fn deliver(setup: Setup, state: &mut State, p: usize, c: usize, end: End) -> Option<()> {
    let call = state.calls[c];
    if p == SWEEP || state.programs[p].step != Step::Idle || !call.is_stored() {
        return None;
    }
    // The rest of a batch does not start once the call that has failed is acknowledged.
    let has_failed = |other: &state::Call| {
        other.message == Message::Acknowledged && other.first_end == Some(End::Failed)
    };
    if setup.cancels_rest
        && !call.was_delivered
        && !call.is_cancelled
        && state.calls.iter().any(has_failed)
    {
        state.breaks(Rule::BatchStopsRest);
    }
    state.calls[c].was_delivered = true;
    let end = if call.is_cancelled { End::Cancelled } else { end };
    let is_first = setup.has(Guard::BatchEndBeforeAck);
    let step = if is_first { Step::WriteEnd } else { Step::Ack };
    state.programs[p] = Program { step, call: c, end, is_acked: false };
    Some(())
}

/// The sweep ends a call that has left its queue without an end, and reports a batch whose calls
/// have all ended.
fn sweep(setup: Setup, state: &mut State, c: usize) -> Option<()> {
    let call = state.calls[c];
    if !setup.sweeps || !state.batch.is_open || state.programs[SWEEP].step != Step::Idle {
        return None;
    }
    let is_missing = !call.is_stored() && state.batch.ends[c].is_none();
    let is_complete = state.batch.ends.iter().all(Option::is_some);
    let step = match (is_missing, is_complete) {
        (true, _) => Step::WriteEnd,
        (_, true) => Step::Read,
        _ => return None,
    };
    let end = if call.is_cancelled { End::Cancelled } else { End::Unknown };
    state.programs[SWEEP] = Program { step, call: c, end, is_acked: true };
    Some(())
}

fn work(setup: Setup, state: &mut State, p: usize) -> Option<()> {
    let program = state.programs[p];
    let step = match program.step {
        Step::Idle => return None,
        Step::WriteEnd => write_end(setup, state, p),
        Step::Count => count(setup, state, program),
        Step::Read => read(setup, state, program),
        Step::CallBack(ends) => {
            call_back(setup, state, ends);
            let is_kept = setup.has(Guard::BatchReportKept);
            if is_kept { Step::WriteReport(ends) } else { Step::Remove(ends) }
        }
        Step::WriteReport(ends) => {
            state.batch.report.get_or_insert(ends);
            let is_kept = setup.has(Guard::BatchReportKept);
            if is_kept { Step::Remove(ends) } else { settled(program) }
        }
        Step::Remove(ends) => {
            let batch = &mut state.batch;
            (batch.is_open, batch.ends, batch.counter) = (false, [None; CALLS], 0);
            let is_kept = setup.has(Guard::BatchReportKept);
            if is_kept { settled(program) } else { Step::WriteReport(ends) }
        }
        Step::CancelRest => {
            for c in 0..CALLS {
                let is_left = c != program.call && state.batch.ends[c].is_none();
                state.calls[c].is_cancelled |= is_left && state.calls[c].is_stored();
            }
            settled(program)
        }
        Step::Ack => ack(setup, state, p),
    };
    let program = &mut state.programs[p];
    if step == Step::Idle {
        *program = Program::IDLE;
    } else {
        program.step = step;
    }
    Some(())
}

/// What comes after the end of a call is recorded.
fn settled(program: Program) -> Step {
    if program.is_acked { Step::Idle } else { Step::Ack }
}

/// Without the guards of the order, the call is acknowledged before its end is recorded, or before
/// the rest is cancelled.
fn ack(setup: Setup, state: &mut State, p: usize) -> Step {
    let program = &mut state.programs[p];
    program.is_acked = true;
    let message = &mut state.calls[program.call].message;
    if *message == Message::Stored {
        *message = Message::Acknowledged;
    }
    let is_failed = setup.cancels_rest && program.end == End::Failed;
    if !setup.has(Guard::BatchEndBeforeAck) {
        Step::WriteEnd
    } else if is_failed && !setup.has(Guard::BatchCancelsBeforeAck) {
        Step::CancelRest
    } else {
        Step::Idle
    }
}

/// Writes an end, unless the call has one. A worker that finds its own goes on, as that of its
/// earlier delivery may not have.
fn write_end(setup: Setup, state: &mut State, p: usize) -> Step {
    let Program { call, end, .. } = state.programs[p];
    // What was removed stays away: its call has no message any more, or an end that was reported.
    if !state.batch.is_open {
        return settled(state.programs[p]);
    }
    match state.batch.ends[call] {
        Some(before) if setup.has(Guard::BatchFirstEndWins) => {
            state.programs[p].end = before;
            let goes_on = setup.has(Guard::BatchRepeatCounts);
            return if goes_on { Step::Count } else { settled(state.programs[p]) };
        }
        _ => {}
    }
    state.batch.ends[call] = Some(end);
    state.calls[call].first_end.get_or_insert(end);
    if p == SWEEP { Step::Read } else { Step::Count }
}

/// Adds to the counter, and decides whether this may be the last end.
fn count(setup: Setup, state: &mut State, program: Program) -> Step {
    let batch = &mut state.batch;
    let counted = if std::mem::replace(&mut batch.counted[program.call], true) {
        None
    } else {
        batch.counter += 1;
        Some(usize::from(batch.counter))
    };
    match counted {
        Some(counted) if counted < CALLS => after_count(setup, program),
        None if !setup.has(Guard::BatchRepeatReads) => after_count(setup, program),
        _ => Step::Read,
    }
}

/// What a worker does after the end of a call that was not the last one.
fn after_count(setup: Setup, program: Program) -> Step {
    let is_failed = setup.cancels_rest && program.end == End::Failed;
    if is_failed && setup.has(Guard::BatchCancelsBeforeAck) && !program.is_acked {
        Step::CancelRest
    } else {
        settled(program)
    }
}

/// Reads all ends, and reports the end of the batch if each call has one.
fn read(setup: Setup, state: &mut State, program: Program) -> Step {
    if !state.batch.is_open {
        return settled(program);
    }
    let ends = state.batch.ends;
    let is_complete = ends.iter().all(Option::is_some);
    if is_complete || !setup.has(Guard::BatchReadsEnds) {
        report(state, ends);
        Step::CallBack(ends)
    } else if setup.has(Guard::BatchRepeatCancels) {
        after_count(setup, program)
    } else {
        settled(program)
    }
}

/// Checks a report.
fn report(state: &mut State, ends: Ends) {
    for (call, end) in state.calls.iter().zip(ends) {
        let is_wrong = match end {
            None => {
                state.broken.get_or_insert(Rule::BatchIsComplete);
                false
            }
            Some(End::Unknown) => call.message != Message::Purged,
            end => end != call.first_end,
        };
        if is_wrong {
            state.broken.get_or_insert(Rule::BatchAgrees);
        }
    }
}

/// Stores the callback, unless NATS knows its message id.
fn call_back(setup: Setup, state: &mut State, ends: Ends) {
    if state.batch.has_callback && setup.has(Guard::BatchCallbackHasId) {
        return;
    }
    state.batch.has_callback = true;
    match state.batch.called_back {
        None => state.batch.called_back = Some(ends),
        Some(before) if before != ends => state.breaks(Rule::BatchAgrees),
        Some(_) => match state.batch.repeats.checked_sub(1) {
            Some(rest) => state.batch.repeats = rest,
            None => state.breaks(Rule::BatchCallsBackOnce),
        },
    }
}

impl Progress for Batches {
    type State = State;
    type Action = Action;

    const RULE: Rule = Rule::BatchEnds;

    fn first(&self) -> State {
        State::new(self.setup)
    }

    fn steps(&self, state: &State) -> Vec<(Action, State)> {
        let steps = self.actions.iter();
        steps.filter_map(|action| Some((*action, self.after(state, *action)?))).collect()
    }

    fn is_fault(action: Action) -> bool {
        action.is_fault()
    }

    fn is_at_rest(&self, state: &State) -> bool {
        state.batch.report.is_some() && !state.batch.is_open
    }
}

impl Model for Batches {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.first()]
    }

    fn actions(&self, _: &State, actions: &mut Vec<Action>) {
        actions.extend(&self.actions);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        self.after(state, action)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(Rule::BatchAgrees.name(), |_, s: &State| {
                s.broken != Some(Rule::BatchAgrees)
            }),
            Property::always(Rule::BatchIsComplete.name(), |_, s: &State| {
                s.broken != Some(Rule::BatchIsComplete)
            }),
            Property::always(Rule::BatchCallsBackOnce.name(), |_, s: &State| {
                s.broken != Some(Rule::BatchCallsBackOnce)
            }),
            Property::always(Rule::BatchStopsRest.name(), |_, s: &State| {
                s.broken != Some(Rule::BatchStopsRest)
            }),
        ]
    }
}
