//! Faults of workers, of time and of the platform.

use super::{
    server::make_stale,
    setup::Setup,
    state::{Heard, Message, State, Step},
    worker::uncount_start,
};
use crate::guard::Guard;

/// A worker dies with all its tasks, and is restarted.
pub(super) fn crash(state: &mut State, w: usize) -> Option<()> {
    let has_work = state.workers[w].tasks.iter().any(Option::is_some)
        || state.workers[w].waits.contains(&true);
    if state.faults.crashes == 0 || !has_work {
        return None;
    }
    state.faults.crashes -= 1;
    let worker = &mut state.workers[w];
    let tasks = std::mem::take(&mut worker.tasks);
    worker.is_paused = false;
    worker.heard.fill(Heard::No);
    worker.waits.fill(false);
    for (call, task) in state.calls.iter_mut().zip(tasks) {
        let Some(task) = task else { continue };
        let is_unstarted = matches!(task.step, Step::Delivered { .. });
        call.seen.excused += u8::from(!is_unstarted);
        call.seen.lost_deliveries += u8::from(is_unstarted);
    }
    Some(())
}

/// A worker is paused.
pub(super) fn pause(state: &mut State, w: usize) -> Option<()> {
    if state.faults.pauses == 0 || state.workers[w].is_paused {
        return None;
    }
    state.faults.pauses -= 1;
    state.workers[w].is_paused = true;
    make_stale(&mut state.workers[w]);
    Some(())
}

/// A paused worker continues.
pub(super) fn resume(state: &mut State, w: usize) -> Option<()> {
    std::mem::replace(&mut state.workers[w].is_paused, false).then_some(())
}

/// A worker that shuts down hands back a call, which is not an attempt.
pub(super) fn hand_back(setup: &Setup, state: &mut State, c: usize, w: usize) -> Option<()> {
    if state.faults.hand_backs == 0 || state.workers[w].is_paused {
        return None;
    }
    let task = state.workers[w].tasks[c]?;
    let is_running = match task.step {
        Step::Delivered { .. } => false,
        Step::Running => true,
        _ => return None,
    };
    state.faults.hand_backs -= 1;
    state.workers[w].tasks[c] = None;
    let call = &mut state.calls[c];
    if is_running {
        call.seen.open = call.seen.open.saturating_sub(1);
        uncount_start(call, task);
    } else {
        call.seen.lost_deliveries += u8::from(task.is_lost);
    }
    if setup.has(Guard::HandBackIsUncounted) {
        state.records[usize::from(task.sequence)].uncounted += 1;
    }
    let may_put_off = !task.is_lost || !setup.has(Guard::NakNeedsLease);
    if may_put_off && call.is_known_delivered() && call.message == Message::Out {
        call.advance(Message::Pending, call.count);
    }
    Some(())
}

/// A call becomes older than `maxAge`.
pub(super) fn age(state: &mut State, c: usize) -> Option<()> {
    let call = &mut state.calls[c];
    if state.faults.expiries == 0 || !call.is_stored() || call.is_old {
        return None;
    }
    state.faults.expiries -= 1;
    call.is_old = true;
    Some(())
}

/// The duplicate window of the dead-letter stream passes.
pub(super) fn pass_window(state: &mut State) -> Option<()> {
    if state.faults.windows == 0 || !state.records.iter().any(|record| record.is_letter_known) {
        return None;
    }
    state.faults.windows -= 1;
    for record in &mut state.records {
        record.is_letter_known = false;
    }
    Some(())
}
