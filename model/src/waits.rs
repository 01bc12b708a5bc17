//! Kept results, and clients that wait for them.
//!
//! Two calls share an id, and the client of each waits. A subscription is for the results of an id,
//! so each gateway gets the results of both calls.

use stateright::{Model, Property};

use self::{
    action::Action,
    setup::Setup,
    state::{Call, Message, Phase, State, Worker},
};
use crate::{guard::Guard, rule::Rule, search::Progress};

pub mod action;
pub mod bounds;
pub mod setup;
pub mod state;

/// The model, within the bounds of a [`Setup`].
#[derive(Clone, Debug)]
pub struct Waits {
    /// The bounds.
    pub setup: Setup,
    actions: Vec<Action>,
}

impl Waits {
    /// Creates the model within these bounds.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        Self { actions: Action::all(), setup }
    }

    fn after(&self, state: &State, action: Action) -> Option<State> {
        let (setup, mut next) = (self.setup, *state);
        let s = &mut next;
        match action {
            Action::Subscribe(c) => subscribe(setup, s, c),
            Action::Publish(c) => publish(setup, s, c),
            Action::Acked(c) => {
                let phase = &mut s.clients[c].phase;
                (*phase == Phase::Published).then(|| *phase = Phase::Waits)
            }
            Action::Take(c, of) => take(setup, s, c, of),
            Action::Deadline(c) => {
                let was_kept = s.calls[c].kept.is_some();
                let phase = &mut s.clients[c].phase;
                s.faults.deadlines = s.faults.deadlines.checked_sub(1)?;
                (*phase == Phase::Waits).then(|| *phase = Phase::Reads { was_kept })
            }
            Action::Read(c) => read(setup, s, c),
            Action::Disconnect(c) => {
                s.faults.disconnects = s.faults.disconnects.checked_sub(1)?;
                let client = &mut s.clients[c];
                client.heard = [None; state::CALLS];
                (client.is_disconnected, client.has_lost) = (true, true);
                Some(())
            }
            Action::Reconnect(c) => {
                let client = &mut s.clients[c];
                client.is_disconnected.then(|| client.is_disconnected = false)
            }
            Action::Deliver(w, c) => {
                let is_free = !s.is_held(c);
                is_free.then(|| deliver(s, w, c)).flatten()
            }
            Action::Redeliver(w, c) => {
                s.faults.leases = s.faults.leases.checked_sub(1)?;
                let is_held = s.is_held(c);
                // A delivery whose lease ran out before the call began is dropped.
                for worker in &mut s.workers {
                    if matches!(worker, Worker::Has { call, .. } if *call == c) {
                        *worker = Worker::Idle;
                    }
                }
                is_held.then(|| deliver(s, w, c)).flatten()
            }
            Action::Work(w) => work(setup, s, w),
            Action::Crash(w) => {
                s.faults.crashes = s.faults.crashes.checked_sub(1)?;
                (s.workers[w] != Worker::Idle).then(|| s.workers[w] = Worker::Idle)
            }
        }?;
        Some(next)
    }
}

/// Before the call is published; without the guard, after its ack.
fn subscribe(setup: Setup, state: &mut State, c: usize) -> Option<()> {
    let is_first = setup.has(Guard::WaitSubscribesFirst);
    let turn = if is_first { Phase::New } else { Phase::Waits };
    let client = &mut state.clients[c];
    let is_possible = client.phase == turn && !client.is_subscribed;
    is_possible.then(|| client.is_subscribed = true)
}

fn publish(setup: Setup, state: &mut State, c: usize) -> Option<()> {
    let client = &mut state.clients[c];
    let is_ready = client.is_subscribed || !setup.has(Guard::WaitSubscribesFirst);
    (client.phase == Phase::New && is_ready).then(|| {
        client.phase = Phase::Published;
        state.calls[c].message = Message::Stored;
    })
}

/// Takes a result; with the guard, only that of the sequence that the ack names.
fn take(setup: Setup, state: &mut State, c: usize, of: usize) -> Option<()> {
    let client = state.clients[c];
    let run = client.heard[of]?;
    let is_taken = client.phase == Phase::Waits
        && client.is_subscribed
        && (of == c || !setup.has(Guard::WaitKeepsOwn));
    is_taken.then(|| {
        if of != c {
            state.breaks(Rule::WaitIsOwn);
        }
        answer(state, c, Some(run));
    })
}

fn read(setup: Setup, state: &mut State, c: usize) -> Option<()> {
    let Phase::Reads { was_kept } = state.clients[c].phase else { return None };
    let kept = state.calls[c].kept.filter(|_| setup.has(Guard::WaitReadsAtTheEnd));
    if kept.is_none() && was_kept {
        state.breaks(Rule::WaitMissesNone);
    }
    answer(state, c, kept);
    Some(())
}

fn answer(state: &mut State, c: usize, run: Option<u8>) {
    if run.is_some() && state.calls[c].kept != run {
        state.breaks(Rule::OneResult);
    }
    state.clients[c].phase = Phase::Answered(run);
}

fn deliver(state: &mut State, w: usize, c: usize) -> Option<()> {
    let Call { message, was_delivered, .. } = state.calls[c];
    if message != Message::Stored || state.workers[w] != Worker::Idle {
        return None;
    }
    state.calls[c].was_delivered = true;
    state.workers[w] = Worker::Has { call: c, is_first: !was_delivered };
    Some(())
}

fn work(setup: Setup, state: &mut State, w: usize) -> Option<()> {
    let keeps_first = setup.has(Guard::KeptResultBeforeAck);
    state.workers[w] = match state.workers[w] {
        Worker::Idle => return None,
        Worker::Has { call, is_first } => {
            let is_known = !is_first && state.calls[call].kept.is_some();
            if is_known && setup.has(Guard::WorkerReadsKeptResult) {
                Worker::Acks { call, keeps: None }
            } else {
                start(state, call)
            }
        }
        Worker::Runs { call, run } if keeps_first => Worker::Keeps { call, run, is_acked: false },
        Worker::Runs { call, run } => Worker::Acks { call, keeps: Some(run) },
        Worker::Keeps { call, run, is_acked } => {
            keep(setup, state, call, run);
            if is_acked { Worker::Idle } else { Worker::Acks { call, keeps: None } }
        }
        Worker::Acks { call, keeps } => {
            state.calls[call].message = Message::Gone;
            if state.calls[call].kept.is_none() {
                state.breaks(Rule::ResultIsKept);
            }
            keeps.map_or(Worker::Idle, |run| Worker::Keeps { call, run, is_acked: true })
        }
    };
    Some(())
}

fn start(state: &mut State, call: usize) -> Worker {
    if state.calls[call].kept.is_some() {
        state.breaks(Rule::NoRunAfterResult);
    }
    state.calls[call].runs += 1;
    Worker::Runs { call, run: state.calls[call].runs }
}

/// Stores a result, if it is the first one, and publishes it to who is subscribed.
fn keep(setup: Setup, state: &mut State, call: usize, run: u8) {
    let kept = &mut state.calls[call].kept;
    if kept.is_some() && setup.has(Guard::KeptResultFirstWins) {
        return;
    }
    *kept = Some(run);
    let is_other = |phase| matches!(phase, Phase::Answered(Some(answered)) if answered != run);
    if is_other(state.clients[call].phase) {
        state.breaks(Rule::OneResult);
    }
    for client in &mut state.clients {
        if client.is_subscribed && !client.is_disconnected {
            client.heard[call] = Some(run);
        }
    }
}

impl Progress for Waits {
    type State = State;
    type Action = Action;

    const RULE: Rule = Rule::WaitIsAnswered;

    fn first(&self) -> State {
        State::new(self.setup.faults)
    }

    fn steps(&self, state: &State) -> Vec<(Action, State)> {
        let steps = self.actions.iter();
        steps.filter_map(|action| Some((*action, self.after(state, *action)?))).collect()
    }

    fn is_fault(action: Action) -> bool {
        action.is_fault()
    }

    /// A client that has lost its connection may have to wait for its deadline.
    fn is_at_rest(&self, state: &State) -> bool {
        state.calls.iter().all(|call| call.message == Message::Gone)
            && state
                .clients
                .iter()
                .all(|client| matches!(client.phase, Phase::Answered(_)) || client.has_lost)
    }
}

impl Model for Waits {
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
            Property::always(Rule::WaitIsOwn.name(), |_, s: &State| {
                s.broken != Some(Rule::WaitIsOwn)
            }),
            Property::always(Rule::OneResult.name(), |_, s: &State| {
                s.broken != Some(Rule::OneResult)
            }),
            Property::always(Rule::ResultIsKept.name(), |_, s: &State| {
                s.broken != Some(Rule::ResultIsKept)
            }),
            Property::always(Rule::WaitMissesNone.name(), |_, s: &State| {
                s.broken != Some(Rule::WaitMissesNone)
            }),
            Property::always(Rule::NoRunAfterResult.name(), |_, s: &State| {
                s.broken != Some(Rule::NoRunAfterResult)
            }),
        ]
    }
}
