//! Faults of workers, and changes from outside.

use super::{
    setup::Setup,
    state::{Life, Stage, State, Worker},
};

/// `concurrency` changes.
pub(super) fn change(setup: &Setup, state: &mut State) -> Option<()> {
    if setup.total == setup.next_total {
        return None;
    }
    state.faults.changes = state.faults.changes.checked_sub(1)?;
    state.has_changed = true;
    Some(())
}

/// A worker learns of the changed limits.
pub(super) fn learn(state: &mut State, w: usize) -> Option<()> {
    let worker = &mut state.workers[w];
    let may_learn = worker.runs() && !worker.is_cut_off && state.has_changed;
    (may_learn && !worker.has_learned).then(|| worker.has_learned = true)
}

/// A worker is added.
pub(super) fn join(state: &mut State, w: usize) -> Option<()> {
    let worker = &mut state.workers[w];
    if worker.life != Life::Absent {
        return None;
    }
    state.faults.joins = state.faults.joins.checked_sub(1)?;
    (worker.life, worker.has_learned) = (Life::Up, state.has_changed);
    Some(())
}

/// A worker is asked to end.
pub(super) fn leave(state: &mut State, w: usize) -> Option<()> {
    let worker = &mut state.workers[w];
    if worker.life != Life::Up || worker.is_stopped {
        return None;
    }
    state.faults.leaves = state.faults.leaves.checked_sub(1)?;
    worker.life = Life::Leaving;
    Some(())
}

/// A worker is killed. Its connections end, and with them its invocations.
pub(super) fn crash(state: &mut State, w: usize) -> Option<()> {
    let worker = &mut state.workers[w];
    if !worker.is_up() {
        return None;
    }
    state.faults.crashes = state.faults.crashes.checked_sub(1)?;
    let sent = worker.renewal.filter(|renewal| renewal.stage == Stage::Sent);
    let late = sent.map(|renewal| renewal.attempt).or(worker.late);
    *worker = Worker { life: Life::Gone, late, ..Worker::default() };
    Some(())
}

/// A worker is stopped.
pub(super) fn stop(state: &mut State, w: usize) -> Option<()> {
    let worker = &mut state.workers[w];
    if !worker.runs() {
        return None;
    }
    state.faults.stops = state.faults.stops.checked_sub(1)?;
    worker.is_stopped = true;
    for open in worker.open.iter_mut().flatten() {
        open.was_stopped = open.unsent.is_some();
    }
    Some(())
}

/// A stopped worker continues.
pub(super) fn go_on(state: &mut State, w: usize) -> Option<()> {
    std::mem::replace(&mut state.workers[w].is_stopped, false).then_some(())
}

/// A worker can't reach NATS.
pub(super) fn cut_off(state: &mut State, w: usize) -> Option<()> {
    let worker = &mut state.workers[w];
    if !worker.is_up() || worker.is_cut_off {
        return None;
    }
    state.faults.outages = state.faults.outages.checked_sub(1)?;
    worker.is_cut_off = true;
    Some(())
}

/// A worker reaches NATS again.
pub(super) fn reconnect(state: &mut State, w: usize) -> Option<()> {
    std::mem::replace(&mut state.workers[w].is_cut_off, false).then_some(())
}
