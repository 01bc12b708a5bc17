//! The shares of workers in the concurrency and the rate of their queue.
//!
//! Workers renew their shares in one entry, over which they compare and set. The division itself is
//! the product's own function, [`asyncqueue::shares::division::renew`].

use stateright::{Model, Property};

use self::{action::Action, setup::Setup, state::State};
use crate::{rule::Rule, search::Progress};

pub mod action;
pub mod bounds;
mod faults;
mod gate;
mod renewal;
mod rules;
pub mod setup;
pub mod state;
mod time;

/// The model, within the bounds of a [`Setup`].
#[derive(Clone, Debug)]
pub struct Sharing {
    /// The bounds.
    pub setup: Setup,
    actions: Vec<Action>,
}

impl Sharing {
    /// Creates the model within these bounds.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        Self { actions: Action::all(&setup), setup }
    }

    fn after(&self, state: &State, action: Action) -> Option<State> {
        let (setup, mut next) = (&self.setup, *state);
        let s = &mut next;
        match action {
            Action::Tick => time::tick(s),
            Action::Send(w) => renewal::send(setup, s, w),
            Action::Write(w) => renewal::write(setup, s, w),
            Action::Answer(w) => renewal::answer(setup, s, w),
            Action::WriteLate(w) => renewal::write_late(setup, s, w),
            Action::DropLate(w) => renewal::drop_late(s, w),
            Action::Remove(w) => renewal::remove(s, w),
            Action::Permit(w) => gate::permit(setup, s, w),
            Action::Start(w, i) => gate::start(s, w, i),
            Action::End(w, i) => gate::end(s, w, i),
            Action::Learn(w) => faults::learn(s, w),
            Action::Continue(w) => faults::go_on(s, w),
            Action::Reconnect(w) => faults::reconnect(s, w),
            Action::Change => faults::change(setup, s),
            Action::Join(w) => faults::join(s, w),
            Action::Leave(w) => faults::leave(s, w),
            Action::GiveUp(w) => renewal::give_up(s, w),
            Action::Crash(w) => faults::crash(s, w),
            Action::Stop(w) => faults::stop(s, w),
            Action::CutOff(w) => faults::cut_off(s, w),
        }?;
        next.forget(setup);
        Some(next)
    }
}

impl Progress for Sharing {
    type State = State;
    type Action = Action;

    const RULE: Rule = Rule::ShareIsUsed;

    fn first(&self) -> State {
        State::new(self.setup.workers.into(), self.setup.faults)
    }

    fn steps(&self, state: &State) -> Vec<(Action, State)> {
        let steps = self.actions.iter();
        steps.filter_map(|action| Some((*action, self.after(state, *action)?))).collect()
    }

    fn is_fault(action: Action) -> bool {
        action.is_fault()
    }

    fn is_at_rest(&self, state: &State) -> bool {
        rules::is_divided(&self.setup, state)
    }
}

impl Model for Sharing {
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
            Property::always(Rule::TotalKept.name(), |_, s: &State| {
                s.broken != Some(Rule::TotalKept)
            }),
            Property::always(Rule::OneShareAbove.name(), |_, s: &State| {
                s.broken != Some(Rule::OneShareAbove)
            }),
            Property::always(Rule::NoStartAfterLease.name(), |_, s: &State| {
                s.broken != Some(Rule::NoStartAfterLease)
            }),
            Property::always(Rule::RateKept.name(), |_, s: &State| rules::keeps_rate(s)),
        ]
    }
}
