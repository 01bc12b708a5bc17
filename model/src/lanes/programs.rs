//! What creates, changes and removes consumers: producers, the sweep, and the operator.

use super::{
    setup::Setup,
    state::{
        CONSUMERS, Consumer, Message, Operator, Pause, Place, Producer, QUEUE, State, Sweep,
        lane_of,
    },
};
use crate::guard::Guard;

/// The program that stored a call ensures its lane.
pub(super) fn ensure(setup: Setup, state: &mut State, c: usize) -> Option<()> {
    let lane = lane_of(setup, c);
    state.calls[c].producer = match state.calls[c].producer {
        Producer::HasStored if state.consumers[lane].is_some() => Producer::Done,
        Producer::HasStored => Producer::NeedsLane,
        Producer::NeedsLane => state
            .rest()
            .map_or(Producer::Done, |rest| Producer::Creates { is_paused: rest.is_paused() }),
        Producer::Creates { is_paused } => {
            state.create(setup, lane, true, is_paused);
            Producer::Done
        }
        Producer::Idle | Producer::Done => return None,
    };
    Some(())
}

/// Sweeps and changes of the fairness are apart.
fn may_sweep(state: &State) -> bool {
    state.sweep == Sweep::Idle && state.operator == Operator::Idle
}

/// A sweep lists the consumers, and finds something to do with a lane.
pub(super) fn begin_sweep(
    state: &mut State,
    find: impl Fn(&State, Consumer) -> Option<Sweep>,
) -> Option<()> {
    let rest = state.rest().filter(|_| may_sweep(state))?;
    state.sweep = find(state, rest)?;
    Some(())
}

/// The sweep pauses or resumes a lane as the consumer of the queue.
pub(super) fn align(setup: Setup, state: &mut State, lane: usize) -> Option<()> {
    let rest = state.rest().filter(|_| setup.has(Guard::LanesFollowPause) && may_sweep(state))?;
    let consumer = state.consumers[lane].as_mut()?;
    let is_other = consumer.pause != Pause::Short && consumer.is_paused() != rest.is_paused();
    is_other.then(|| consumer.pause = rest.pause)
}

/// A lane that is missing.
pub(super) fn creates(setup: Setup, state: &State, rest: Consumer, lane: usize) -> Option<Sweep> {
    let is_missing = state.consumers[lane].is_none() && has_call(setup, state, lane);
    let is_found = is_missing && setup.has(Guard::SweepFindsCalls);
    is_found.then_some(Sweep::Creates { lane, is_paused: rest.is_paused() })
}

/// A lane that is not used.
pub(super) fn removes(setup: Setup, state: &State, rest: Consumer, lane: usize) -> Option<Sweep> {
    let is_unused = state.consumers[lane]?.is_drained() && !rest.is_paused();
    let is_paused_first = setup.has(Guard::RemovalPauses);
    let first = if is_paused_first { Sweep::Pauses(lane) } else { Sweep::Checks(lane) };
    is_unused.then_some(first)
}

fn has_call(setup: Setup, state: &State, lane: usize) -> bool {
    let calls = state.calls.iter().enumerate();
    calls.into_iter().any(|(c, call)| call.message == Message::Stored && lane_of(setup, c) == lane)
}

/// The sweep takes its next step. It ends where a lane is gone.
pub(super) fn sweep(setup: Setup, state: &mut State) -> Option<()> {
    let next = match state.sweep {
        Sweep::Idle => return None,
        Sweep::Creates { lane, is_paused } => {
            state.create(setup, lane, true, is_paused);
            Sweep::Idle
        }
        Sweep::Pauses(lane) if state.consumers[lane].is_none() => Sweep::Idle,
        Sweep::Pauses(lane) => {
            set_pause(state, lane, Pause::Short);
            Sweep::Checks(lane)
        }
        Sweep::Checks(lane) => match state.consumers[lane] {
            None => Sweep::Idle,
            Some(consumer) if consumer.is_drained() || !setup.has(Guard::RemovalChecks) => {
                Sweep::Deletes(lane)
            }
            Some(_) => Sweep::Resumes(lane),
        },
        Sweep::Deletes(lane) => {
            let is_deleted = state.delete(lane);
            // The list of consumers is as old as the sweep, in which the queue was not paused.
            if is_deleted && has_call(setup, state, lane) {
                Sweep::Creates { lane, is_paused: false }
            } else {
                Sweep::Idle
            }
        }
        Sweep::Resumes(lane) => {
            set_pause(state, lane, Pause::No);
            Sweep::Idle
        }
    };
    state.sweep = next;
    Some(())
}

fn set_pause(state: &mut State, consumer: usize, pause: Pause) {
    if let Some(consumer) = &mut state.consumers[consumer] {
        consumer.pause = pause;
    }
}

/// The operator takes its next step.
pub(super) fn operate(setup: Setup, state: &mut State) -> Option<()> {
    let spec = state.spec;
    if state.sweep != Sweep::Idle {
        return None;
    }
    state.operator = match state.operator {
        Operator::Idle if must_replace(setup, state) => Operator::Pauses(exist(state)),
        Operator::Idle => match &mut state.consumers[QUEUE] {
            Some(queue) if queue.is_paused() != spec.is_suspended => {
                queue.pause = if spec.is_suspended { Pause::Suspended } else { Pause::No };
                Operator::Idle
            }
            Some(_) => return None,
            None => Operator::Creates { is_replaced: false },
        },
        Operator::Pauses(listed) => {
            for (consumer, _) in state.consumers.iter_mut().zip(listed).filter(|(_, is)| *is) {
                if let Some(consumer) = consumer {
                    pause(setup, consumer);
                }
            }
            Operator::Lists
        }
        Operator::Lists => list(setup, state),
        Operator::Deletes(listed) => {
            // The consumer of the queue says which form the queue has: it is the last.
            let next = (1..CONSUMERS).chain([QUEUE]).find(|number| listed[*number]);
            match next {
                Some(number) => {
                    let mut listed = listed;
                    listed[number] = false;
                    if state.delete(number) { Operator::Deletes(listed) } else { Operator::Idle }
                }
                None => Operator::Creates { is_replaced: true },
            }
        }
        Operator::Creates { is_replaced } => {
            let is_created = state.create(setup, QUEUE, spec.has_lanes, spec.is_suspended);
            if is_created || !is_replaced || setup.has(Guard::ChangeChecksAgain) {
                Operator::Idle
            } else {
                Operator::Deletes(exist(state))
            }
        }
    };
    Some(())
}

/// Returns whether the queue has consumers of the other form: its own, or lanes that were created
/// while its own was replaced.
fn must_replace(setup: Setup, state: &State) -> bool {
    let has_lanes = state.consumers[1..].iter().any(Option::is_some);
    match state.consumers[QUEUE] {
        Some(queue) => queue.has_lanes != state.spec.has_lanes,
        None => has_lanes && !state.spec.has_lanes && setup.has(Guard::ChangeRemovesLeftovers),
    }
}

fn exist(state: &State) -> [bool; CONSUMERS] {
    state.consumers.map(|consumer| consumer.is_some())
}

/// Pauses a consumer until the queue is resumed.
fn pause(setup: Setup, consumer: &mut Consumer) {
    if setup.has(Guard::ChangeNeedsPause) {
        consumer.pause = Pause::Suspended;
    }
}

/// Lists the consumers, which can be replaced if all are paused and no call is in flight.
fn list(setup: Setup, state: &State) -> Operator {
    let mut existing = state.consumers.iter().flatten();
    if setup.has(Guard::ChangeNeedsPause) && existing.clone().any(|it| it.pause != Pause::Suspended)
    {
        return Operator::Pauses(exist(state));
    }
    let has_none = |consumer: &Consumer| !consumer.calls.contains(&Place::Out);
    if existing.all(has_none) || !setup.has(Guard::ChangeNeedsAcks) {
        Operator::Deletes(exist(state))
    } else {
        Operator::Idle
    }
}
