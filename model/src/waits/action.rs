//! The steps that the model can take.

use super::state::{CALLS, WORKERS};

/// One step. Calls, their clients, and workers are identified by their index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// The gateway subscribes to the result of a call.
    Subscribe(usize),
    /// It publishes the call.
    Publish(usize),
    /// It gets the ack, with the sequence of the call.
    Acked(usize),
    /// It takes a result that was published: the first index is that of the client's call, the
    /// second that of the call of the result.
    Take(usize, usize),
    /// Fault: the client has waited for as long as it wanted to.
    Deadline(usize),
    /// The gateway reads the kept result once more, and answers.
    Read(usize),
    /// Fault: the gateway loses its connection.
    Disconnect(usize),
    /// It is connected and subscribed again.
    Reconnect(usize),
    /// A worker gets a call that no worker has.
    Deliver(usize, usize),
    /// Fault: a worker gets a call that another one has.
    Redeliver(usize, usize),
    /// The worker takes its next step.
    Work(usize),
    /// Fault: the worker crashes.
    Crash(usize),
}

impl Action {
    /// Returns whether the step is a fault.
    #[must_use]
    pub const fn is_fault(self) -> bool {
        matches!(
            self,
            Self::Deadline(_) | Self::Disconnect(_) | Self::Redeliver(..) | Self::Crash(_)
        )
    }

    /// Returns all steps, possible or not.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for c in 0..CALLS {
            all.extend([Self::Subscribe(c), Self::Publish(c), Self::Acked(c)]);
            all.extend([Self::Deadline(c), Self::Read(c)]);
            all.extend([Self::Disconnect(c), Self::Reconnect(c)]);
            all.extend((0..CALLS).map(|of| Self::Take(c, of)));
        }
        for w in 0..WORKERS {
            all.extend([Self::Work(w), Self::Crash(w)]);
            all.extend((0..CALLS).flat_map(|c| [Self::Deliver(w, c), Self::Redeliver(w, c)]));
        }
        all
    }
}
