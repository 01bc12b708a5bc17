//! The state of two calls with one id, of their clients, and of the workers.

use super::setup::Faults;
use crate::rule::Rule;

/// Number of calls. Each has a client that waits for it.
pub const CALLS: usize = 2;
/// Number of workers.
pub const WORKERS: usize = 2;

/// The state of the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub(super) calls: [Call; CALLS],
    pub(super) clients: [Client; CALLS],
    pub(super) workers: [Worker; WORKERS],
    pub(super) faults: Faults,
    /// The rule that a step has broken.
    pub(super) broken: Option<Rule>,
}

/// A call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Call {
    pub(super) message: Message,
    /// Whether it was delivered before.
    pub(super) was_delivered: bool,
    /// Number of its invocations.
    pub(super) runs: u8,
    /// The invocation whose result is kept.
    pub(super) kept: Option<u8>,
}

/// Where the message of a call is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Message {
    #[default]
    Absent,
    Stored,
    Gone,
}

/// A client that waits, and its gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Client {
    pub(super) phase: Phase,
    pub(super) is_subscribed: bool,
    pub(super) is_disconnected: bool,
    /// Whether it has lost its connection at any time.
    pub(super) has_lost: bool,
    /// The results that were published to it, by their calls: each with its invocation.
    pub(super) heard: [Option<u8>; CALLS],
}

/// How far a gateway is with a call whose client waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    #[default]
    New,
    /// It waits for the ack.
    Published,
    /// It waits for the result.
    Waits,
    /// The time is over.
    Reads {
        /// Whether the result was kept before.
        was_kept: bool,
    },
    /// It has answered with the result of this invocation, or with 202.
    Answered(Option<u8>),
}

/// What a worker does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Worker {
    #[default]
    Idle,
    /// It has a delivery.
    Has { call: usize, is_first: bool },
    /// The function runs.
    Runs { call: usize, run: u8 },
    /// The function has answered, and the result is to be kept. `is_acked`: the call is
    /// acknowledged before.
    Keeps { call: usize, run: u8, is_acked: bool },
    /// The call is to be acknowledged. `keeps`: after that, the result of this invocation is to be
    /// kept.
    Acks { call: usize, keeps: Option<u8> },
}

// === impl State ===

impl State {
    pub(super) fn new(faults: Faults) -> Self {
        Self {
            calls: [Call::default(); CALLS],
            clients: [Client::default(); CALLS],
            workers: [Worker::default(); WORKERS],
            faults,
            broken: None,
        }
    }

    pub(super) fn breaks(&mut self, rule: Rule) {
        self.broken.get_or_insert(rule);
    }

    /// Returns whether a worker has a call.
    pub(super) fn is_held(&self, c: usize) -> bool {
        self.workers.iter().any(|worker| worker.call() == Some(c))
    }
}

// === impl Worker ===

impl Worker {
    pub(super) const fn call(self) -> Option<usize> {
        match self {
            Self::Idle => None,
            Self::Has { call, .. }
            | Self::Runs { call, .. }
            | Self::Keeps { call, .. }
            | Self::Acks { call, .. } => Some(call),
        }
    }
}
