//! How a worker starts invocations.

use super::{
    rules,
    setup::{STARTS_WITHIN, Setup},
    state::{Invocation, State},
};
use crate::guard::Guard;

/// A worker decides that an invocation may start.
pub(super) fn permit(setup: &Setup, state: &mut State, w: usize) -> Option<()> {
    let worker = &mut state.workers[w];
    let held = worker.held.filter(|_| worker.runs())?;
    let is_in_time = held.age < STARTS_WITHIN || !setup.has(Guard::ShareLapses);
    if !is_in_time || worker.count_open() >= held.slots {
        return None;
    }
    let free = worker.open.iter_mut().find(|open| open.is_none())?;
    *free = Some(Invocation {
        unsent: Some(0),
        total: held.total,
        has_lapsed: false,
        was_stopped: false,
    });
    worker.open.sort_unstable();
    rules::judge_permit(state, held.total);
    Some(())
}

/// A worker sends the request.
pub(super) fn start(state: &mut State, w: usize, i: usize) -> Option<()> {
    let worker = &mut state.workers[w];
    let mut invocation = worker.open[i].filter(|open| worker.runs() && open.unsent.is_some())?;
    invocation.unsent = None;
    worker.open[i] = Some(invocation);
    worker.open.sort_unstable();
    rules::judge_start(state, invocation);
    Some(())
}

/// The function returns.
pub(super) fn end(state: &mut State, w: usize, i: usize) -> Option<()> {
    let worker = &mut state.workers[w];
    worker.open[i].filter(|open| worker.runs() && open.unsent.is_none())?;
    worker.open[i] = None;
    worker.open.sort_unstable();
    Some(())
}
