//! Counts the failures of each call.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
};

/// Maximum number of calls whose failures are remembered; the oldest are forgotten.
const MAX_CALLS: usize = 10_000;

/// Number of failures of each call, by its id.
#[derive(Debug, Default)]
pub(crate) struct Attempts(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failures: HashMap<String, u32>,
    order: VecDeque<String>,
}

// === impl Attempts ===

impl Attempts {
    /// Returns how often the call has failed so far.
    pub(crate) fn failures(&self, call_id: &str) -> u32 {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .failures
            .get(call_id)
            .copied()
            .unwrap_or(0)
    }

    /// Records that the call failed.
    pub(crate) fn failed(&self, call_id: &str) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(failures) = state.failures.get_mut(call_id) {
            *failures += 1;
            return;
        }
        if state.order.len() == MAX_CALLS
            && let Some(oldest) = state.order.pop_front()
        {
            state.failures.remove(&oldest);
        }
        state.failures.insert(call_id.to_owned(), 1);
        state.order.push_back(call_id.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_counted_for_each_call_and_the_oldest_are_forgotten() {
        let attempts = Attempts::default();
        attempts.failed("a");
        attempts.failed("a");
        assert_eq!((attempts.failures("a"), attempts.failures("b")), (2, 0));
        for id in 0..MAX_CALLS {
            attempts.failed(&id.to_string());
        }
        assert_eq!(attempts.failures("a"), 0);
        assert_eq!(attempts.0.lock().unwrap().failures.len(), MAX_CALLS);
    }
}
