//! Remembers which delayed calls this worker has handed back, to count them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Maximum number of remembered calls. Others count as waiting for their retry.
const MAX_CALLS: usize = 500_000;

/// The delayed calls that a worker has handed back, by sequence, with the time at which they come
/// back: to this worker or to another one. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct ScheduledCalls(Arc<Mutex<HashMap<u64, Instant>>>);

// === impl ScheduledCalls ===

impl ScheduledCalls {
    /// Records that a call is handed back for this time.
    pub(crate) fn insert(&self, sequence: u64, wait: Duration, now: Instant) {
        let mut calls = self.lock();
        if calls.len() >= MAX_CALLS && !calls.contains_key(&sequence) {
            return;
        }
        calls.insert(sequence, now + wait);
    }

    /// Forgets a call: it was cancelled.
    pub(crate) fn remove(&self, sequence: u64) {
        self.lock().remove(&sequence);
    }

    /// Returns whether a call has not come back since it was handed back here.
    pub(crate) fn contains(&self, sequence: u64, now: Instant) -> bool {
        self.lock().get(&sequence).is_some_and(|comes_back| now < *comes_back)
    }

    /// Returns the number of calls that have not come back, and forgets the others.
    pub(crate) fn count(&self, now: Instant) -> u64 {
        let mut calls = self.lock();
        calls.retain(|_, comes_back| now < *comes_back);
        calls.len() as u64
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn call_counts_until_it_comes_back() {
        let (calls, now) = (ScheduledCalls::default(), Instant::now());
        let second = Duration::from_secs(1);
        calls.insert(7, second, now);
        calls.insert(8, second * 5, now);
        calls.insert(9, second * 5, now);
        // It came back early, and was handed back again.
        calls.insert(7, second * 2, now);
        calls.remove(9);
        assert_eq!(
            (calls.count(now), calls.contains(7, now), calls.contains(9, now)),
            (2, true, false)
        );
        assert!(!calls.contains(7, now + second * 2));
        assert_eq!([calls.count(now + second * 2), calls.count(now + second * 5)], [1, 0]);
    }

    #[test]
    fn number_of_remembered_calls_is_bounded() {
        let (calls, now) = (ScheduledCalls::default(), Instant::now());
        for sequence in 0..=MAX_CALLS as u64 {
            calls.insert(sequence, Duration::from_secs(1), now);
        }
        assert_eq!(calls.count(now), MAX_CALLS as u64);
    }
}
