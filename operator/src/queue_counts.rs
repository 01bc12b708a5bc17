//! The counts in a queue's status: pending, running, redelivered and dead calls, and functions.

use crate::crd::AsyncQueueStatus;

/// The numbers of a queue. A number that is not known is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    pending: Option<i64>,
    inflight: Option<i64>,
    redelivered: Option<i64>,
    dead_letters: Option<i64>,
    functions: Option<i64>,
}

/// The numbers that were counted on NATS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Number of stored calls.
    pub(crate) messages: u64,
    /// Number of running calls, as reported by the workers.
    pub(crate) running: u64,
    /// Number of stored calls that were delivered more than once.
    pub(crate) redelivered: u64,
    pub(crate) dead_letters: u64,
}

// === impl Figures ===

impl Figures {
    /// Returns the numbers of a queue that has its stream.
    pub(crate) fn new(counted: Option<Counted>, functions: Option<usize>) -> Self {
        let of =
            |number: fn(&Counted) -> u64| counted.as_ref().map(|counted| signed(number(counted)));
        Self {
            // An unacknowledged call is stored, whether it runs or waits for its retry.
            pending: of(|counted| counted.messages.saturating_sub(counted.running)),
            inflight: of(|counted| counted.running),
            redelivered: of(|counted| counted.redelivered),
            dead_letters: of(|counted| counted.dead_letters),
            functions: functions.map(signed),
        }
    }

    /// Returns the numbers of a queue without calls.
    pub(crate) fn of_empty(dead_letters: u64, functions: Option<usize>) -> Self {
        let counted = Counted { messages: 0, running: 0, redelivered: 0, dead_letters };
        Self::new(Some(counted), functions)
    }

    /// Returns whether calls were counted.
    pub(crate) fn are_known(&self) -> bool {
        self.pending.is_some()
    }

    /// Returns the numbers in a status.
    pub(crate) fn of(status: &AsyncQueueStatus) -> Self {
        Self {
            pending: status.pending,
            inflight: status.inflight,
            redelivered: status.redelivered,
            dead_letters: status.dead_letters,
            functions: status.functions,
        }
    }

    /// Returns a status with these numbers.
    pub(crate) fn put(self, status: AsyncQueueStatus) -> AsyncQueueStatus {
        AsyncQueueStatus {
            pending: self.pending,
            inflight: self.inflight,
            redelivered: self.redelivered,
            dead_letters: self.dead_letters,
            functions: self.functions,
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

    fn counted() -> Counted {
        Counted { messages: 7, running: 2, redelivered: 1, dead_letters: 3 }
    }

    #[test]
    fn what_does_not_run_is_pending() {
        let figures = Figures::new(Some(counted()), Some(4));
        let expected = Figures {
            pending: Some(5),
            inflight: Some(2),
            redelivered: Some(1),
            dead_letters: Some(3),
            functions: Some(4),
        };
        assert_eq!(figures, expected);
    }

    #[test]
    fn while_nats_is_away_its_numbers_are_absent() {
        let figures = Figures::new(None, Some(4));
        assert_eq!(figures, Figures { functions: Some(4), ..Figures::default() });
        assert!(!figures.are_known());
    }

    #[test]
    fn more_running_than_stored_is_no_negative_number() {
        let figures = Figures::new(Some(Counted { messages: 1, ..counted() }), None);
        assert_eq!((figures.pending, figures.inflight), (Some(0), Some(2)));
    }

    #[test]
    fn what_is_put_into_a_status_is_read_back() {
        let figures = Figures::new(Some(counted()), Some(4));
        let status =
            figures.clone().put(AsyncQueueStatus { replicas: 2, ..AsyncQueueStatus::default() });
        assert_eq!((Figures::of(&status), status.replicas), (figures, 2));
    }
}
