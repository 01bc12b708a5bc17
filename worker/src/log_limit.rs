//! Limits how often the same thing is logged.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Minimum time between two lines about the same thing.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Number of things after which all are forgotten. Each of them then has another line.
const MAX_KEYS: usize = 10_000;

/// When something was last logged.
#[derive(Debug, Default)]
pub(crate) struct LogLimit(Mutex<Option<Instant>>);

/// When each of several things was last logged.
#[derive(Debug)]
pub(crate) struct LogLimits<K>(Mutex<HashMap<K, LogLimit>>);

// === impl LogLimit ===

impl LogLimit {
    /// Returns whether a line is due, and if so, counts it as logged.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = last.is_none_or(|last| now.duration_since(last) >= LOG_INTERVAL);
        if is_due {
            *last = Some(now);
        }
        is_due
    }
}

// === impl LogLimits ===

impl<K> Default for LogLimits<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Clone + Eq + Hash> LogLimits<K> {
    /// Returns whether a line about this is due, and if so, counts it as logged.
    pub(crate) fn is_due(&self, key: &K, now: Instant) -> bool {
        let mut limits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if limits.len() >= MAX_KEYS && !limits.contains_key(key) {
            limits.clear();
        }
        limits.entry(key.clone()).or_default().is_due(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_thing_is_logged_once_a_minute() {
        let (limit, now) = (LogLimit::default(), Instant::now());
        let due =
            [0, 1, 59, 60, 61].map(|seconds| limit.is_due(now + Duration::from_secs(seconds)));
        assert_eq!(due, [true, false, false, true, false]);
    }

    #[test]
    fn each_of_several_things_has_its_own_limit() {
        let (limits, now) = (LogLimits::default(), Instant::now());
        assert_eq!([1, 2, 1].map(|key| limits.is_due(&key, now)), [true, true, false]);
        for key in 0..MAX_KEYS * 3 {
            limits.is_due(&key, now);
        }
        assert!(limits.0.lock().unwrap().len() <= MAX_KEYS);
    }
}
