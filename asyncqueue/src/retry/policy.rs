//! The retry settings of a queue: names, values and defaults of the worker's settings.
//!
//! The operator writes them into the directory, and where workers do not follow that, into their
//! environment variables.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use strum::{Display, EnumString, VariantNames};

use super::{RetryError, check_attempts, check_code};
use crate::duration::GoDuration;

/// Setting: maximum number of attempts, including the first.
pub const MAX_RETRY_ATTEMPTS: &str = "max_retry_attempts";
/// Setting: the wait before the second attempt.
pub const INITIAL_RETRY_WAIT: &str = "initial_retry_wait";
/// Setting: the longest wait between two attempts.
pub const MAX_RETRY_WAIT: &str = "max_retry_wait";
/// Setting: how the wait grows, a [`Backoff`].
pub const BACKOFF: &str = "backoff";
/// Setting: which part of the wait is random, a [`Jitter`].
pub const RETRY_JITTER: &str = "retry_jitter";
/// Setting: the statuses that are retried, comma-separated.
pub const RETRY_HTTP_CODES: &str = "retry_http_codes";

/// The names of all these settings.
pub const SETTINGS: [&str; 6] = [
    MAX_RETRY_ATTEMPTS,
    INITIAL_RETRY_WAIT,
    MAX_RETRY_WAIT,
    BACKOFF,
    RETRY_JITTER,
    RETRY_HTTP_CODES,
];

/// Default of [`MAX_RETRY_ATTEMPTS`], which is that of `OpenFaaS`.
pub const DEFAULT_MAX_ATTEMPTS: u16 = 10;
/// Default of [`INITIAL_RETRY_WAIT`].
pub const DEFAULT_MIN_BACKOFF: GoDuration = GoDuration(Duration::from_secs(10));
/// Default of [`MAX_RETRY_WAIT`].
pub const DEFAULT_MAX_BACKOFF: GoDuration = GoDuration(Duration::from_secs(120));
/// Default of [`RETRY_HTTP_CODES`]: too slow, too many calls, or a fault of the function's side.
/// The next attempt may succeed.
pub const DEFAULT_STATUS_CODES: [u16; 6] = [408, 429, 500, 502, 503, 504];

/// The retry settings of a queue. In JSON, a field that is missing has its default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueueRetry {
    /// Maximum number of attempts, including the first.
    pub max_attempts: u64,
    /// The wait before the second attempt.
    pub min_backoff: GoDuration,
    /// The longest wait between two attempts.
    pub max_backoff: GoDuration,
    /// How the wait grows.
    pub backoff: Backoff,
    /// Which part of the wait is random.
    pub jitter: Jitter,
    /// The statuses that are retried.
    pub status_codes: Vec<u16>,
}

/// How the wait grows from attempt to attempt. Settings have the values in lower case.
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
#[strum(serialize_all = "lowercase", parse_err_ty = UnknownValue, parse_err_fn = unknown_backoff)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema), schemars(inline))]
pub enum Backoff {
    /// Doubled each time.
    #[default]
    Exponential,
    /// Always the same.
    Static,
}

/// Which part of the wait is random, so that calls that failed together do not return together.
/// Settings have the values in lower case.
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
#[strum(serialize_all = "lowercase", parse_err_ty = UnknownValue, parse_err_fn = unknown_jitter)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema), schemars(inline))]
pub enum Jitter {
    /// Nothing.
    None,
    /// All of it: between nothing and the whole wait.
    #[default]
    Full,
    /// Half of it: between half and the whole wait.
    Equal,
}

/// A setting has a value that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{value}` is not valid: use {}", values.join(", "))]
pub struct UnknownValue {
    value: String,
    values: &'static [&'static str],
}

// === impl UnknownValue ===

impl UnknownValue {
    pub(crate) fn new(value: &str, values: &'static [&'static str]) -> Self {
        Self { value: value.to_owned(), values }
    }
}

// === impl QueueRetry ===

impl Default for QueueRetry {
    fn default() -> Self {
        Self {
            max_attempts: DEFAULT_MAX_ATTEMPTS.into(),
            min_backoff: DEFAULT_MIN_BACKOFF,
            max_backoff: DEFAULT_MAX_BACKOFF,
            backoff: Backoff::default(),
            jitter: Jitter::default(),
            status_codes: DEFAULT_STATUS_CODES.into(),
        }
    }
}

impl QueueRetry {
    /// Refuses values that no queue can have.
    pub(crate) fn check(&self) -> Result<(), RetryError> {
        check_attempts(self.max_attempts)?;
        self.status_codes.iter().try_for_each(|code| check_code(*code))?;
        let (min, max) = (self.min_backoff, self.max_backoff);
        if min > max { Err(RetryError::Backoffs { min, max }) } else { Ok(()) }
    }

    /// Returns the settings as environment variables of a worker.
    #[must_use]
    pub fn variables(&self) -> [(&'static str, String); SETTINGS.len()] {
        let codes: Vec<_> = self.status_codes.iter().map(u16::to_string).collect();
        [
            (MAX_RETRY_ATTEMPTS, self.max_attempts.to_string()),
            (INITIAL_RETRY_WAIT, self.min_backoff.to_string()),
            (MAX_RETRY_WAIT, self.max_backoff.to_string()),
            (BACKOFF, self.backoff.to_string()),
            (RETRY_JITTER, self.jitter.to_string()),
            (RETRY_HTTP_CODES, codes.join(",")),
        ]
    }
}

// === impl Backoff ===

impl Backoff {
    /// The values of the setting.
    pub const VALUES: &'static [&'static str] = <Self as VariantNames>::VARIANTS;
}

fn unknown_backoff(value: &str) -> UnknownValue {
    UnknownValue::new(value, Backoff::VALUES)
}

// === impl Jitter ===

impl Jitter {
    /// The values of the setting.
    pub const VALUES: &'static [&'static str] = <Self as VariantNames>::VARIANTS;
}

fn unknown_jitter(value: &str) -> UnknownValue {
    UnknownValue::new(value, Jitter::VALUES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_they_are_written() {
        for value in Backoff::VALUES {
            assert_eq!(value.parse::<Backoff>().unwrap().to_string(), *value);
        }
        for value in Jitter::VALUES {
            assert_eq!(value.parse::<Jitter>().unwrap().to_string(), *value);
        }
        assert_eq!(Backoff::VALUES, ["exponential", "static"]);
        assert_eq!(Jitter::VALUES, ["none", "full", "equal"]);
        let error = "linear".parse::<Backoff>().unwrap_err();
        assert_eq!(error.to_string(), "`linear` is not valid: use exponential, static");
    }

    #[test]
    fn each_setting_has_a_variable() {
        let retry = QueueRetry {
            max_attempts: 3,
            min_backoff: DEFAULT_MIN_BACKOFF,
            max_backoff: DEFAULT_MAX_BACKOFF,
            backoff: Backoff::Static,
            jitter: Jitter::None,
            status_codes: vec![429, 503],
        };
        assert_eq!(retry.variables().map(|(name, _)| name), SETTINGS);
        let values = retry.variables().map(|(_, value)| value);
        assert_eq!(values, ["3", "10s", "2m", "static", "none", "429,503"]);
    }
}
