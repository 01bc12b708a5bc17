//! The steps that the model can take.

use super::{
    setup::Setup,
    state::{OPEN, WORKERS},
};

/// One step. Workers and their invocations are identified by their index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Time passes.
    Tick,
    /// A worker reads the entry, decides on its share, and sends it.
    Send(usize),
    /// NATS stores the share of a worker, or refuses it.
    Write(usize),
    /// A worker gets the answer.
    Answer(usize),
    /// NATS gets a write that its worker has given up.
    WriteLate(usize),
    /// Such a write is lost.
    DropLate(usize),
    /// A worker that leaves, and runs nothing, removes its share.
    Remove(usize),
    /// A worker decides that an invocation may start.
    Permit(usize),
    /// It sends the request.
    Start(usize, usize),
    /// The function returns.
    End(usize, usize),
    /// A worker learns of the changed limits.
    Learn(usize),
    /// A stopped worker continues.
    Continue(usize),
    /// A worker reaches NATS again.
    Reconnect(usize),
    /// Fault: `concurrency` changes.
    Change,
    /// Fault: a worker is added.
    Join(usize),
    /// Fault: a worker is asked to end.
    Leave(usize),
    /// Fault: a worker does not get an answer to its write.
    GiveUp(usize),
    /// Fault: a worker is killed.
    Crash(usize),
    /// Fault: a worker is stopped.
    Stop(usize),
    /// Fault: a worker can't reach NATS.
    CutOff(usize),
}

impl Action {
    /// Returns whether the step is a fault, or a change from outside.
    #[must_use]
    pub const fn is_fault(self) -> bool {
        matches!(
            self,
            Self::Change
                | Self::Join(_)
                | Self::Leave(_)
                | Self::GiveUp(_)
                | Self::Crash(_)
                | Self::Stop(_)
                | Self::CutOff(_)
        )
    }

    /// Returns all steps that a search with these bounds can take, possible or not.
    #[must_use]
    pub fn all(setup: &Setup) -> Vec<Self> {
        let workers = WORKERS.min(usize::from(setup.workers + setup.faults.joins));
        let mut all = vec![Self::Tick, Self::Change];
        for w in 0..workers {
            all.extend([Self::Send(w), Self::Write(w), Self::Answer(w)]);
            all.extend([Self::WriteLate(w), Self::DropLate(w), Self::Remove(w), Self::Permit(w)]);
            all.extend((0..OPEN).flat_map(|i| [Self::Start(w, i), Self::End(w, i)]));
            all.extend([Self::Learn(w), Self::Continue(w), Self::Reconnect(w)]);
            all.extend([Self::Join(w), Self::Leave(w), Self::GiveUp(w)]);
            all.extend([Self::Crash(w), Self::Stop(w), Self::CutOff(w)]);
        }
        all
    }
}
