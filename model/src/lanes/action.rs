//! The steps that the model can take.

use super::{setup::CALLS, state::CONSUMERS};

/// One step. Calls, their deliveries, and consumers are identified by their index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// A call is stored.
    Store(usize),
    /// The program that stored it takes the next step to ensure its lane.
    Ensure(usize),
    /// That program knows no lanes.
    EnsureNone(usize),
    /// A consumer delivers a call to a worker.
    Deliver(usize, usize),
    /// A worker acknowledges a delivery.
    Ack(usize, usize),
    /// Fault: a worker puts a call off.
    Nak(usize, usize),
    /// The operator takes the next step to bring the consumers to their desired state.
    Operate,
    /// A sweep pauses or resumes a lane as the consumer of the queue.
    SweepAligns(usize),
    /// A sweep lists the consumers and begins to create a lane.
    SweepCreates(usize),
    /// The same, to remove a lane.
    SweepRemoves(usize),
    /// The sweep takes its next step.
    Sweep,
    /// The pause of a lane that was to be removed ends.
    PauseEnds(usize),
    /// The user suspends the queue.
    Suspend,
    /// The user changes its fairness.
    Change,
    /// The user resumes it.
    Resume,
    /// Fault: the operator is restarted.
    Restart,
}

impl Action {
    /// Returns whether the step is a fault.
    #[must_use]
    pub const fn is_fault(self) -> bool {
        matches!(self, Self::Nak(..) | Self::Restart | Self::Suspend)
    }

    /// Returns all steps, possible or not.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let mut all = vec![Self::Operate, Self::Sweep, Self::Restart];
        all.extend([Self::Suspend, Self::Change, Self::Resume]);
        for c in 0..CALLS {
            all.extend([Self::Store(c), Self::Ensure(c), Self::EnsureNone(c)]);
            all.extend((0..CONSUMERS).map(|consumer| Self::Deliver(c, consumer)));
            all.extend([0, 1].map(|delivery| Self::Ack(c, delivery)));
            all.extend([0, 1].map(|delivery| Self::Nak(c, delivery)));
        }
        for lane in 1..CONSUMERS {
            all.extend([Self::SweepAligns(lane), Self::SweepCreates(lane)]);
            all.extend([Self::SweepRemoves(lane), Self::PauseEnds(lane)]);
        }
        all
    }
}
