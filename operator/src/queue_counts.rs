//! The counts in a queue's status: pending, running, redelivered and dead calls, and functions with
//! the limits that were learned.

use asyncqueue::depth::Depth;

use crate::crd::{AsyncQueueStatus, LimitedFunctionStatus};

/// The counts of a queue. A count that is not known is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct QueueCounts {
    pending: Option<i64>,
    inflight: Option<i64>,
    redelivered: Option<i64>,
    dead_letters: Option<i64>,
    functions: Option<i64>,
    lanes: Option<i64>,
    limited: Vec<LimitedFunctionStatus>,
}

/// The counts from NATS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamCounts {
    /// The calls that have not ended.
    pub(crate) depth: Depth,
    /// Number of stored calls that were delivered more than once.
    pub(crate) redelivered: u64,
    pub(crate) dead_letters: u64,
}

// === impl QueueCounts ===

impl QueueCounts {
    /// Returns the counts of a queue that has its stream.
    pub(crate) fn new(counted: Option<StreamCounts>, functions: Option<usize>) -> Self {
        let count = |number: fn(&StreamCounts) -> u64| {
            counted.as_ref().map(|counted| signed(number(counted)))
        };
        Self {
            pending: count(|counted| counted.depth.not_running()),
            inflight: count(|counted| counted.depth.running),
            redelivered: count(|counted| counted.redelivered),
            dead_letters: count(|counted| counted.dead_letters),
            functions: functions.map(signed),
            lanes: None,
            limited: Vec::new(),
        }
    }

    /// Returns the counts with the number of lanes; `None` for a queue without lanes.
    pub(crate) fn with_lanes(self, lanes: Option<usize>) -> Self {
        Self { lanes: lanes.map(signed), ..self }
    }

    /// Returns the counts with the functions that refuse calls.
    pub(crate) fn with_limited(self, limited: Vec<LimitedFunctionStatus>) -> Self {
        Self { limited, ..self }
    }

    /// Returns the counts of a queue without calls.
    pub(crate) fn empty(dead_letters: u64, functions: Option<usize>) -> Self {
        let counted = StreamCounts { depth: Depth::default(), redelivered: 0, dead_letters };
        Self::new(Some(counted), functions)
    }

    /// Returns whether calls were counted.
    pub(crate) fn is_known(&self) -> bool {
        self.pending.is_some()
    }

    /// Returns the counts in a status.
    pub(crate) fn from_status(status: &AsyncQueueStatus) -> Self {
        Self {
            pending: status.pending,
            inflight: status.inflight,
            redelivered: status.redelivered,
            dead_letters: status.dead_letters,
            functions: status.functions,
            lanes: status.lanes,
            limited: status.limited_functions.clone(),
        }
    }

    /// Returns a status with these counts.
    pub(crate) fn apply_to(self, status: AsyncQueueStatus) -> AsyncQueueStatus {
        AsyncQueueStatus {
            pending: self.pending,
            inflight: self.inflight,
            redelivered: self.redelivered,
            dead_letters: self.dead_letters,
            functions: self.functions,
            lanes: self.lanes,
            limited_functions: self.limited,
            ..status
        }
    }
}

fn signed(count: impl TryInto<i64>) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted() -> StreamCounts {
        let depth = Depth { waiting: 4, running: 2, retrying: 1 };
        StreamCounts { depth, redelivered: 1, dead_letters: 3 }
    }

    #[test]
    fn calls_that_do_not_run_are_pending() {
        let counts = QueueCounts::new(Some(counted()), Some(4));
        let expected = QueueCounts {
            pending: Some(5),
            inflight: Some(2),
            redelivered: Some(1),
            dead_letters: Some(3),
            functions: Some(4),
            lanes: None,
            limited: Vec::new(),
        };
        assert_eq!(counts, expected);
    }

    #[test]
    fn counts_are_absent_while_nats_is_unavailable() {
        let counts = QueueCounts::new(None, Some(4));
        assert_eq!(counts, QueueCounts { functions: Some(4), ..QueueCounts::default() });
        assert!(!counts.is_known());
    }

    #[test]
    fn counts_of_a_status_are_read_back() {
        let limited = LimitedFunctionStatus { function: "f.ns".to_owned(), limit: 5 };
        let counts = QueueCounts::new(Some(counted()), Some(4));
        let counts = counts.with_lanes(Some(7)).with_limited(vec![limited]);
        let status = counts
            .clone()
            .apply_to(AsyncQueueStatus { replicas: 2, ..AsyncQueueStatus::default() });
        assert_eq!((QueueCounts::from_status(&status), status.replicas), (counts, 2));
    }
}
