//! Limits how often something is logged.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Lets one line through per interval, and counts those that it suppresses.
#[derive(Debug)]
pub struct LogLimit {
    interval: Duration,
    state: Mutex<State>,
}

/// A [`LogLimit`] for each of several things. When there are too many, all are forgotten: each of
/// them then has another line.
#[derive(Debug)]
pub struct LogLimits<K> {
    interval: Duration,
    limits: Mutex<HashMap<K, LogLimit>>,
}

#[derive(Debug, Default)]
struct State {
    logged_at: Option<Instant>,
    suppressed: u64,
}

/// Number of things that [`LogLimits`] remembers.
const MAX_KEYS: usize = 10_000;

// === impl LogLimit ===

impl LogLimit {
    /// Allows at most one line per `interval`.
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        Self { interval, state: Mutex::default() }
    }

    /// Returns `Some` if a line may be logged now, with the number of lines that were suppressed
    /// since the last one.
    #[must_use]
    pub fn allow(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.logged_at.is_some_and(|at| now.saturating_duration_since(at) < self.interval) {
            state.suppressed += 1;
            return None;
        }
        state.logged_at = Some(now);
        Some(std::mem::take(&mut state.suppressed))
    }
}

// === impl LogLimits ===

impl<K: Clone + Eq + Hash> LogLimits<K> {
    /// Allows at most one line about each thing per `interval`.
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        Self { interval, limits: Mutex::default() }
    }

    /// Does for `key` what [`LogLimit::allow`] does.
    #[must_use]
    pub fn allow(&self, key: &K, now: Instant) -> Option<u64> {
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        if limits.len() >= MAX_KEYS && !limits.contains_key(key) {
            limits.clear();
        }
        let new = || LogLimit::new(self.interval);
        limits.entry(key.clone()).or_insert_with(new).allow(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_between_two_are_counted() {
        let (limit, start) = (LogLimit::new(Duration::from_secs(10)), Instant::now());
        let pass = |seconds| limit.allow(start + Duration::from_secs(seconds));
        assert_eq!((pass(0), pass(1), pass(9)), (Some(0), None, None));
        assert_eq!((pass(10), pass(19), pass(30)), (Some(2), None, Some(1)));
    }

    #[test]
    fn each_of_several_things_has_its_own_limit() {
        let (limits, now) = (LogLimits::new(Duration::from_secs(10)), Instant::now());
        let pass = |key: usize| limits.allow(&key, now);
        assert_eq!((pass(1), pass(2), pass(1)), (Some(0), Some(0), None));
        for key in 0..MAX_KEYS * 3 {
            let _ = pass(key);
        }
        assert!(limits.limits.lock().unwrap().len() <= MAX_KEYS);
    }
}
