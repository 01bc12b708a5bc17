//! The order in which the calls of a queue are run.

use serde::{Deserialize, Serialize};
use strum::{Display, EnumString, VariantNames};

use crate::retry::policy::UnknownValue;

/// The name of a worker's setting: the order in which calls of a queue are run.
pub const SETTING: &str = "fairness";

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
