//! Time. One unit stands for five seconds of the product.

use super::{
    rules,
    setup::STARTS_WITHIN,
    state::{State, Worker},
};

/// Time after which others take the share of a worker that they have not seen renewed.
pub(super) const LEASE: u8 = 3;

/// For how long a worker may stand still between the last check and the request.
const START_TAKES: u8 = 1;

/// For how long a worker waits for the answer to a write.
const WRITE_TAKES: u8 = 1;

/// Time passes, unless that would be a fault.
pub(super) fn tick(state: &mut State) -> Option<()> {
    for (worker, share) in state.workers.iter().zip(state.entry) {
        if worker.runs() && !may_wait(worker, share.is_some()) {
            return None;
        }
    }
    for w in 0..state.workers.len() {
        let worker = &mut state.workers[w];
        grow_old(worker);
        let has_lapsed = worker.is_up() && state.entry[w].is_some() && worker.age == LEASE;
        if has_lapsed {
            rules::lapse(state, w);
        }
    }
    Some(())
}

/// Returns whether a worker that runs may do nothing for a unit of time.
fn may_wait(worker: &Worker, has_share: bool) -> bool {
    let sends_soon = worker.open.iter().flatten().all(|open| open.unsent != Some(START_TAKES));
    let gives_up = worker.renewal.is_none_or(|renewal| renewal.held.age < WRITE_TAKES);
    let renews = worker.is_cut_off || !has_share || worker.age + 1 < LEASE;
    sends_soon && gives_up && renews
}

fn grow_old(worker: &mut Worker) {
    let grow = |age: &mut u8, most| *age = (*age + 1).min(most);
    grow(&mut worker.age, LEASE);
    if let Some(held) = &mut worker.held {
        grow(&mut held.age, STARTS_WITHIN);
    }
    if let Some(renewal) = &mut worker.renewal {
        grow(&mut renewal.held.age, STARTS_WITHIN);
    }
    for seen in worker.seen.iter_mut().flatten() {
        grow(seen, LEASE);
    }
    for open in worker.open.iter_mut().flatten() {
        if let Some(unsent) = &mut open.unsent {
            grow(unsent, START_TAKES);
        }
    }
}
