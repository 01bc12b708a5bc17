//! Steps of a worker that store an end: the tombstone, the result and the dead letter.

use super::{
    setup::{Oversized, Setup},
    state::{End, Heard, State, Step, Task, Tombstone},
    worker::{confirms, key, set_step, task},
};
use crate::{guard::Guard, rule::Rule};

/// Takes the next step that stores something: the tombstone, the result, or the dead letter.
pub(super) fn store(setup: &Setup, state: &mut State, c: usize, w: usize) -> Option<()> {
    let task = task(state, c, w)?;
    let next = match task.step {
        Step::Ending(end) => {
            if end == End::Dead {
                check_attempts(setup, state, c, task);
            }
            write_tombstone(setup, state, task, end, w)
        }
        Step::Storing(end) => store_result(setup, state, task, end)?,
        Step::StoringDeadLetter => store_dead_letter(setup, state, task),
        _ => return None,
    };
    if next == Step::ack(End::Done) && !setup.has(Guard::ResultBeforeAck) {
        // The call was already acknowledged.
        state.workers[w].tasks[c] = None;
    } else {
        set_step(state, c, w, next);
    }
    Some(())
}

/// Records if a call becomes dead before its attempts are exhausted, which breaks a rule.
fn check_attempts(setup: &Setup, state: &mut State, c: usize, task: Task) {
    let key = key(setup, task.sequence);
    let tasks = state.workers.iter().filter_map(|worker| worker.tasks[c]);
    let unstarted = tasks.filter(|task| matches!(task.step, Step::Delivered { .. })).count();
    let seen = &mut state.calls[c].seen;
    let attempts = seen.starts + seen.lost_deliveries + u8::try_from(unstarted).unwrap_or(u8::MAX);
    if state.records[key].tombstone.is_none() && attempts < setup.max_attempts {
        seen.breaks(Rule::NoEarlyDeath);
    }
}

/// Writes an end to the tombstone. The first one wins.
fn write_tombstone(setup: &Setup, state: &mut State, task: Task, end: End, w: usize) -> Step {
    let key = key(setup, task.sequence);
    let tombstone = match end {
        End::Dead => Tombstone::Dead,
        End::Expired => Tombstone::Expired,
        End::Done | End::Cancelled => Tombstone::Ended,
    };
    let record = &mut state.records[key];
    let before = if setup.has(Guard::TombstoneFirstWins) { record.tombstone } else { None };
    match before {
        None => record.tombstone = Some(tombstone),
        Some(before) if before == tombstone => {}
        Some(Tombstone::Cancelled) => {
            state.workers[w].heard[key] = Heard::Yes { had: confirms(setup, task) };
            return Step::Storing(End::Cancelled);
        }
        Some(Tombstone::Dead) => return write_result_of(setup, End::Dead),
        Some(Tombstone::Expired) => return write_result_of(setup, End::Expired),
        Some(Tombstone::Ended) => return Step::ack(end),
    }
    write_result_of(setup, end)
}

/// Returns the step after the tombstone. An end that was found in the tombstone is carried out.
fn write_result_of(setup: &Setup, end: End) -> Step {
    if setup.callbacks || end == End::Expired {
        Step::Storing(end)
    } else {
        Step::StoringDeadLetter
    }
}

/// Stores the result. Only the first one counts.
fn store_result(setup: &Setup, state: &mut State, task: Task, end: End) -> Option<Step> {
    if setup.callbacks {
        if end == End::Done
            && setup.oversized == Oversized::Result
            && !setup.has(Guard::ResultRefusalIsFinal)
        {
            return None;
        }
        let record = &mut state.records[usize::from(task.sequence)];
        match record.result {
            None => record.result = Some(end),
            Some(first) if first == end => {}
            Some(first) => {
                if !setup.has(Guard::ResultStoredOnce) {
                    record.has_second_result = true;
                }
                if setup.has(Guard::ResultDecidesDeadLetter) {
                    if first != End::Cancelled {
                        let key = key(setup, task.sequence);
                        state.records[key].tombstone = Some(Tombstone::Ended);
                    }
                    return Some(Step::ack(end));
                }
            }
        }
    }
    Some(if end == End::Dead { Step::StoringDeadLetter } else { Step::ack(end) })
}

/// Stores the dead letter.
fn store_dead_letter(setup: &Setup, state: &mut State, task: Task) -> Step {
    if setup.oversized == Oversized::DeadLetter && !setup.has(Guard::DeadLetterShrinks) {
        return Step::nak();
    }
    let record = &mut state.records[usize::from(task.sequence)];
    let is_found = record.letters > 0 && setup.has(Guard::DeadLetterLookedUp);
    if !record.is_letter_known && !is_found {
        record.letters += 1;
    }
    record.is_letter_known = true;
    Step::ack(End::Dead)
}
