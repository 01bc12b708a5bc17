//! What can be observed of one call from outside.

use std::fmt;

pub use crate::life::{action::Outcome, state::End};

/// One step that a client, the function or the receiver of callbacks observed, or a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observation {
    /// The client sent the call for the first time or again.
    Submitted {
        /// Whether the client wants a callback.
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
    /// The connection of an invocation was closed before the function answered.
    BrokenOff,
    /// The receiver got a callback with this end state.
    Callback {
        /// The end state; `None` if its status has several.
        end: Option<End>,
        /// Whether the receiver accepted it.
        is_taken: bool,
    },
    /// The client sent a DELETE. Without this observation, it may have been sent at any time before
    /// its answer.
    CancelSent,
    /// The DELETE was answered with 202.
    CancelConfirmed,
    /// The DELETE was answered with 409 or 404.
    CancelRefused,
    /// The DELETE was answered with 503, or not answered: it may have taken effect.
    CancelUnknown,
    /// At the last check, the call was on its queue.
    LeftQueued,
    /// At the last check, its result was waiting for delivery.
    LeftResult,
    /// At the last check, the call was a dead letter.
    LeftDead,
    /// At the last check, its result was a dead letter.
    LeftDeadResult,
    /// From here on, a fault may affect the call once.
    Fault(Fault),
    /// One fault of this kind and its effects are over: it can't affect the call any more.
    FaultOver(Fault),
}

/// A fault that may affect a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A worker was killed.
    Crash,
    /// A worker was paused.
    Pause,
    /// A worker could not reach NATS for longer than a lease.
    Outage,
    /// A message from a worker to NATS may have been lost.
    LostConfirmation,
    /// The leader of a stream or consumer changed, or its server was killed.
    LeaderChange,
    /// One of the five above; which one is not known.
    WorkerOrLeaseLost,
    /// The consumer was deleted and created again.
    ConsumerRecreated,
    /// The stream was deleted and created again.
    StreamRecreated,
    /// A worker shut down and handed back its calls.
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
    /// The faults through which a worker or its lease may be lost.
    pub const LOST: [Self; 5] =
        [Self::Crash, Self::Pause, Self::Outage, Self::LostConfirmation, Self::LeaderChange];
}
