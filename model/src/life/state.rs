//! The state of the model: calls on the server, what is stored about them, and workers.

use super::setup::Faults;
use crate::rule::Rule;

/// The most calls of a search.
pub const CALLS: usize = 2;
/// The most workers of a search.
pub const WORKERS: usize = 3;
/// The most sequences: one for each call, and 0, which no message has.
pub const SEQUENCES: usize = CALLS + 1;
/// Deliveries are counted up to this.
pub const MOST_DELIVERIES: u8 = 9;

/// All of it.
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
    /// Cancellations that may still be asked for.
    pub cancels: u8,
}

/// A call: its message, the gateway that cancels it, and what was seen of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Call {
    /// Its message on the stream.
    pub message: Message,
    /// Its sequence.
    pub sequence: u8,
    /// How often the consumer knows to have delivered it.
    pub count: u8,
    /// What a change of leader goes back to: the message and its count before the last step
    /// that is not replicated.
    pub before: Option<(Message, u8)>,
    /// Whether it is older than `maxAge`.
    pub is_old: bool,
    /// Whether it was deleted with its stream.
    pub is_deleted: bool,
    /// Whether a cancellation removed its message.
    pub was_removed: bool,
    /// The end with which its own worker's ack removed the message.
    pub acked: Option<End>,
    /// How far its cancellation is.
    pub cancel: Cancel,
    /// What was seen of it.
    pub seen: Seen,
}

/// Where the message of a call is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Message {
    /// Not submitted yet.
    #[default]
    Absent,
    /// To be delivered.
    Pending,
    /// Delivered, under a lease.
    Out,
    /// Put off.
    Delayed,
    /// Removed.
    Gone,
}

/// How a call ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum End {
    /// The function answered.
    Done,
    /// Its attempts are used up.
    Dead,
    /// A client cancelled it.
    Cancelled,
    /// It was older than `maxAge` when it was delivered.
    Expired,
}

/// How far a cancellation is in the gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Cancel {
    /// No client asked for it.
    #[default]
    None,
    /// The message was found.
    Found,
    /// The tombstone is written.
    Marked,
    /// The result is stored.
    Reported,
    /// The message is removed; now the gateway asks the workers.
    Removed {
        /// Whether it was never delivered.
        is_undelivered: bool,
        /// Whether the message was there.
        was_there: bool,
    },
    /// The client was answered.
    Answered(Answer),
}

/// What the client of a cancellation is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// 202.
    Confirmed,
    /// 409 or 404.
    Refused,
    /// 503: ask again.
    Unavailable,
}

/// What was seen of a call so far, as far as rules depend on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Seen {
    /// Starts, without those that are no attempts.
    pub starts: u8,
    /// Invocations that have neither failed nor been handed back.
    pub open: u8,
    /// Open invocations, beyond the first, that faults account for.
    pub excused: u8,
    /// Deliveries that counted but were lost before they started an invocation.
    pub lost_deliveries: u8,
    /// Deliveries that the server forgot.
    pub forgotten: u8,
    /// Whether a cancellation was confirmed.
    pub is_cancel_confirmed: bool,
    /// Whether a worker took an ack for confirmed.
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
    /// Whether a result of another end was stored after that.
    pub has_second_result: bool,
    /// Its dead letters.
    pub letters: u8,
    /// Whether the stream of dead letters remembers the message id.
    pub is_letter_known: bool,
    /// Its deliveries that are no attempts.
    pub uncounted: u8,
}

/// What a tombstone says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tombstone {
    /// Cancelled.
    Cancelled,
    /// Dead.
    Dead,
    /// Expired.
    Expired,
    /// It had ended otherwise.
    Ended,
}

/// A worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Worker {
    /// Whether it stands still.
    pub is_paused: bool,
    /// What it has in hand, by call.
    pub tasks: [Option<Task>; CALLS],
    /// Calls that it handed back for a later attempt.
    pub waits: [bool; CALLS],
    /// What it knows of cancellations, by the tombstone's key.
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
        /// Whether it had the call, so that it confirms: running, held or waiting.
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
    /// The attempt that it is.
    pub attempt: u8,
    /// How far it is.
    pub step: Step,
    /// Whether it has a slot.
    pub has_slot: bool,
    /// Whether the lease ran out.
    pub is_lost: bool,
}

/// How far the task for a delivery is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// The message has arrived.
    Delivered {
        /// Whether the worker stood still since, so that a tombstone may have been missed.
        is_stale: bool,
        /// Whether the tombstone was looked up since.
        is_checked: bool,
    },
    /// The function runs.
    Running,
    /// The end is to be written to the tombstone.
    Ending(End),
    /// The result is to be stored.
    Storing(End),
    /// The dead letter is to be stored.
    StoringDeadLetter,
    /// The server is to confirm the end of the delivery.
    Settling(Settle),
}

/// The end of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Settle {
    /// The end that is acknowledged; `None` to put the message off.
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

    /// Puts a message off.
    #[must_use]
    pub fn nak() -> Self {
        Self::Settling(Settle { ack: None, is_sent: false, has_failed: false })
    }
}

// === impl Call ===

impl Call {
    /// Whether the stream holds its message.
    #[must_use]
    pub fn is_stored(&self) -> bool {
        matches!(self.message, Message::Pending | Message::Out | Message::Delayed)
    }

    /// Whether its consumer knows of a delivery, so that it takes an ack.
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
    /// Takes note that a step broke a rule.
    pub(super) fn breaks(&mut self, rule: Rule) {
        self.broken.get_or_insert(rule);
    }
}

// === impl Worker ===

impl Worker {
    /// How many slots are taken.
    #[must_use]
    pub fn taken_slots(&self) -> usize {
        self.tasks.iter().flatten().filter(|task| task.has_slot).count()
    }

    /// Whether it has the message at a sequence in hand.
    #[must_use]
    pub fn claims(&self, sequence: u8) -> bool {
        self.tasks.iter().flatten().any(|task| task.sequence == sequence)
    }
}
