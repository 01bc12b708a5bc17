//! What can be seen of one call from outside.

use std::fmt;

pub use crate::life::{action::Outcome, state::End};

/// One step that a client, the function or the receiver of callbacks saw, or a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observation {
    /// The client sent the call, or sent it again.
    Submitted {
        /// Whether it wants a callback.
        callback: bool,
        /// `maxAttempts` of the queue.
        max_attempts: u8,
    },
    /// The gateway answered 202.
    Accepted,
    /// The gateway answered that the call is not stored: any 4xx.
    Refused,
    /// The client does not know whether the call is stored: no answer, or 503.
    Unanswered,
    /// The function was invoked.
    Started,
    /// An invocation ended on the side of the function.
    Returned(Outcome),
    /// The connection of an invocation was closed before the function had answered.
    BrokenOff,
    /// The receiver got a callback with this end state.
    Callback {
        /// The end state; `None` if its status has several.
        end: Option<End>,
        /// Whether the receiver took it.
        is_taken: bool,
    },
    /// The client sent a DELETE. Without this step, it may have been sent at any time before its
    /// answer.
    CancelSent,
    /// DELETE was answered 202.
    CancelConfirmed,
    /// DELETE was answered 409 or 404.
    CancelRefused,
    /// DELETE was answered 503, or not answered: it may have taken effect.
    CancelUnknown,
    /// At the last look, the call was on its queue.
    LeftQueued,
    /// At the last look, its result was waiting for its delivery.
    LeftResult,
    /// At the last look, it was a dead letter.
    LeftDead,
    /// At the last look, its result was a dead letter.
    LeftDeadResult,
    /// From here on, a fault may hit the call once.
    Fault(Fault),
    /// One fault of this kind is over and its effects too: it can't hit the call any more.
    FaultOver(Fault),
}

/// A fault that may hit a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A worker was killed.
    Crash,
    /// A worker stood still.
    Pause,
    /// A worker could not reach NATS for longer than a lease.
    Outage,
    /// What a worker sent to NATS may be lost.
    LostConfirmation,
    /// The leader of a stream or consumer changed, or its server was killed.
    LeaderChange,
    /// One of the five above: it is not known which.
    WorkerOrLeaseLost,
    /// The consumer was deleted and created again.
    ConsumerRecreated,
    /// The stream was deleted and created again.
    StreamRecreated,
    /// A worker was shut down and handed back what it had.
    HandBack,
    /// The call became older than `maxAge`.
    Expiry,
    /// The duplicate window of the dead-letter stream passed.
    WindowPassed,
}

impl fmt::Display for Observation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Submitted { .. } => f.write_str("submitted"),
            Self::Accepted => f.write_str("accepted"),
            Self::Refused => f.write_str("refused"),
            Self::Unanswered => f.write_str("not answered"),
            Self::Started => f.write_str("started"),
            Self::Returned(Outcome::Ok) => f.write_str("returned"),
            Self::Returned(Outcome::Failed) => f.write_str("returned, to be retried"),
            Self::Returned(Outcome::PlatformFailed) => f.write_str("failed by the platform"),
            Self::BrokenOff => f.write_str("broken off"),
            Self::Callback { end, is_taken: true } => write!(f, "callback {} taken", name(*end)),
            Self::Callback { end, is_taken: false } => {
                write!(f, "callback {} not taken", name(*end))
            }
            Self::CancelSent => f.write_str("cancellation sent"),
            Self::CancelConfirmed => f.write_str("cancellation confirmed"),
            Self::CancelRefused => f.write_str("cancellation refused"),
            Self::CancelUnknown => f.write_str("cancellation not answered, or 503"),
            Self::LeftQueued => f.write_str("left on its queue"),
            Self::LeftResult => f.write_str("left with its result on the way"),
            Self::LeftDead => f.write_str("left as a dead letter"),
            Self::LeftDeadResult => f.write_str("left with its result as a dead letter"),
            Self::FaultOver(fault) => write!(f, "fault over: {fault:?}"),
            Self::Fault(fault) => write!(f, "fault: {fault:?}"),
        }
    }
}

fn name(end: Option<End>) -> &'static str {
    match end {
        None => "of an unknown end",
        Some(End::Done) => "done",
        Some(End::Dead) => "dead",
        Some(End::Cancelled) => "cancelled",
        Some(End::Expired) => "expired",
    }
}

impl Fault {
    /// The faults that a worker or its lease may be lost by.
    pub const LOST: [Self; 5] =
        [Self::Crash, Self::Pause, Self::Outage, Self::LostConfirmation, Self::LeaderChange];
}
