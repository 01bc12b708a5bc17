//! The order in which the calls of a queue are run.

use serde::{Deserialize, Serialize};
use strum::{Display, EnumString, VariantNames};

use crate::retry::policy::UnknownValue;

/// The name of a worker's setting: the order in which calls of a queue are run.
pub const SETTING: &str = "fairness";

/// Default of the maximum number of functions of a queue that have lanes of their own. Each
/// acknowledgement costs nats-server time for each consumer of the stream.
pub const DEFAULT_MAX_LANES: usize = 90;

/// Limit of that maximum: a stream has at most 100 consumers, with the one for what is no call of a
/// function and a lane that functions share.
pub const MAX_MAX_LANES: usize = 98;

/// The order in which the calls of a queue are run. Settings have the values in lower case.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    Display,
    EnumString,
    VariantNames,
)]
#[strum(serialize_all = "lowercase", parse_err_ty = UnknownValue, parse_err_fn = unknown_fairness)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema), schemars(inline))]
pub enum Fairness {
    /// The order in which they were stored.
    #[default]
    Fifo,
    /// Round robin between the functions of the queue.
    Function,
}

impl Fairness {
    /// All values of the setting.
    pub const VALUES: &[&str] = <Self as strum::VariantNames>::VARIANTS;
}

fn unknown_fairness(value: &str) -> UnknownValue {
    UnknownValue::new(value, Fairness::VALUES)
}
