//! The state of a batch of two calls, and of the programs that end them.

use super::setup::{Faults, Setup};
use crate::rule::Rule;

/// Number of calls.
pub const CALLS: usize = 2;
/// Number of programs: two workers, and the sweep.
pub const PROGRAMS: usize = 3;
/// The program that sweeps.
pub const SWEEP: usize = 2;

/// The ends of the calls, as a report has them.
pub(super) type Ends = [Option<End>; CALLS];

/// The state of the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub(super) calls: [Call; CALLS],
    pub(super) batch: Batch,
    pub(super) programs: [Program; PROGRAMS],
    pub(super) faults: Faults,
    /// The rule that a step has broken.
    pub(super) broken: Option<Rule>,
}

/// A call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Call {
    pub(super) message: Message,
    pub(super) was_delivered: bool,
    /// It has a tombstone.
    pub(super) is_cancelled: bool,
    /// The first end that was written.
    pub(super) first_end: Option<End>,
}

/// Where the message of a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Message {
    Stored,
    Acknowledged,
    Purged,
}

/// What NATS has of the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Batch {
    /// Whether the record is there.
    pub(super) is_open: bool,
    /// The end of each call, as it is stored.
    pub(super) ends: Ends,
    pub(super) counter: u8,
    /// The calls whose ends were counted within the duplicate window.
    pub(super) counted: [bool; CALLS],
    /// The report that is kept.
    pub(super) report: Option<Ends>,
    /// Whether the callback was stored within the duplicate window.
    pub(super) has_callback: bool,
    /// The report of the first callback.
    pub(super) called_back: Option<Ends>,
    /// How often a callback may be repeated.
    pub(super) repeats: u8,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum End {
    Done,
    Failed,
    Cancelled,
    Unknown,
}

/// What a program does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Program {
    pub(super) step: Step,
    /// The call that it ends.
    pub(super) call: usize,
    pub(super) end: End,
    /// Whether the call was acknowledged.
    pub(super) is_acked: bool,
}

/// The next step of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Step {
    Idle,
    WriteEnd,
    Count,
    /// It reads all ends.
    Read,
    CallBack(Ends),
    WriteReport(Ends),
    Remove(Ends),
    CancelRest,
    Ack,
}

// === impl State ===

impl State {
    pub(super) fn new(setup: Setup) -> Self {
        let call = Call {
            message: Message::Stored,
            was_delivered: false,
            is_cancelled: false,
            first_end: None,
        };
        let batch = Batch {
            is_open: true,
            ends: [None; CALLS],
            counter: 0,
            counted: [false; CALLS],
            report: None,
            has_callback: false,
            called_back: None,
            repeats: 0,
        };
        Self {
            calls: [call; CALLS],
            batch,
            programs: [Program::IDLE; PROGRAMS],
            faults: setup.faults,
            broken: None,
        }
    }

    pub(super) fn breaks(&mut self, rule: Rule) {
        self.broken.get_or_insert(rule);
    }

    /// Returns whether a worker has a call.
    pub(super) fn is_held(&self, c: usize) -> bool {
        let mut workers = self.programs[..SWEEP].iter();
        workers.any(|program| program.step != Step::Idle && program.call == c)
    }
}

// === impl Call ===

impl Call {
    pub(super) fn is_stored(self) -> bool {
        self.message == Message::Stored
    }
}

// === impl Program ===

impl Program {
    pub(super) const IDLE: Self =
        Self { step: Step::Idle, call: 0, end: End::Done, is_acked: false };
}
