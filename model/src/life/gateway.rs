//! Steps of a gateway that cancels a call.

use super::{
    setup::{Broadcast, Setup},
    state::{Answer, Call, Cancel, End, Heard, Message, State, Step, Tombstone, Worker},
    worker::key,
};
use crate::guard::Guard;

/// A client requests a cancellation, and the gateway looks for the message.
pub(super) fn ask(setup: &Setup, state: &mut State, c: usize) -> Option<()> {
    if state.cancels == 0 {
        return None;
    }
    let call = &mut state.calls[c];
    if !matches!(call.cancel, Cancel::None | Cancel::Answered(_)) {
        return None;
    }
    state.cancels -= 1;
    let tombstone = state.records[key(setup, call.sequence)].tombstone;
    call.cancel = if call.is_stored() {
        Cancel::Found
    } else if tombstone == Some(Tombstone::Cancelled) {
        // A repeat is confirmed only by what confirms the first request. The first gateway may have
        // stopped before it stored the result, so that this one checks for another result.
        Cancel::Marked
    } else {
        Cancel::Answered(Answer::Refused)
    };
    Some(())
}

/// Takes the next step of a cancellation.
pub(super) fn step(setup: &Setup, state: &mut State, c: usize) -> Option<()> {
    let call = state.calls[c];
    let key = key(setup, call.sequence);
    let next = match call.cancel {
        Cancel::Found => mark(setup, state, key),
        Cancel::Marked => report(setup, state, &call, key),
        Cancel::Reported => remove(setup, state, c),
        Cancel::Removed { is_undelivered, was_there } => {
            let answer = decide(setup, state, c, is_undelivered, was_there)?;
            if answer == Answer::Refused {
                state.records[key].tombstone = Some(Tombstone::Ended);
            }
            Cancel::Answered(answer)
        }
        Cancel::None | Cancel::Answered(_) => return None,
    };
    set(state, c, next);
    Some(())
}

fn set(state: &mut State, c: usize, next: Cancel) {
    let call = &mut state.calls[c];
    call.cancel = next;
    call.seen.is_cancel_confirmed |= next == Cancel::Answered(Answer::Confirmed);
}

/// Writes the tombstone. The first one wins.
fn mark(setup: &Setup, state: &mut State, key: usize) -> Cancel {
    let tombstone = &mut state.records[key].tombstone;
    match tombstone {
        Some(Tombstone::Dead | Tombstone::Expired | Tombstone::Ended)
            if setup.has(Guard::TombstoneFirstWins) =>
        {
            Cancel::Answered(Answer::Refused)
        }
        _ => {
            *tombstone = Some(Tombstone::Cancelled);
            Cancel::Marked
        }
    }
}

/// Stores the result for the callback. If another result is already stored, that is the end of the
/// call.
fn report(setup: &Setup, state: &mut State, call: &Call, key: usize) -> Cancel {
    if !setup.callbacks {
        return Cancel::Reported;
    }
    let record = &mut state.records[usize::from(call.sequence)];
    match record.result {
        None => record.result = Some(End::Cancelled),
        Some(End::Cancelled) => {}
        Some(_) => {
            if !setup.has(Guard::ResultStoredOnce) {
                record.has_second_result = true;
            }
            if setup.has(Guard::ResultDecidesCancel) {
                state.records[key].tombstone = Some(Tombstone::Ended);
                return Cancel::Answered(Answer::Refused);
            }
        }
    }
    Cancel::Reported
}

/// Removes the message.
fn remove(setup: &Setup, state: &mut State, c: usize) -> Cancel {
    let call = &mut state.calls[c];
    // A repeated request finds that the first one removed the message.
    let was_there = call.is_stored() || call.was_removed;
    let is_undelivered = call.message == Message::Pending && call.count == 0;
    if setup.has(Guard::CancelRemovesMessage) {
        call.was_removed |= call.is_stored();
        // Replicated, even if the message is gone through an ack that is not replicated yet.
        (call.message, call.before) = (Message::Gone, None);
    }
    Cancel::Removed { is_undelivered, was_there }
}

/// Returns the answer, if one is possible now.
fn decide(
    setup: &Setup,
    state: &State,
    c: usize,
    undelivered: bool,
    was_there: bool,
) -> Option<Answer> {
    let call = &state.calls[c];
    let key = key(setup, call.sequence);
    let up =
        || state.workers.iter().take(usize::from(setup.workers)).filter(|worker| !worker.is_paused);
    let is_prompt = setup.broadcast == Broadcast::Prompt;
    // For a delivery that the server forgot: a worker that is up has begun it, or dropped it, by
    // now.
    let has_delivered = is_prompt && up().any(|worker| is_unstarted(worker, c));
    if (undelivered && !has_delivered) || !setup.has(Guard::CancelWaits) {
        return Some(Answer::Confirmed);
    }
    let all_heard = up().all(|worker| worker.heard[key] != Heard::No);
    let is_confirmed = up().any(|worker| worker.heard[key] == Heard::Yes { had: true });
    if is_confirmed && (all_heard || !is_prompt) {
        return Some(Answer::Confirmed);
    }
    // Without callbacks, only the ack of a worker can have removed it. With them, the first result
    // has decided.
    (all_heard && !was_there && !setup.callbacks).then_some(Answer::Refused)
}

/// Returns whether a worker has a delivery of a call that it has not begun.
fn is_unstarted(worker: &Worker, c: usize) -> bool {
    worker.tasks[c].is_some_and(|task| matches!(task.step, Step::Delivered { .. }))
}

/// Answers after two leases, in which each worker that is up has begun its deliveries.
pub(super) fn after_leases(setup: &Setup, state: &mut State, c: usize) -> Option<()> {
    let Cancel::Removed { was_there, .. } = state.calls[c].cancel else { return None };
    let key = key(setup, state.calls[c].sequence);
    let is_settled = state.workers.iter().take(usize::from(setup.workers)).all(|worker| {
        worker.is_paused || (worker.heard[key] != Heard::No && !is_unstarted(worker, c))
    });
    if !is_settled || (!was_there && !setup.callbacks) {
        return None;
    }
    set(state, c, Cancel::Answered(Answer::Confirmed));
    Some(())
}

/// Answers that the outcome is not known yet.
pub(super) fn time_out(setup: &Setup, state: &mut State, c: usize) -> Option<()> {
    let call = state.calls[c];
    let Cancel::Removed { is_undelivered, was_there } = call.cancel else { return None };
    let has_paused = state.workers.iter().any(|worker| worker.is_paused);
    if decide(setup, state, c, is_undelivered, was_there).is_some() || !has_paused {
        return None;
    }
    set(state, c, Cancel::Answered(Answer::Unavailable));
    Some(())
}

/// Fault: the gateway stops, and the client gets no answer.
pub(super) fn abort(state: &mut State, c: usize) -> Option<()> {
    let is_underway = !matches!(state.calls[c].cancel, Cancel::None | Cancel::Answered(_));
    if !is_underway {
        return None;
    }
    state.faults.aborts = state.faults.aborts.checked_sub(1)?;
    set(state, c, Cancel::Answered(Answer::Unavailable));
    Some(())
}
