//! Decides which functions that refuse calls are in the status of a queue, and when that is
//! written.
//!
//! Learned limits change all the time, and a steady state must not write. So the status has what
//! differs much from what it has, at most once a minute.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use asyncqueue::stats::LimitedFunction;
use kube::ResourceExt;

use crate::crd::{AsyncQueue, LimitedFunctionStatus};

/// Maximum number of functions in a status.
const MAX_FUNCTIONS: usize = 10;

/// Minimum time between two changes of the functions in a status.
const MIN_INTERVAL: Duration = Duration::from_secs(60);

/// When the functions in statuses have changed last, by the UID of the queue.
#[derive(Debug, Default)]
pub(crate) struct LimitChanges(Mutex<HashMap<String, Instant>>);

// === impl LimitChanges ===

impl LimitChanges {
    /// Returns the functions of the next status of a queue, by what its workers report.
    pub(crate) fn next_status(
        &self,
        queue: &AsyncQueue,
        reported: &[LimitedFunction],
        now: Instant,
    ) -> Vec<LimitedFunctionStatus> {
        let before =
            queue.status.as_ref().map(|status| &status.limited_functions[..]).unwrap_or_default();
        let reported = &reported[..reported.len().min(MAX_FUNCTIONS)];
        let Some(uid) = queue.uid().filter(|_| differs(before, reported)) else {
            return before.to_vec();
        };
        let mut changes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        changes.retain(|_, at| now.duration_since(*at) < MIN_INTERVAL);
        if changes.contains_key(&uid) {
            return before.to_vec();
        }
        changes.insert(uid, now);
        let status = |LimitedFunction { function, limit, .. }: &LimitedFunction| {
            LimitedFunctionStatus { function: function.to_string(), limit: (*limit).into() }
        };
        reported.iter().map(status).collect()
    }
}

/// Returns whether other functions are limited than the status says, or their limits differ much.
fn differs(before: &[LimitedFunctionStatus], reported: &[LimitedFunction]) -> bool {
    before.len() != reported.len()
        || before.iter().zip(reported).any(|(before, reported)| {
            before.function != reported.function.to_string()
                || differs_much(before.limit, reported.limit.into())
        })
}

/// Returns whether one limit exceeds the other by more than half, and by more than one.
fn differs_much(one: i64, other: i64) -> bool {
    let (lower, higher) = (one.min(other), one.max(other));
    // A status may have any number.
    higher.saturating_sub(lower) > 1 && higher.saturating_mul(2) > lower.saturating_mul(3)
}

#[cfg(test)]
mod tests {
    use asyncqueue::FunctionName;

    use super::*;
    use crate::{crd::AsyncQueueStatus, fixtures};

    fn reported(limits: &[(&str, u32)]) -> Vec<LimitedFunction> {
        let limited = |(name, limit): &(&str, u32)| {
            let function = FunctionName::new(name, "ns").unwrap();
            LimitedFunction { function, limit: *limit, refused: 1 }
        };
        limits.iter().map(limited).collect()
    }

    fn status(limits: &[(&str, i64)]) -> Vec<LimitedFunctionStatus> {
        let status = |(name, limit): &(&str, i64)| LimitedFunctionStatus {
            function: format!("{name}.ns"),
            limit: *limit,
        };
        limits.iter().map(status).collect()
    }

    fn queue(limits: &[(&str, i64)]) -> AsyncQueue {
        let limited_functions = status(limits);
        let status = AsyncQueueStatus { limited_functions, ..AsyncQueueStatus::default() };
        AsyncQueue { status: Some(status), ..fixtures::owner("jobs") }
    }

    #[test]
    fn a_limit_that_varies_is_not_written() {
        let changes = LimitChanges::default();
        for (before, reports) in [(20, [14, 20, 30]), (1, [1, 2, 2]), (3, [2, 3, 4])] {
            let queue = queue(&[("f", before)]);
            for limit in reports {
                let next = changes.next_status(&queue, &reported(&[("f", limit)]), Instant::now());
                assert_eq!(next, status(&[("f", before)]), "{before} {limit}");
            }
        }
        assert!(changes.0.lock().unwrap().is_empty());
    }

    #[test]
    fn a_status_changes_at_most_once_a_minute() {
        let (changes, start) = (LimitChanges::default(), Instant::now());
        let next = |queue: &AsyncQueue, limits: &[(&str, u32)], seconds| {
            changes.next_status(queue, &reported(limits), start + Duration::from_secs(seconds))
        };
        let none = fixtures::owner("jobs");
        assert_eq!(next(&none, &[("f", 5)], 0), status(&[("f", 5)]));
        let written = queue(&[("f", 5)]);
        for early in [&[("f", 50)][..], &[("f", 5), ("g", 1)], &[]] {
            assert_eq!(next(&written, early, 59), status(&[("f", 5)]));
        }
        let both = [("f", 50), ("g", 1)];
        assert_eq!(next(&written, &both, 60), status(&[("f", 50), ("g", 1)]));
        // Another queue is not delayed by it.
        let mut other = fixtures::owner("other");
        other.metadata.uid = Some(fixtures::uid("other"));
        assert_eq!(next(&other, &[("h", 2)], 60), status(&[("h", 2)]));
        assert_eq!(next(&queue(&[("f", 50)]), &[], 120), []);
    }

    #[test]
    fn a_status_has_the_first_functions() {
        let names: Vec<_> = (0..30).map(|number| format!("f{number:02}")).collect();
        let limits: Vec<_> = names.iter().map(|name| (name.as_str(), 1)).collect();
        let changes = LimitChanges::default();
        let next =
            changes.next_status(&fixtures::owner("jobs"), &reported(&limits), Instant::now());
        assert_eq!(next.len(), MAX_FUNCTIONS);
        assert_eq!(next[9].function, "f09.ns");
    }
}
