//! A function's own retry settings, which override those of its queue.
//!
//! The annotations are those of `OpenFaaS` Pro (its documentation, "Retries for functions"). So is
//! the rule that a value that can't be read leaves the queue's setting.

use std::{collections::BTreeSet, time::Duration};

use serde::{Deserialize, Serialize};

use crate::duration::GoDuration;

pub mod policy;

pub use policy::{Backoff, Jitter, QueueRetry};

/// Annotation: maximum number of attempts, including the first.
pub const ATTEMPTS: &str = "com.openfaas.retry.attempts";
/// Annotation: the statuses that are retried, comma-separated.
pub const CODES: &str = "com.openfaas.retry.codes";
/// Annotation: the wait before the second attempt.
pub const MIN_WAIT: &str = "com.openfaas.retry.min_wait";
/// Annotation: the longest wait.
pub const MAX_WAIT: &str = "com.openfaas.retry.max_wait";

/// A function's own settings. `None`: as its queue says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RetryOverrides {
    /// Maximum number of attempts, including the first; at least 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u64>,
    /// The statuses that are retried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub codes: Option<BTreeSet<u16>>,
    /// The wait before the second attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_wait: Option<GoDuration>,
    /// The longest wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_wait: Option<GoDuration>,
}

// === impl RetryOverrides ===

impl RetryOverrides {
    /// Reads the annotations that `get` returns. Values that can't be read are left out, and named
    /// in the second part.
    #[must_use]
    pub fn from_annotations<'a>(get: impl Fn(&str) -> Option<&'a str>) -> (Self, Vec<String>) {
        let mut unread = Vec::new();
        let overrides = Self {
            attempts: read(ATTEMPTS, &get, &mut unread, |text| {
                text.parse().ok().filter(|attempts| *attempts > 0)
            }),
            codes: read(CODES, &get, &mut unread, parse_codes),
            min_wait: read(MIN_WAIT, &get, &mut unread, |text| text.parse().ok()),
            max_wait: read(MAX_WAIT, &get, &mut unread, |text| text.parse().ok()),
        };
        (overrides, unread)
    }

    /// Refuses values that a queue can't have either.
    pub fn check(&self) -> Result<(), RetryError> {
        self.attempts.map_or(Ok(()), check_attempts)?;
        self.codes.iter().flatten().try_for_each(|code| check_code(*code))?;
        match (self.min_wait, self.max_wait) {
            (Some(min), Some(max)) if min > max => Err(RetryError::Order { min, max }),
            _ => Ok(()),
        }
    }

    /// Returns whether no setting is present.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns these settings, completed by the others.
    #[must_use]
    pub fn or(self, others: &Self) -> Self {
        Self {
            attempts: self.attempts.or(others.attempts),
            codes: self.codes.or_else(|| others.codes.clone()),
            min_wait: self.min_wait.or(others.min_wait),
            max_wait: self.max_wait.or(others.max_wait),
        }
    }
}

fn read<'a, T>(
    name: &'static str,
    get: &impl Fn(&str) -> Option<&'a str>,
    unread: &mut Vec<String>,
    parse: impl Fn(&str) -> Option<T>,
) -> Option<T> {
    let text = get(name)?.trim();
    let value = parse(text);
    if value.is_none() {
        unread.push(format!("{name} `{text}`"));
    }
    value
}

/// Maximum number of attempts in a queue or a directory file.
pub const MAX_ATTEMPTS: u64 = 1000;

/// Longest wait between two attempts in a queue or a directory file.
pub const MAX_BACKOFF: Duration = Duration::from_secs(24 * 3600);

/// A retry setting is not valid. The error names field, value, rule and remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RetryError {
    /// Too few or too many attempts.
    #[error("attempts `{0}` is not valid: use 1 to {MAX_ATTEMPTS}")]
    Attempts(u64),
    /// A status that HTTP does not have.
    #[error("codes: `{0}` is no status of HTTP: use 100 to 599")]
    Code(u16),
    /// A wait that is too long.
    #[error(
        "{field} `{value}` is not valid: use a duration from 0s to 24h, written as 200ms, 90s, 15m \
         or 1h30m"
    )]
    Wait {
        /// The field.
        field: &'static str,
        /// Its value.
        value: String,
    },
    /// The first wait is longer than the longest.
    #[error(
        "minWait `{min}` is more than maxWait `{max}`: it is the first wait, and that the longest"
    )]
    Order {
        /// The first wait.
        min: GoDuration,
        /// The longest wait.
        max: GoDuration,
    },
    /// The same, as the fields of a queue are called.
    #[error(
        "minBackoff `{min}` is more than maxBackoff `{max}`: it is the first wait, and that the \
         longest"
    )]
    Backoffs {
        /// The first wait.
        min: GoDuration,
        /// The longest wait.
        max: GoDuration,
    },
}

fn check_attempts(attempts: u64) -> Result<(), RetryError> {
    let is_valid = (1..=MAX_ATTEMPTS).contains(&attempts);
    is_valid.then_some(()).ok_or(RetryError::Attempts(attempts))
}

fn check_code(code: u16) -> Result<(), RetryError> {
    (100..=599).contains(&code).then_some(()).ok_or(RetryError::Code(code))
}

/// Reads a wait as a queue or a directory file writes it, in h, m, s and ms.
pub fn parse_wait(field: &'static str, text: &str) -> Result<GoDuration, RetryError> {
    let read = GoDuration::parse_plain(text).ok().filter(|wait| wait.0 <= MAX_BACKOFF);
    read.ok_or_else(|| RetryError::Wait { field, value: text.to_owned() })
}

/// Reads a comma-separated list of HTTP statuses.
#[must_use]
pub fn parse_codes(text: &str) -> Option<BTreeSet<u16>> {
    let codes = text.split(',').map(str::trim).filter(|code| !code.is_empty());
    codes.map(|code| code.parse().ok().filter(|code| (100..=599).contains(code))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overrides(annotations: &[(&str, &str)]) -> (RetryOverrides, Vec<String>) {
        RetryOverrides::from_annotations(|name| {
            annotations.iter().find(|(found, _)| *found == name).map(|(_, value)| *value)
        })
    }

    #[test]
    fn a_functions_annotations_are_read() {
        let (read, unread) = overrides(&[
            (ATTEMPTS, "3"),
            (CODES, "429, 503"),
            (MIN_WAIT, "1s"),
            (MAX_WAIT, "1m30s"),
        ]);
        assert_eq!(read.attempts, Some(3));
        assert_eq!(read.codes, Some([429, 503].into()));
        assert_eq!(read.min_wait, Some("1s".parse().unwrap()));
        assert_eq!(read.max_wait, Some("1m30s".parse().unwrap()));
        assert!(unread.is_empty() && !read.is_empty());
        let json = serde_json::to_string(&read).unwrap();
        assert_eq!(serde_json::from_str::<RetryOverrides>(&json).unwrap(), read);
    }

    #[test]
    fn invalid_annotation_is_named_and_the_queue_setting_applies() {
        let (read, unread) =
            overrides(&[(ATTEMPTS, "0"), (CODES, "abc"), (MIN_WAIT, "10"), (MAX_WAIT, "forever")]);
        assert!(read.is_empty());
        assert_eq!(unread.len(), 4);
        assert_eq!(unread[0], "com.openfaas.retry.attempts `0`");
        assert_eq!(overrides(&[]), (RetryOverrides::default(), Vec::new()));
    }

    #[test]
    fn retries_have_the_bounds_of_a_queue() {
        let attempts =
            |attempts| RetryOverrides { attempts: Some(attempts), ..RetryOverrides::default() };
        assert!(attempts(1).check().is_ok() && attempts(1000).check().is_ok());
        assert!(attempts(0).check().unwrap_err().to_string().contains("attempts `0`"));
        assert!(attempts(1001).check().unwrap_err().to_string().contains("use 1 to 1000"));
        let codes = RetryOverrides { codes: Some([99].into()), ..RetryOverrides::default() };
        assert_eq!(codes.check(), Err(RetryError::Code(99)));
        let wait = |text| parse_wait("minWait", text);
        assert!(
            wait("0s").is_ok()
                && wait("24h").is_ok()
                && wait("1.5s").is_ok()
                && wait("1h30m").is_ok()
        );
        for bad in ["", "0", "10", "5us", ".5s", "5.s", "-1s", "24h1ms", "1d"] {
            assert!(
                wait(bad).unwrap_err().to_string().starts_with(&format!("minWait `{bad}`")),
                "{bad}"
            );
        }
        let waits = |min, max| {
            let (min_wait, max_wait) = (wait(min).ok(), wait(max).ok());
            RetryOverrides { min_wait, max_wait, ..RetryOverrides::default() }.check()
        };
        assert!(waits("1m", "1m").is_ok() && waits("2m", "1m").is_err());
    }

    #[test]
    fn the_first_that_says_something_counts() {
        let first = overrides(&[(ATTEMPTS, "3")]).0;
        let second = overrides(&[(ATTEMPTS, "9"), (MIN_WAIT, "1s")]).0;
        let both = first.or(&second);
        assert_eq!((both.attempts, both.min_wait), (Some(3), Some("1s".parse().unwrap())));
    }
}
