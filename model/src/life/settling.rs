//! Steps of a worker that settle a delivery: an ack or a delayed nak, and its confirmation.

use super::{
    server::{stored_at, unconfirm},
    setup::Setup,
    state::{End, Message, Settle, State, Step, Task},
    worker::{set_step, task},
};
use crate::guard::Guard;

/// Sends the end of a delivery.
pub(super) fn settle(setup: &Setup, state: &mut State, c: usize, w: usize) -> Option<()> {
    let mut task = task(state, c, w)?;
    let Step::Settling(mut settle) = task.step else { return None };
    if settle.is_sent {
        return None;
    }
    let Some(end) = settle.ack else {
        put_off(setup, state, c, w);
        return Some(());
    };
    let target = stored_at(state, task.sequence);
    match target {
        Some(target) if target == c && !state.calls[c].is_known_delivered() => {}
        Some(target) => {
            let call = &mut state.calls[target];
            call.advance(Message::Gone, call.count);
            if target == c {
                call.acked = Some(end);
            }
            settle.is_sent = true;
            task.step = Step::Settling(settle);
            state.workers[w].tasks[c] = Some(task);
            return Some(());
        }
        None => {}
    }
    // The consumer does not know of the delivery, and does not answer.
    if settle.has_failed {
        return None;
    }
    unconfirm(setup, &mut task);
    state.workers[w].tasks[c] = Some(task);
    Some(())
}

/// Naks a message with a delay. The next delivery is another attempt, so that the claim is dropped
/// first.
fn put_off(setup: &Setup, state: &mut State, c: usize, w: usize) {
    let is_lost = state.workers[w].tasks[c].is_some_and(|task| task.is_lost);
    let may_put_off = !is_lost || !setup.has(Guard::NakNeedsLease);
    let call = &mut state.calls[c];
    if may_put_off && call.is_known_delivered() && call.message == Message::Out {
        call.advance(Message::Delayed, call.count);
        state.workers[w].waits[c] = true;
    }
    state.workers[w].tasks[c] = None;
    if !setup.has(Guard::ConfirmByKind) {
        // The confirmation of the nak is taken for one of all earlier acks.
        for other in 0..state.calls.len() {
            let task = state.workers[w].tasks[other];
            if let Some(Task { step: Step::Settling(settle), .. }) = task
                && settle.is_sent
                && settle.ack.is_some()
            {
                state.calls[other].seen.is_ack_confirmed = true;
                state.workers[w].tasks[other] = None;
            }
        }
    }
}

/// The server confirms an ack once it is replicated.
pub(super) fn confirm(setup: &Setup, state: &mut State, c: usize, w: usize) -> Option<()> {
    let task = task(state, c, w)?;
    let Step::Settling(settle) = task.step else { return None };
    if !settle.is_sent {
        return None;
    }
    match settle.ack {
        Some(End::Done) if setup.callbacks && !setup.has(Guard::ResultBeforeAck) => {
            set_step(state, c, w, Step::Storing(End::Done));
        }
        _ => state.workers[w].tasks[c] = None,
    }
    let call = &mut state.calls[c];
    call.before = None;
    call.seen.is_ack_confirmed |=
        settle.ack.is_some() && task.sequence == call.sequence && !call.is_deleted;
    Some(())
}

/// Stops waiting for a confirmation, after two leases without a redelivery.
pub(super) fn abandon(setup: &Setup, state: &mut State, c: usize, w: usize) -> Option<()> {
    let task = task(state, c, w)?;
    let Step::Settling(settle) = task.step else { return None };
    if settle.is_sent || !settle.has_failed {
        return None;
    }
    let is_free = |worker: usize| {
        !state.workers[worker].is_paused
            && state.workers[worker].taken_slots() < usize::from(setup.slots)
    };
    let may_come_again = stored_at(state, task.sequence) == Some(c)
        && (state.calls[c].is_known_delivered() || (0..usize::from(setup.workers)).any(is_free));
    if may_come_again && !setup.is_crowded {
        return None;
    }
    let is_held_up = state.workers.iter().enumerate().any(|(worker, state)| {
        let others = state.tasks.iter().enumerate().filter(|(other, _)| worker != w || *other != c);
        others.filter_map(|(_, task)| *task).any(|task| task.has_slot)
    });
    if is_held_up || setup.is_crowded {
        state.calls[c].seen.excused += 1;
    }
    state.workers[w].tasks[c] = None;
    Some(())
}

/// Fault: an ack or a nak does not reach the server.
pub(super) fn lose_ack(setup: &Setup, state: &mut State, c: usize, w: usize) -> Option<()> {
    let mut task = task(state, c, w)?;
    let Step::Settling(settle) = task.step else { return None };
    if state.faults.lost_acks == 0 || settle.is_sent {
        return None;
    }
    state.faults.lost_acks -= 1;
    if settle.ack.is_none() && setup.has(Guard::NakDropsClaim) {
        state.workers[w].tasks[c] = None;
    } else if settle.ack.is_none() {
        // The server has it, but the worker does not know that: it asks again, and keeps the claim.
        let call = &mut state.calls[c];
        if call.is_known_delivered() && call.message == Message::Out {
            call.advance(Message::Delayed, call.count);
        }
        task.has_slot = false;
        task.step = Step::Settling(Settle { is_sent: true, has_failed: true, ..settle });
        state.workers[w].tasks[c] = Some(task);
    } else if setup.has(Guard::SettleRepeats) {
        unconfirm(setup, &mut task);
        state.workers[w].tasks[c] = Some(task);
    } else {
        state.workers[w].tasks[c] = None;
    }
    Some(())
}
