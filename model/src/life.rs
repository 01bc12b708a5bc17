//! The life of calls: from the stream through workers to their ends, with cancellations and faults.

use stateright::{Model, Property};

use self::{
    action::Action,
    setup::Setup,
    state::{CALLS, Call, Cancel, Message, Record, SEQUENCES, State, WORKERS, Worker},
};
use crate::{rule::Rule, search::Progress};

pub mod action;
mod ending;
mod faults;
mod gateway;
pub mod rules;
mod server;
mod settling;
pub mod setup;
pub mod state;
mod worker;

/// The model, within the bounds of a [`Setup`].
#[derive(Clone, Debug)]
pub struct Life {
    /// The bounds.
    pub setup: Setup,
    actions: Vec<Action>,
}

impl Life {
    /// Creates the model within these bounds.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        Self { actions: Action::all(&setup), setup }
    }

    /// Returns the first state.
    #[must_use]
    pub fn first(&self) -> State {
        State {
            calls: [Call::default(); CALLS],
            records: [Record::default(); SEQUENCES],
            workers: [Worker::default(); WORKERS],
            next_sequence: 1,
            faults: self.setup.faults,
            cancels: self.setup.cancels,
        }
    }

    /// Returns the state after a step. Returns `None` if the step is not possible.
    #[must_use]
    pub fn after(&self, state: &State, action: Action) -> Option<State> {
        let (setup, mut next) = (&self.setup, *state);
        let s = &mut next;
        match action {
            Action::Submit(c) => server::submit(s, c),
            Action::Deliver(c, w) => server::deliver(setup, s, c, w),
            Action::Due(c) => server::due(s, c),
            Action::Expire(c) => server::expire(s, c),
            Action::LookUp(c, w) => worker::look_up(setup, s, c, w),
            Action::Begin(c, w) => worker::begin(setup, s, c, w),
            Action::Return(c, w, how) => worker::returned(setup, s, c, w, how),
            Action::Store(c, w) => ending::store(setup, s, c, w),
            Action::Settle(c, w) => settling::settle(setup, s, c, w),
            Action::Confirm(c, w) => settling::confirm(setup, s, c, w),
            Action::GiveUp(c, w) => settling::abandon(setup, s, c, w),
            Action::Hear(c, w) => worker::hear(setup, s, c, w),
            Action::AskCancel(c) => gateway::ask(setup, s, c),
            Action::Cancel(c) => gateway::step(setup, s, c),
            Action::CancelAfterLeases(c) => gateway::after_leases(setup, s, c),
            Action::CancelTimeout(c) => gateway::time_out(setup, s, c),
            Action::Resume(w) => faults::resume(s, w),
            Action::Crash(w) => faults::crash(s, w),
            Action::Pause(w) => faults::pause(s, w),
            Action::Outage(c) => server::outage(s, c),
            Action::LoseAck(c, w) => settling::lose_ack(setup, s, c, w),
            Action::Forget(c) => server::forget(setup, s, c),
            Action::RecreateConsumer => server::recreate_consumer(setup, s),
            Action::Recreate => server::recreate(setup, s),
            Action::HandBack(c, w) => faults::hand_back(setup, s, c, w),
            Action::Age(c) => faults::age(s, c),
            Action::Abort(c) => gateway::abort(s, c),
            Action::PassWindow => faults::pass_window(s),
        }?;
        Some(next)
    }

    /// Returns the possible steps, each with the state after it.
    pub fn steps<'a>(&'a self, state: &'a State) -> impl Iterator<Item = (Action, State)> + 'a {
        self.actions.iter().filter_map(|action| Some((*action, self.after(state, *action)?)))
    }

    /// Returns whether every call has ended, no worker has a task, and every cancellation is
    /// answered.
    #[must_use]
    pub fn is_at_rest(&self, state: &State) -> bool {
        let calls = state.calls.iter().take(usize::from(self.setup.calls));
        let is_over = |call: &Call| {
            call.message == Message::Gone
                && matches!(call.cancel, Cancel::None | Cancel::Answered(_))
        };
        calls.into_iter().all(is_over)
            && state.workers.iter().all(|worker| worker.tasks.iter().all(Option::is_none))
    }
}

impl Progress for Life {
    type State = State;
    type Action = Action;

    const RULE: Rule = Rule::Ends;

    fn first(&self) -> State {
        Self::first(self)
    }

    fn steps(&self, state: &State) -> Vec<(Action, State)> {
        Self::steps(self, state).collect()
    }

    fn is_fault(action: Action) -> bool {
        action.is_fault()
    }

    fn is_at_rest(&self, state: &State) -> bool {
        Self::is_at_rest(self, state)
    }
}

impl Model for Life {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.first()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        actions.extend(self.steps(state).map(|(action, _)| action));
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        self.after(state, action)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        rules::properties()
    }
}
