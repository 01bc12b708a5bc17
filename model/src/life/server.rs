//! Steps of the server: deliveries, leases, and what it forgets.

use super::{
    setup::Setup,
    state::{CALLS, MOST_DELIVERIES, Message, Settle, State, Step, Task, Worker},
};
use crate::{guard::Guard, rule::Rule};

/// Stores a call.
pub(super) fn submit(state: &mut State, c: usize) -> Option<()> {
    // In order, since calls are interchangeable.
    let is_next = state.calls[..c].iter().all(|call| call.message != Message::Absent);
    if !is_next || state.calls[c].message != Message::Absent {
        return None;
    }
    let call = &mut state.calls[c];
    call.message = Message::Pending;
    call.sequence = state.next_sequence;
    state.next_sequence += 1;
    Some(())
}

/// Delivers a call to a worker that has a free slot.
pub(super) fn deliver(setup: &Setup, state: &mut State, c: usize, w: usize) -> Option<()> {
    let call = state.calls[c];
    let worker = &state.workers[w];
    if call.message != Message::Pending || worker.taken_slots() >= usize::from(setup.slots) {
        return None;
    }
    let is_put_off = worker.tasks[c]
        .is_some_and(|task| matches!(task.step, Step::Settling(Settle { ack: None, .. })));
    // A message that was delayed by a nak is not claimed any more.
    let is_claimed =
        worker.claims(call.sequence) && !(is_put_off && setup.has(Guard::NakDropsClaim));
    if is_claimed && setup.has(Guard::WorkerClaims) {
        return deliver_again(setup, state, c, w);
    }
    if let Some(task) = worker.tasks[c] {
        // Without claims, the worker begins a second time. One task stands for both.
        if worker.is_paused || (task.step != Step::Running && !is_put_off) {
            return None;
        }
    }
    let is_paused = worker.is_paused;
    let uncounted = state.records[usize::from(call.sequence)].uncounted;
    let call = &mut state.calls[c];
    let count = (call.count + 1).min(MOST_DELIVERIES);
    call.advance(Message::Out, count);
    if call.seen.is_ack_confirmed {
        call.seen.breaks(Rule::NoDeliveryAfterAck);
    }
    state.workers[w].tasks[c] = Some(Task {
        sequence: call.sequence,
        count,
        attempt: count.saturating_sub(uncounted).max(1),
        step: Step::Delivered { is_stale: is_paused, is_checked: false },
        has_slot: true,
        is_lost: false,
    });
    Some(())
}

/// Delivers a call again to the worker in which it is in flight: its lease begins again.
fn deliver_again(setup: &Setup, state: &mut State, c: usize, w: usize) -> Option<()> {
    let worker = &mut state.workers[w];
    if worker.is_paused {
        return None;
    }
    let task = worker.tasks[c].as_mut()?;
    task.is_lost = false;
    let is_put_off = matches!(task.step, Step::Settling(Settle { ack: None, .. }));
    if setup.has(Guard::WorkerCountsNoRedelivery) && !is_put_off {
        // Written at once, since another worker may get it next.
        state.records[usize::from(task.sequence)].uncounted += 1;
    }
    if let Step::Settling(settle) = &mut task.step {
        // The server takes the end of the call as the end of this delivery.
        settle.is_sent = false;
    }
    let call = &mut state.calls[c];
    let count = (call.count + 1).min(MOST_DELIVERIES);
    call.advance(Message::Out, count);
    Some(())
}

/// Ends the delay of a call after a nak.
pub(super) fn due(state: &mut State, c: usize) -> Option<()> {
    let call = &mut state.calls[c];
    if call.message != Message::Delayed {
        return None;
    }
    call.message = Message::Pending;
    forget_waits(state, c);
    Some(())
}

fn forget_waits(state: &mut State, c: usize) {
    for worker in &mut state.workers {
        worker.waits[c] = false;
    }
}

/// The lease runs out, since no worker that is up has the call.
pub(super) fn expire(state: &mut State, c: usize) -> Option<()> {
    let is_renewed =
        state.workers.iter().any(|worker| !worker.is_paused && worker.tasks[c].is_some());
    if state.calls[c].message != Message::Out || is_renewed {
        return None;
    }
    lose_lease(state, c);
    Some(())
}

/// The lease runs out although a worker has the call.
pub(super) fn outage(state: &mut State, c: usize) -> Option<()> {
    let is_renewed =
        state.workers.iter().any(|worker| !worker.is_paused && worker.tasks[c].is_some());
    if state.faults.outages == 0 || state.calls[c].message != Message::Out || !is_renewed {
        return None;
    }
    state.faults.outages -= 1;
    lose_lease(state, c);
    Some(())
}

fn lose_lease(state: &mut State, c: usize) {
    let call = &mut state.calls[c];
    call.message = Message::Pending;
    call.before = None;
    let mut has_begun = false;
    for task in state.workers.iter_mut().filter_map(|worker| worker.tasks[c].as_mut()) {
        task.is_lost = true;
        has_begun |= !matches!(task.step, Step::Delivered { .. });
    }
    if has_begun {
        call.seen.excused += 1;
    }
}

/// A new leader does not know the last step of a message.
pub(super) fn forget(setup: &Setup, state: &mut State, c: usize) -> Option<()> {
    if state.faults.leader_changes == 0 {
        return None;
    }
    let call = &mut state.calls[c];
    let (message, count) = call.before?;
    state.faults.leader_changes -= 1;
    set_forgotten(setup, state, c, message, count);
    Some(())
}

/// Resets the message of a call to an earlier state that the consumer remembers.
fn set_forgotten(setup: &Setup, state: &mut State, c: usize, message: Message, count: u8) {
    let call = &mut state.calls[c];
    call.seen.forgotten += call.count - count;
    (call.message, call.count, call.before) = (message, count, None);
    call.acked = None;
    if setup.workers > 1 {
        // Another worker may get it.
        call.seen.excused += 1;
    }
    forget_waits(state, c);
    for worker in &mut state.workers {
        if let Some(task) = &mut worker.tasks[c] {
            unconfirm(setup, task);
        }
        // An election takes longer than a worker may wait between a delivery and its start.
        make_stale(worker);
    }
}

/// The consumer is deleted and created again: it does not know of any delivery.
pub(super) fn recreate_consumer(setup: &Setup, state: &mut State) -> Option<()> {
    state.faults.consumer_losses = state.faults.consumer_losses.checked_sub(1)?;
    for c in 0..CALLS {
        if state.calls[c].is_stored() {
            set_forgotten(setup, state, c, Message::Pending, 0);
        }
    }
    Some(())
}

/// Changes the task of a worker when an ack is not confirmed: it keeps the claim and frees the
/// slot.
pub(super) fn unconfirm(setup: &Setup, task: &mut Task) {
    if let Step::Settling(settle) = &mut task.step {
        settle.is_sent = false;
        settle.has_failed = true;
        if setup.has(Guard::WorkerLeavesSlot) {
            task.has_slot = false;
        }
    }
}

/// Makes deliveries stale: time passes between a delivery and its start.
pub(super) fn make_stale(worker: &mut Worker) {
    for task in worker.tasks.iter_mut().flatten() {
        if let Step::Delivered { is_stale, is_checked } = &mut task.step {
            (*is_stale, *is_checked) = (true, false);
        }
    }
}

/// The stream is deleted with its calls and created again.
pub(super) fn recreate(setup: &Setup, state: &mut State) -> Option<()> {
    if state.faults.recreations == 0
        || state.calls.iter().all(|call| call.message == Message::Absent)
    {
        return None;
    }
    state.faults.recreations -= 1;
    for call in state.calls.iter_mut().filter(|call| call.is_stored()) {
        (call.message, call.is_deleted, call.before) = (Message::Gone, true, None);
    }
    if !setup.has(Guard::StreamFirstSequence) {
        state.next_sequence = 1;
    }
    Some(())
}

/// Returns the call whose message has a sequence, if the stream has it.
pub(super) fn stored_at(state: &State, sequence: u8) -> Option<usize> {
    (0..CALLS).find(|c| state.calls[*c].is_stored() && state.calls[*c].sequence == sequence)
}
