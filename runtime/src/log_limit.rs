//! Limits how often something is logged.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Lets one line through per interval, and counts those that it suppresses.
#[derive(Debug)]
pub struct LogLimit {
    interval: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    logged_at: Option<Instant>,
    suppressed: u64,
}

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
}
