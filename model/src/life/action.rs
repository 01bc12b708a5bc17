//! The steps that the model can take.

use super::{
    setup::Setup,
    state::{CALLS, WORKERS},
};

/// One step. Calls and workers are identified by their index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// The gateway stores a call.
    Submit(usize),
    /// The server delivers a call to a worker.
    Deliver(usize, usize),
    /// The delay of a call after a nak has passed.
    Due(usize),
    /// A lease that no worker renews runs out.
    Expire(usize),
    /// A worker looks up the tombstone of a call.
    LookUp(usize, usize),
    /// A worker begins with a call: it invokes the function, or ends the call without an
    /// invocation.
    Begin(usize, usize),
    /// The function returns to its worker, or its time limit is reached.
    Return(usize, usize, Outcome),
    /// A worker takes the next step that stores something.
    Store(usize, usize),
    /// A worker sends the end of a delivery, and the server receives it.
    Settle(usize, usize),
    /// The server confirms an ack.
    Confirm(usize, usize),
    /// A worker stops waiting for a confirmation.
    GiveUp(usize, usize),
    /// A worker learns of a cancellation.
    Hear(usize, usize),
    /// A client requests a cancellation.
    AskCancel(usize),
    /// The gateway takes the next step of a cancellation.
    Cancel(usize),
    /// The gateway answers a cancellation after two leases.
    CancelAfterLeases(usize),
    /// The gateway answers a cancellation with "not known yet".
    CancelTimeout(usize),
    /// A paused worker continues.
    Resume(usize),
    /// Fault: a worker dies and is restarted.
    Crash(usize),
    /// Fault: a worker is paused.
    Pause(usize),
    /// Fault: a lease runs out although its worker is alive.
    Outage(usize),
    /// Fault: an ack does not reach the server.
    LoseAck(usize, usize),
    /// Fault: a new leader does not know the last step of a call's message.
    Forget(usize),
    /// Fault: the consumer is deleted and created again.
    RecreateConsumer,
    /// Fault: the stream is deleted and created again.
    Recreate,
    /// Fault: a worker that shuts down hands back a call.
    HandBack(usize, usize),
    /// Fault: a call becomes older than `maxAge`.
    Age(usize),
    /// Fault: the gateway stops in the middle of a cancellation.
    Abort(usize),
    /// Fault: the duplicate window of the dead-letter stream passes.
    PassWindow,
}

/// How an invocation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The function answered with a status that is not retried.
    Ok,
    /// The function failed.
    Failed,
    /// The platform failed, which is not an attempt.
    PlatformFailed,
}

impl Action {
    /// Returns whether the step is a fault.
    #[must_use]
    pub const fn is_fault(self) -> bool {
        matches!(
            self,
            Self::Crash(_)
                | Self::Pause(_)
                | Self::Outage(_)
                | Self::LoseAck(..)
                | Self::Forget(_)
                | Self::Recreate
                | Self::RecreateConsumer
                | Self::HandBack(..)
                | Self::Age(_)
                | Self::PassWindow
                | Self::Abort(_)
                | Self::AskCancel(_)
                | Self::Return(_, _, Outcome::PlatformFailed)
        )
    }

    /// Returns all steps that a search with these bounds can take, possible or not.
    #[must_use]
    pub fn all(setup: &Setup) -> Vec<Self> {
        let (calls, workers) =
            (CALLS.min(usize::from(setup.calls)), WORKERS.min(usize::from(setup.workers)));
        let mut all = Vec::new();
        for c in 0..calls {
            all.extend([
                Self::Submit(c),
                Self::Due(c),
                Self::Expire(c),
                Self::Outage(c),
                Self::Forget(c),
            ]);
            all.extend([
                Self::AskCancel(c),
                Self::Cancel(c),
                Self::CancelAfterLeases(c),
                Self::CancelTimeout(c),
                Self::Age(c),
                Self::Abort(c),
            ]);
            for w in 0..workers {
                all.extend([
                    Self::Deliver(c, w),
                    Self::LookUp(c, w),
                    Self::Begin(c, w),
                    Self::Store(c, w),
                ]);
                all.extend([
                    Self::Settle(c, w),
                    Self::Confirm(c, w),
                    Self::GiveUp(c, w),
                    Self::Hear(c, w),
                ]);
                all.extend([Self::LoseAck(c, w), Self::HandBack(c, w)]);
                let outcomes = [Outcome::Ok, Outcome::Failed, Outcome::PlatformFailed];
                all.extend(outcomes.map(|outcome| Self::Return(c, w, outcome)));
            }
        }
        for w in 0..workers {
            all.extend([Self::Resume(w), Self::Crash(w), Self::Pause(w)]);
        }
        all.extend([Self::Recreate, Self::RecreateConsumer, Self::PassWindow]);
        all
    }
}
