//! What can be seen of a call, and of what is done to the system meanwhile.

use std::{fmt, time::Duration};

/// The number of a call in its run. Not its id, which a client may never have heard.
pub type CallNumber = u64;

/// Something that was seen, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Since the beginning of the run, by one clock for all.
    pub at: Duration,
    /// What was seen.
    pub what: What,
}

/// What was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A step of one call.
    Step(CallNumber, Step),
    /// Something was done to the system.
    Fault {
        /// In words.
        name: String,
        /// Whether calls may run again because of it.
        excuse: Excuse,
    },
}

/// When a worker or its lease may have died, so that calls may run again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excuse {
    /// Not of this.
    None,
    /// At this moment.
    Once,
    /// From here on.
    Begins,
    /// Up to here.
    Ends,
}

/// A step of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The client sent it, or sent it again.
    Submitted {
        /// Whether it wants to be told the end.
        callback: bool,
    },
    /// The gateway answered the client.
    Answered {
        /// 202: it is stored.
        status: u16,
        /// Whether the answer says when to try again.
        retry_after: bool,
    },
    /// The gateway's connection broke, or there was none: the client does not know whether the call is stored.
    Unanswered,
    /// The gateway let the client wait for longer than it may.
    Hung,
    /// The client asked for its cancellation.
    CancelSent,
    /// The gateway answered that: 202 is the promise that it does not start any more.
    CancelAnswered {
        /// The status.
        status: u16,
    },
    /// The function was called.
    Started {
        /// Which run of this call it is, from 1.
        run: u64,
    },
    /// The function answers.
    Returned {
        /// Which run.
        run: u64,
        /// Its status.
        status: u16,
    },
    /// The function breaks its answer off, as a crash does.
    Failed {
        /// Which run.
        run: u64,
    },
    /// The function's caller went away before there was an answer.
    BrokenOff {
        /// Which run.
        run: u64,
    },
    /// The receiver of callbacks was told an end.
    Told {
        /// The status that it was told.
        status: u16,
        /// Whether it took it; where not, it is told again.
        taken: bool,
    },
    /// The last look found it still on its queue.
    LeftQueued,
    /// The last look found its result still on the way to the caller.
    LeftResult,
    /// The last look found its dead letter.
    Buried,
    /// The last look found its result among the dead letters: the caller never took it.
    ResultBuried,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Step(_, step) => step.fmt(f),
            Self::Fault { name, .. } => write!(f, "-- {name}"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Submitted { callback: true } => f.write_str("submitted, with a callback"),
            Self::Submitted { callback: false } => f.write_str("submitted"),
            Self::Answered { status, .. } => write!(f, "answered {status}"),
            Self::Unanswered => f.write_str("not answered: the connection broke"),
            Self::Hung => f.write_str("not answered in time"),
            Self::CancelSent => f.write_str("cancellation sent"),
            Self::CancelAnswered { status } => write!(f, "cancellation answered {status}"),
            Self::Started { run } => write!(f, "run {run} started"),
            Self::Returned { run, status } => write!(f, "run {run} answered {status}"),
            Self::Failed { run } => write!(f, "run {run} broke its answer off"),
            Self::BrokenOff { run } => write!(f, "run {run} was broken off by its caller"),
            Self::Told { status, taken: true } => write!(f, "caller told {status}"),
            Self::Told { status, taken: false } => write!(f, "caller told {status}, and did not take it"),
            Self::LeftQueued => f.write_str("last look: on its queue"),
            Self::LeftResult => f.write_str("last look: its result is on the way"),
            Self::Buried => f.write_str("last look: a dead letter"),
            Self::ResultBuried => f.write_str("last look: its result is a dead letter"),
        }
    }
}
