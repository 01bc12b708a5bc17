//! The state of the stream, of its consumers, and of the programs that change them.

use super::setup::{CALLS, Faults, Setup};
use crate::{guard::Guard, rule::Rule};

/// Number of functions.
pub const FUNCTIONS: usize = 2;
/// Number of consumers: that of the queue, and the lanes.
pub const CONSUMERS: usize = 1 + FUNCTIONS;
/// The consumer of the queue: it takes all calls, or, if the queue has lanes, none of a function.
pub const QUEUE: usize = 0;

/// The state of the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub(super) calls: [Call; CALLS],
    pub(super) consumers: [Option<Consumer>; CONSUMERS],
    /// What the operator is to bring about.
    pub(super) spec: Spec,
    pub(super) operator: Operator,
    pub(super) sweep: Sweep,
    pub(super) faults: Faults,
    /// The rule that a step has broken.
    pub(super) broken: Option<Rule>,
}

/// The desired state of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Spec {
    pub(super) has_lanes: bool,
    pub(super) is_suspended: bool,
    /// How often the fairness may still change.
    pub(super) changes: u8,
}

/// A call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Call {
    pub(super) message: Message,
    pub(super) producer: Producer,
    /// The deliveries that workers have: each with its consumer, if that still exists.
    pub(super) deliveries: [Option<Delivery>; 2],
}

/// Where the message of a call is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Message {
    #[default]
    Absent,
    Stored,
    Gone,
}

/// How far the program that stores a call is with its lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Producer {
    #[default]
    Idle,
    /// The call is stored.
    HasStored,
    /// The lane does not exist.
    NeedsLane,
    /// It creates the lane as a copy of the consumer of the queue.
    Creates {
        is_paused: bool,
    },
    Done,
}

/// A delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Delivery {
    /// `None`: its consumer was deleted. An acknowledgement removes nothing.
    pub(super) consumer: Option<usize>,
}

/// A consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Consumer {
    /// Whether it is that of a queue with lanes, or a lane.
    pub(super) has_lanes: bool,
    pub(super) pause: Pause,
    pub(super) calls: [Place; CALLS],
}

/// Whether a consumer delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Pause {
    No,
    /// Until it is removed, or a few seconds have passed.
    Short,
    /// The queue is suspended.
    Suspended,
}

/// What a consumer knows of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Place {
    /// It is not its call, or is not stored.
    #[default]
    None,
    Pending,
    Out,
    /// It waits for its retry, or for the delivery after that.
    Delayed,
}

/// The operator, while it brings the consumers to their desired state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Operator {
    Idle,
    /// It has listed these consumers, to replace them, and pauses them.
    Pauses([bool; CONSUMERS]),
    /// It lists them again.
    Lists,
    /// It deletes the consumers that it has listed, and then creates the consumer of the queue.
    Deletes([bool; CONSUMERS]),
    /// It creates the consumer of the queue, after it has deleted others or not.
    Creates {
        is_replaced: bool,
    },
}

/// The sweep, after it has listed the consumers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Sweep {
    Idle,
    /// It creates a lane.
    Creates {
        lane: usize,
        is_paused: bool,
    },
    /// It removes a lane: pauses it.
    Pauses(usize),
    /// Checks whether it has calls.
    Checks(usize),
    /// Deletes it.
    Deletes(usize),
    /// Resumes it.
    Resumes(usize),
}

// === impl State ===

impl State {
    pub(super) fn new(setup: Setup) -> Self {
        let spec = Spec { has_lanes: setup.has_lanes, is_suspended: false, changes: setup.changes };
        let queue =
            Consumer { has_lanes: setup.has_lanes, pause: Pause::No, calls: [Place::None; CALLS] };
        let mut consumers = [None; CONSUMERS];
        consumers[QUEUE] = Some(queue);
        Self {
            calls: [Call::default(); CALLS],
            consumers,
            spec,
            operator: Operator::Idle,
            sweep: Sweep::Idle,
            faults: setup.faults,
            broken: None,
        }
    }

    /// Returns whether the queue has lanes, by the consumer of the queue.
    pub(super) fn rest(&self) -> Option<Consumer> {
        self.consumers[QUEUE].filter(|consumer| consumer.has_lanes)
    }

    /// Creates a consumer, unless it exists or another one takes its calls.
    pub(super) fn create(
        &mut self,
        setup: Setup,
        number: usize,
        has_lanes: bool,
        paused: bool,
    ) -> bool {
        let queue = self.consumers[QUEUE];
        let has_any_lane = self.consumers[1..].iter().any(Option::is_some);
        let is_refused = self.consumers[number].is_some()
            || if number == QUEUE {
                !has_lanes && has_any_lane
            } else {
                queue.is_some_and(|queue| !queue.has_lanes)
            };
        if is_refused {
            return false;
        }
        let pause = if paused { Pause::Suspended } else { Pause::No };
        let mut consumer = Consumer { has_lanes, pause, calls: [Place::None; CALLS] };
        for (c, call) in self.calls.iter().enumerate() {
            let is_taken = setup.has(Guard::LaneTakesStored) || number == QUEUE;
            if is_taken && call.message == Message::Stored && takes(setup, consumer, number, c) {
                consumer.calls[c] = Place::Pending;
            }
        }
        self.consumers[number] = Some(consumer);
        true
    }

    /// Deletes a consumer. Returns whether it existed.
    pub(super) fn delete(&mut self, number: usize) -> bool {
        for delivery in self.calls.iter_mut().flat_map(|call| call.deliveries.iter_mut().flatten())
        {
            if delivery.consumer == Some(number) {
                delivery.consumer = None;
            }
        }
        self.consumers[number].take().is_some()
    }
}

// === impl Consumer ===

impl Consumer {
    pub(super) fn is_paused(self) -> bool {
        self.pause != Pause::No
    }

    pub(super) fn is_drained(self) -> bool {
        self.calls == [Place::None; CALLS]
    }
}

/// Returns whether a consumer takes a call.
pub(super) fn takes(setup: Setup, consumer: Consumer, number: usize, c: usize) -> bool {
    if number == QUEUE { !consumer.has_lanes } else { lane_of(setup, c) == number }
}

/// Returns the lane of the function of a call.
pub(super) fn lane_of(setup: Setup, c: usize) -> usize {
    1 + usize::from(setup.functions[c])
}
