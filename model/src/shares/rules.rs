//! The rules of shares.

use asyncqueue::shares::WHOLE_RATE;

use super::{
    setup::{STARTS_WITHIN, Setup},
    state::{Invocation, Life, State, Worker},
};
use crate::rule::Rule;

/// Checks an invocation that was permitted by a total. What was permitted by a higher one may still
/// be open, and so may what a worker had open when its share outlived its lease.
pub(super) fn judge_permit(state: &mut State, total: u8) {
    let all = state.workers.iter().flat_map(|worker| worker.open.iter().flatten());
    let open = all.filter(|open| open.total <= total && !open.has_lapsed).count();
    if open > usize::from(total) {
        let rule = if state.has_lapsed { Rule::OneShareAbove } else { Rule::TotalKept };
        state.broken.get_or_insert(rule);
    }
}

/// Checks an invocation whose request was sent.
pub(super) fn judge_start(state: &mut State, invocation: Invocation) {
    if invocation.has_lapsed && !invocation.was_stopped {
        state.broken.get_or_insert(Rule::NoStartAfterLease);
    }
}

/// The share of a worker that is up has outlived its lease. What it has open is within that share.
pub(super) fn lapse(state: &mut State, w: usize) {
    state.has_lapsed = true;
    let (worker, share) = (&mut state.workers[w], state.entry[w].unwrap_or_default());
    for open in worker.open.iter_mut().flatten() {
        open.has_lapsed = true;
    }
    if worker.count_open() > share.slots {
        state.broken.get_or_insert(Rule::OneShareAbove);
    }
}

/// Returns whether the workers that may start invocations have the whole rate at most.
pub(super) fn keeps_rate(state: &State) -> bool {
    let workers = state.workers.iter().filter(|worker| worker.is_up());
    let held = workers.filter_map(|worker| worker.held);
    held.filter(|held| held.age < STARTS_WITHIN).map(|held| held.rate).sum::<u32>() <= WHOLE_RATE
}

/// Returns whether the workers that are up use all of the total and of the rate, in equal parts.
pub(super) fn is_divided(setup: &Setup, state: &State) -> bool {
    let is_up = |worker: &&Worker| worker.life == Life::Up;
    if state.workers.iter().any(|worker| worker.life == Life::Leaving) {
        return false;
    }
    let up = state.workers.iter().filter(is_up);
    let knows = |worker: &Worker| worker.has_learned == state.has_changed;
    let held: Option<Vec<_>> = up
        .map(|worker| {
            let held = worker.held.filter(|held| held.age < STARTS_WITHIN && knows(worker));
            held.filter(|_| worker.runs() && !worker.is_cut_off)
        })
        .collect();
    let Some(held) = held else { return false };
    let workers = u8::try_from(held.len()).unwrap_or(u8::MAX);
    let slots: u8 = held.iter().map(|held| held.slots).sum();
    let rate: u32 = held.iter().map(|held| held.rate).sum();
    let [least, most] =
        [held.iter().map(|held| held.slots).min(), held.iter().map(|h| h.slots).max()];
    let is_equal = most.unwrap_or(0) - least.unwrap_or(0) <= 1;
    let total = setup.total(state.has_changed).min(workers.saturating_mul(setup.max_inflight));
    workers == 0 || slots == total && is_equal && (!setup.has_rate || rate == WHOLE_RATE)
}
