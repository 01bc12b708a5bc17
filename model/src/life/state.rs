//! The state of the model: calls on the server, what is stored about them, and workers.

use super::setup::Faults;
use crate::rule::Rule;

/// Maximum number of calls in a search.
pub const CALLS: usize = 2;
/// Maximum number of workers in a search.
pub const WORKERS: usize = 3;
/// Maximum number of sequences: one for each call, and 0, which no message has.
pub const SEQUENCES: usize = CALLS + 1;
/// Deliveries are counted up to this number.
pub const MOST_DELIVERIES: u8 = 9;

/// The whole state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The calls.
    pub calls: [Call; CALLS],
    /// What is stored about the call at each sequence.
    pub records: [Record; SEQUENCES],
    /// The workers.
    pub workers: [Worker; WORKERS],
    /// The sequence that the next message gets.
    pub next_sequence: u8,
    /// Faults that may still happen.
    pub faults: Faults,
    /// Cancellations that may still be requested.
    pub cancels: u8,
}

/// A call: its message, the gateway that cancels it, and what was observed of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Call {
    /// Its message on the stream.
    pub message: Message,
    /// Its sequence.
    pub sequence: u8,
    /// How many deliveries of it the consumer knows.
    pub count: u8,
    /// The state to which a change of leader goes back: the message and its count before the last
    /// step that is not replicated.
    pub before: Option<(Message, u8)>,
    /// Whether it is older than `maxAge`.
    pub is_old: bool,
    /// Whether it was deleted with its stream.
    pub is_deleted: bool,
    /// Whether a cancellation removed its message.
    pub was_removed: bool,
    /// The end with which its own worker's ack removed the message.
    pub acked: Option<End>,
    /// The progress of its cancellation.
    pub cancel: Cancel,
    /// What was observed of it.
    pub seen: Seen,
}

/// Where the message of a call is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Message {
    /// Not submitted yet.
    #[default]
    Absent,
    /// Waiting for delivery.
    Pending,
    /// Delivered, under a lease.
    Out,
    /// Waiting until the delay of a nak has passed.
    Delayed,
    /// Removed.
    Gone,
}

/// How a call ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum End {
    /// The function answered.
    Done,
    /// Its attempts are exhausted.
    Dead,
    /// A client cancelled it.
    Cancelled,
    /// It was older than `maxAge` when it was delivered.
    Expired,
}

/// The progress of a cancellation in the gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Cancel {
    /// No client requested it.
    #[default]
    None,
    /// The message was found.
    Found,
    /// The tombstone is written.
    Marked,
    /// The result is stored.
    Reported,
    /// The message is removed. Next, the gateway asks the workers.
    Removed {
        /// Whether the message was never delivered.
        is_undelivered: bool,
        /// Whether the message was there, or an earlier request had removed it.
        was_there: bool,
    },
    /// The client was answered.
    Answered(Answer),
}

/// The answer to the client of a cancellation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// 202.
    Confirmed,
    /// 409 or 404.
    Refused,
    /// 503: ask again.
    Unavailable,
}

/// What was observed of a call so far, as far as rules depend on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Seen {
    /// Starts, without those that are not attempts.
    pub starts: u8,
    /// Invocations that have neither failed nor been handed back.
    pub open: u8,
    /// Open invocations, beyond the first, that faults explain.
    pub excused: u8,
    /// Deliveries that counted but were lost before they started an invocation.
    pub lost_deliveries: u8,
    /// Deliveries that the server forgot.
    pub forgotten: u8,
    /// Whether a cancellation was confirmed.
    pub is_cancel_confirmed: bool,
    /// Whether a worker took an ack as confirmed.
    pub is_ack_confirmed: bool,
    /// The first rule that a step broke.
    pub broken: Option<Rule>,
}

/// What is stored about the call at one sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Record {
    /// Its tombstone.
    pub tombstone: Option<Tombstone>,
    /// Its first result.
    pub result: Option<End>,
    /// Whether a result with another end was stored after that.
    pub has_second_result: bool,
    /// Its dead letters.
    pub letters: u8,
    /// Whether the stream of dead letters remembers the message id.
    pub is_letter_known: bool,
    /// Its deliveries that are not attempts.
    pub uncounted: u8,
}

/// The content of a tombstone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tombstone {
    /// Cancelled.
    Cancelled,
    /// Dead.
    Dead,
    /// Expired.
    Expired,
    /// It has ended in another way.
    Ended,
}

/// A worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Worker {
    /// Whether it is paused.
    pub is_paused: bool,
    /// Its tasks, by call.
    pub tasks: [Option<Task>; CALLS],
    /// Calls that it delayed by a nak, which wait for a later attempt.
    pub waits: [bool; CALLS],
    /// What it knows about cancellations, by the tombstone's key.
    pub heard: [Heard; SEQUENCES],
}

/// Whether a worker knows that a call is cancelled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Heard {
    /// No.
    #[default]
    No,
    /// Yes.
    Yes {
        /// Whether the worker had the call and so confirms the cancellation: running, held or
        /// waiting.
        had: bool,
    },
}

/// What a worker does for one delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Task {
    /// The sequence of the message.
    pub sequence: u8,
    /// The count of the delivery.
    pub count: u8,
    /// The number of the attempt.
    pub attempt: u8,
    /// The progress of the task.
    pub step: Step,
    /// Whether it occupies a slot.
    pub has_slot: bool,
    /// Whether the lease ran out.
    pub is_lost: bool,
}

/// The progress of the task for a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// The message has arrived.
    Delivered {
        /// Whether the worker was paused since then, so that it may have missed a tombstone.
        is_stale: bool,
        /// Whether the tombstone was looked up since then.
        is_checked: bool,
    },
    /// The function runs.
    Running,
    /// The end must be written to the tombstone.
    Ending(End),
    /// The result must be stored.
    Storing(End),
    /// The dead letter must be stored.
    StoringDeadLetter,
    /// The server must confirm the end of the delivery.
    Settling(Settle),
}

/// The end of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Settle {
    /// The end that is acknowledged. `None` for a delayed nak.
    pub ack: Option<End>,
    /// Whether the server has it.
    pub is_sent: bool,
    /// Whether an attempt to confirm it has failed.
    pub has_failed: bool,
}

// === impl Step ===

impl Step {
    /// Acknowledges a message.
    #[must_use]
    pub fn ack(end: End) -> Self {
        Self::Settling(Settle { ack: Some(end), is_sent: false, has_failed: false })
    }

    /// Naks a message with a delay.
    #[must_use]
    pub fn nak() -> Self {
        Self::Settling(Settle { ack: None, is_sent: false, has_failed: false })
    }
}

// === impl Call ===

impl Call {
    /// Returns whether the stream has its message.
    #[must_use]
    pub fn is_stored(&self) -> bool {
        matches!(self.message, Message::Pending | Message::Out | Message::Delayed)
    }

    /// Returns whether its consumer knows of a delivery, so that it accepts an ack.
    #[must_use]
    pub fn is_known_delivered(&self) -> bool {
        self.is_stored() && self.count > 0
    }

    /// Takes a step that is not replicated yet.
    pub fn advance(&mut self, message: Message, count: u8) {
        self.before = Some((self.message, self.count));
        self.message = message;
        self.count = count;
    }
}

// === impl Seen ===

impl Seen {
    /// Records that a step broke a rule.
    pub(super) fn breaks(&mut self, rule: Rule) {
        self.broken.get_or_insert(rule);
    }
}

// === impl Worker ===

impl Worker {
    /// Returns the number of occupied slots.
    #[must_use]
    pub fn taken_slots(&self) -> usize {
        self.tasks.iter().flatten().filter(|task| task.has_slot).count()
    }

    /// Returns whether it has a task for the message at a sequence.
    #[must_use]
    pub fn claims(&self, sequence: u8) -> bool {
        self.tasks.iter().flatten().any(|task| task.sequence == sequence)
    }
}
