//! Steps of a worker: from a delivery to the end of an invocation.

use super::{
    action::Outcome,
    setup::{Oversized, Setup},
    state::{Call, Cancel, End, Heard, State, Step, Task, Tombstone},
};
use crate::{guard::Guard, rule::Rule};

/// Returns the key of a call's tombstone.
pub(super) fn key(setup: &Setup, sequence: u8) -> usize {
    if setup.has(Guard::TombstoneKeyedBySequence) { usize::from(sequence) } else { 0 }
}

/// Records that a run was not an attempt.
pub(super) fn uncount_start(call: &mut Call, task: Task) {
    call.seen.starts = call.seen.starts.saturating_sub(1);
    // Another worker has already counted it, and may have stored the call as dead.
    call.seen.lost_deliveries += u8::from(task.is_lost);
}

/// Returns the task of a worker that is up.
pub(super) fn task(state: &State, c: usize, w: usize) -> Option<Task> {
    if state.workers[w].is_paused { None } else { state.workers[w].tasks[c] }
}

pub(super) fn set_step(state: &mut State, c: usize, w: usize, step: Step) {
    if let Some(task) = &mut state.workers[w].tasks[c] {
        task.step = step;
    }
}

/// Looks up the tombstone of a call that was delivered again, or late.
pub(super) fn look_up(setup: &Setup, state: &mut State, c: usize, w: usize) -> Option<()> {
    let task = task(state, c, w)?;
    let Step::Delivered { is_stale, is_checked: false } = task.step else { return None };
    if !needs_look_up(setup, task, is_stale) {
        return None;
    }
    let key = key(setup, task.sequence);
    let next = match state.records[key].tombstone {
        Some(Tombstone::Cancelled) => {
            state.workers[w].heard[key] = Heard::Yes { had: confirms(setup, task) };
            Step::Storing(End::Cancelled)
        }
        Some(Tombstone::Ended) => Step::ack(End::Done),
        _ => Step::Delivered { is_stale, is_checked: true },
    };
    set_step(state, c, w, next);
    Some(())
}

fn needs_look_up(setup: &Setup, task: Task, is_stale: bool) -> bool {
    setup.has(Guard::WorkerLooksUpTombstone) && (is_stale || task.count > 1)
}

/// Begins with a call: invokes the function, or ends the call without an invocation.
pub(super) fn begin(setup: &Setup, state: &mut State, c: usize, w: usize) -> Option<()> {
    let task = task(state, c, w)?;
    let Step::Delivered { is_stale, is_checked } = task.step else { return None };
    if task.is_lost && setup.has(Guard::WorkerDropsStale) {
        // Another worker may have it, or may have ended it.
        state.workers[w].tasks[c] = None;
        let call = &mut state.calls[c];
        call.seen.lost_deliveries += 1;
        return Some(());
    }
    if needs_look_up(setup, task, is_stale) && !is_checked {
        return None;
    }
    if state.calls[c].is_old {
        set_step(state, c, w, Step::Ending(End::Expired));
        return Some(());
    }
    if task.attempt > setup.max_attempts && setup.has(Guard::PoisonIsNotInvoked) {
        return give_up(setup, state, c, w);
    }
    let key = key(setup, task.sequence);
    if state.workers[w].heard[key] != Heard::No && setup.has(Guard::WorkerChecksCancelled) {
        set_step(state, c, w, Step::Storing(End::Cancelled));
        return Some(());
    }
    set_step(state, c, w, Step::Running);
    let seen = &mut state.calls[c].seen;
    seen.starts += 1;
    seen.open += 1;
    if seen.is_cancel_confirmed {
        seen.breaks(Rule::NoStartAfterCancel);
    }
    Some(())
}

/// Ends a call whose attempts are exhausted as dead, unless another worker still runs it.
fn give_up(setup: &Setup, state: &mut State, c: usize, w: usize) -> Option<()> {
    let is_with_another = state.workers.iter().enumerate().any(|(other, worker)| {
        other != w
            && !worker.is_paused
            && worker.tasks[c].is_some_and(|task| !matches!(task.step, Step::Delivered { .. }))
    });
    let is_guarded = setup.has(Guard::PoisonWaits);
    if is_guarded && is_with_another {
        return None;
    }
    if is_guarded && !state.calls[c].is_stored() {
        // The call has ended while this worker waited.
        state.workers[w].tasks[c] = None;
        return Some(());
    }
    if is_with_another {
        state.calls[c].seen.breaks(Rule::NoEarlyDeath);
    }
    set_step(state, c, w, Step::Ending(End::Dead));
    Some(())
}

/// The function returns to its worker.
pub(super) fn returned(
    setup: &Setup,
    state: &mut State,
    c: usize,
    w: usize,
    how: Outcome,
) -> Option<()> {
    let task = task(state, c, w)?;
    if task.step != Step::Running || (how == Outcome::Failed && !setup.failures) {
        return None;
    }
    let mut uncounted = 0;
    match how {
        Outcome::Ok => {
            let step = after_done(setup);
            set_step(state, c, w, step);
            return Some(());
        }
        Outcome::Failed => {}
        Outcome::PlatformFailed => {
            state.faults.platform_failures = state.faults.platform_failures.checked_sub(1)?;
            uncount_start(&mut state.calls[c], task);
            uncounted = 1;
        }
    }
    state.calls[c].seen.open = state.calls[c].seen.open.saturating_sub(1);
    if how == Outcome::Failed && task.attempt >= setup.max_attempts {
        set_step(state, c, w, Step::Ending(End::Dead));
        return Some(());
    }
    state.records[usize::from(task.sequence)].uncounted += uncounted;
    if task.is_lost && setup.has(Guard::NakNeedsLease) {
        // Another worker may have it.
        state.workers[w].tasks[c] = None;
    } else {
        set_step(state, c, w, Step::nak());
    }
    Some(())
}

/// Returns the step after a successful invocation.
fn after_done(setup: &Setup) -> Step {
    if !setup.callbacks || !setup.has(Guard::ResultBeforeAck) {
        return Step::ack(End::Done);
    }
    match setup.oversized {
        // A result that is posted directly can't be found later: the tombstone says that the call
        // has ended.
        Oversized::Result if setup.has(Guard::ResultRefusalIsFinal) => Step::Ending(End::Done),
        _ => Step::Storing(End::Done),
    }
}

/// A worker learns of a cancellation, from the broadcast or from the bucket.
pub(super) fn hear(setup: &Setup, state: &mut State, c: usize, w: usize) -> Option<()> {
    let call = state.calls[c];
    let key = key(setup, call.sequence);
    let is_broadcast = matches!(call.cancel, Cancel::Removed { .. });
    let is_cancelled = state.records[key].tombstone == Some(Tombstone::Cancelled) || is_broadcast;
    if state.workers[w].is_paused || !is_cancelled || state.workers[w].heard[key] != Heard::No {
        return None;
    }
    let mut had = state.workers[w].waits[c];
    if let Some(task) = &mut state.workers[w].tasks[c] {
        if matches!(task.step, Step::Delivered { .. } | Step::Running) {
            had = confirms(setup, *task);
        }
        if task.step == Step::Running {
            task.step = Step::Storing(End::Cancelled);
        }
    }
    state.workers[w].heard[key] = Heard::Yes { had };
    Some(())
}

/// Returns whether a worker that has a call confirms its cancellation. Without the lease, it does
/// not know which other worker has the call.
pub(super) fn confirms(setup: &Setup, task: Task) -> bool {
    !task.is_lost || !setup.has(Guard::CancelConfirmNeedsLease)
}
