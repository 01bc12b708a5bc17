//! Lanes: one consumer for each function of a queue, so that the backlog of one function does not
//! delay the calls of the others.
//!
//! A queue with [`Fairness::Fifo`] has one consumer, which takes all calls in their order. With
//! [`Fairness::Function`], that consumer takes only messages whose subject names no function, and
//! each function with calls has a consumer: its lane. So the filters of that consumer say which
//! form a queue has ([`has_lanes`]), and each new lane is a copy of it with another filter.
//!
//! A lane is created by the program that stores a call of its function ([`ensure_lane`]), or by the
//! sweep ([`Sweeper`]), which finds messages that no consumer takes. A lane is created with its
//! filters and never gets another one: nats-server does not deliver messages to a consumer that
//! were stored before a filter was added and that lie before its position (`docs/adr/0023`).

mod ensure;
mod ensurer;
mod names;
mod plan;
mod summary;
mod sweep;

pub(crate) use self::names::is_group;
pub use crate::{
    fairness::{DEFAULT_MAX_LANES, Fairness, MAX_MAX_LANES, SETTING},
    lane_filters::{function_of, has_lanes, matches_filter},
};

pub use self::{
    ensure::{LaneOutcome, ensure_lane},
    ensurer::LaneEnsurer,
    names::{function_of_lane, is_lane, lane_name},
    plan::LaneCounts,
    summary::{FunctionSummary, summarize_functions},
    sweep::{SWEEP_INTERVAL, Sweeper},
};
