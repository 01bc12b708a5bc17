//! The lanes of a queue: how they are created and removed, and how the fairness of a queue changes.
//!
//! Consumers of a work queue may not overlap. What one has delivered when it is deleted, another
//! delivers again, and the acknowledgement of the first delivery removes nothing.

use stateright::{Model, Property};

use self::{
    action::Action,
    setup::Setup,
    state::{Delivery, Message, Operator, Pause, Place, Producer, QUEUE, State, Sweep, takes},
};
use crate::{rule::Rule, search::Progress};

pub mod action;
pub mod bounds;
mod programs;
pub mod setup;
pub mod state;

/// The model, within the bounds of a [`Setup`].
#[derive(Clone, Debug)]
pub struct Lanes {
    /// The bounds.
    pub setup: Setup,
    actions: Vec<Action>,
}

impl Lanes {
    /// Creates the model within these bounds.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        Self { actions: Action::all(), setup }
    }

    fn after(&self, state: &State, action: Action) -> Option<State> {
        let (setup, mut next) = (self.setup, *state);
        let s = &mut next;
        match action {
            Action::Store(c) => store(setup, s, c),
            Action::Ensure(c) => programs::ensure(setup, s, c),
            Action::EnsureNone(c) => {
                let producer = &mut s.calls[c].producer;
                (*producer == Producer::HasStored).then(|| *producer = Producer::Done)
            }
            Action::Deliver(c, consumer) => deliver(s, c, consumer),
            Action::Ack(c, delivery) => ack(s, c, delivery),
            Action::Nak(c, delivery) => nak(s, c, delivery),
            Action::Operate => programs::operate(setup, s),
            Action::SweepAligns(lane) => programs::align(setup, s, lane),
            Action::SweepCreates(lane) => {
                programs::begin_sweep(s, |s, rest| programs::creates(setup, s, rest, lane))
            }
            Action::SweepRemoves(lane) => {
                programs::begin_sweep(s, |s, rest| programs::removes(setup, s, rest, lane))
            }
            Action::Sweep => programs::sweep(setup, s),
            Action::PauseEnds(lane) => {
                // It is longer than a removal or a change takes.
                let is_left = s.sweep == Sweep::Idle && s.operator == Operator::Idle;
                let paused = s.consumers[lane].as_mut().filter(|_| is_left);
                let paused = paused.filter(|consumer| consumer.pause == Pause::Short);
                paused.map(|consumer| consumer.pause = Pause::No)
            }
            Action::Suspend => {
                s.faults.suspensions = s.faults.suspensions.checked_sub(1)?;
                (!s.spec.is_suspended).then(|| s.spec.is_suspended = true)
            }
            Action::Change => change(s),
            Action::Resume => s.spec.is_suspended.then(|| s.spec.is_suspended = false),
            Action::Restart => {
                s.faults.restarts = s.faults.restarts.checked_sub(1)?;
                (s.operator, s.sweep) = (Operator::Idle, Sweep::Idle);
                Some(())
            }
        }?;
        Some(next)
    }
}

fn store(setup: Setup, state: &mut State, c: usize) -> Option<()> {
    let call = &mut state.calls[c];
    if call.message != Message::Absent {
        return None;
    }
    (call.message, call.producer) = (Message::Stored, Producer::HasStored);
    for (number, consumer) in state.consumers.iter_mut().enumerate() {
        if let Some(consumer) = consumer
            && takes(setup, *consumer, number, c)
        {
            consumer.calls[c] = Place::Pending;
        }
    }
    Some(())
}

fn deliver(state: &mut State, c: usize, number: usize) -> Option<()> {
    let consumer = state.consumers[number].as_mut().filter(|consumer| !consumer.is_paused())?;
    let place = &mut consumer.calls[c];
    if !matches!(place, Place::Pending | Place::Delayed) {
        return None;
    }
    *place = Place::Out;
    let deliveries = &mut state.calls[c].deliveries;
    if deliveries.iter().any(Option::is_some) {
        state.broken.get_or_insert(Rule::OneDelivery);
    }
    let free = deliveries.iter_mut().find(|delivery| delivery.is_none())?;
    *free = Some(Delivery { consumer: Some(number) });
    Some(())
}

fn ack(state: &mut State, c: usize, delivery: usize) -> Option<()> {
    let ended = state.calls[c].deliveries[delivery].take()?;
    if ended.consumer.is_some() {
        state.calls[c].message = Message::Gone;
        for consumer in state.consumers.iter_mut().flatten() {
            consumer.calls[c] = Place::None;
        }
    }
    Some(())
}

fn nak(state: &mut State, c: usize, delivery: usize) -> Option<()> {
    let ended = state.calls[c].deliveries[delivery].take()?;
    state.faults.retries = state.faults.retries.checked_sub(1)?;
    if let Some(consumer) = ended.consumer.and_then(|number| state.consumers[number].as_mut()) {
        consumer.calls[c] = Place::Delayed;
    }
    Some(())
}

fn change(state: &mut State) -> Option<()> {
    state.spec.changes = state.spec.changes.checked_sub(1)?;
    state.spec.has_lanes = !state.spec.has_lanes;
    Some(())
}

impl Progress for Lanes {
    type State = State;
    type Action = Action;

    const RULE: Rule = Rule::LanesServe;

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
        let queue = state.consumers[QUEUE];
        state.calls.iter().all(|call| call.message == Message::Gone)
            && !state.spec.is_suspended
            && queue.is_some_and(|queue| queue.has_lanes == state.spec.has_lanes)
    }
}

impl Model for Lanes {
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
        vec![Property::always(Rule::OneDelivery.name(), |_, s: &State| {
            s.broken != Some(Rule::OneDelivery)
        })]
    }
}
