//! The depth of a queue: how many of its calls have not ended. This module is its only definition.
//!
//! A queue has one consumer, or one for each of its functions. All of them read the stream of the
//! queue's calls, a work queue: a call is stored there until it has ended, and belongs to at most
//! one consumer.

use std::iter::Sum;

use async_nats::jetstream::{Context, consumer::Info};
use futures::TryStreamExt;

use crate::jetstream::NatsError;

/// What all consumers of a stream report, as one sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConsumerTotals {
    /// Number of calls that were not delivered yet.
    pub pending: u64,
    /// Number of calls that were delivered and are not acknowledged: they run, or wait for their
    /// retry.
    pub unacknowledged: u64,
    /// Number of stored calls that were delivered more than once.
    pub redelivered: u64,
}

/// The calls of a queue that have not ended, by what they do now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// Number of calls that were not delivered yet. A call that no consumer takes yet is one.
    pub waiting: u64,
    /// Number of calls that run.
    pub running: u64,
    /// Number of calls that were delivered and do not run: they wait for their retry.
    pub retrying: u64,
    /// Number of delayed calls that were delivered and are not due, as far as workers report them.
    /// They are not part of the total.
    pub scheduled: u64,
}

// === impl ConsumerTotals ===

impl ConsumerTotals {
    /// Reads the totals of a stream: one request for each 256 consumers.
    ///
    /// # Errors
    ///
    /// Fails if NATS does not answer, or the stream does not exist.
    pub async fn read(js: &Context, stream: &str) -> Result<Self, NatsError> {
        let action = "list the consumers";
        let stream = js.get_stream_no_info(stream).await.map_err(NatsError::during(action))?;
        let consumers: Vec<Self> = stream
            .consumers()
            .map_ok(|info| Self::from(&info))
            .try_collect()
            .await
            .map_err(NatsError::during(action))?;
        Ok(consumers.into_iter().sum())
    }
}

impl From<&Info> for ConsumerTotals {
    fn from(info: &Info) -> Self {
        let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        Self {
            pending: info.num_pending,
            unacknowledged: number(info.num_ack_pending),
            redelivered: number(info.num_redelivered),
        }
    }
}

impl Sum for ConsumerTotals {
    fn sum<I: Iterator<Item = Self>>(consumers: I) -> Self {
        consumers.fold(Self::default(), |total, consumer| Self {
            pending: total.pending.saturating_add(consumer.pending),
            unacknowledged: total.unacknowledged.saturating_add(consumer.unacknowledged),
            redelivered: total.redelivered.saturating_add(consumer.redelivered),
        })
    }
}

// === impl Depth ===

impl Depth {
    /// Returns the depth of a queue with so many stored calls, of which its workers report so many
    /// as running and so many as scheduled.
    ///
    /// The total is the number of stored calls and not the sum of the consumers. The two are equal
    /// while each call has a consumer. Where a consumer is missing, its calls still count, so that
    /// no autoscaler removes the workers of a queue that has calls. The numbers are read one after
    /// the other, so each part is at most what the stream stores.
    ///
    /// A delayed call that was not delivered yet counts as waiting: a worker is needed to see that
    /// it is delayed. One that no worker reports counts as retrying.
    #[must_use]
    pub fn new(stored: u64, consumers: ConsumerTotals, running: u64, scheduled: u64) -> Self {
        let running = running.min(stored);
        let held = consumers.unacknowledged.saturating_sub(running).min(stored - running);
        let scheduled = scheduled.min(held);
        Self { waiting: stored - running - held, running, retrying: held - scheduled, scheduled }
    }

    /// Returns the number of calls that have not ended and are due.
    #[must_use]
    pub fn total(self) -> u64 {
        self.waiting + self.running + self.retrying
    }

    /// Returns the number by which workers are scaled: the total, and at least 1 while calls are
    /// scheduled. Without a worker, they would not run when they are due.
    #[must_use]
    pub fn for_scaling(self) -> u64 {
        self.total().max(self.scheduled.min(1))
    }

    /// Returns the number of calls that do not run.
    #[must_use]
    pub fn not_running(self) -> u64 {
        self.waiting + self.retrying
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(pending: u64, unacknowledged: u64) -> ConsumerTotals {
        ConsumerTotals { pending, unacknowledged, redelivered: 0 }
    }

    #[test]
    fn consumers_of_a_stream_are_summed() {
        let lane = ConsumerTotals { pending: 5, unacknowledged: 2, redelivered: 1 };
        let rest = ConsumerTotals { pending: 1, unacknowledged: 0, redelivered: 0 };
        let expected = ConsumerTotals { pending: 6, unacknowledged: 2, redelivered: 1 };
        assert_eq!([lane, rest].into_iter().sum::<ConsumerTotals>(), expected);
        assert_eq!([].into_iter().sum::<ConsumerTotals>(), ConsumerTotals::default());
    }

    #[test]
    fn a_delivered_call_runs_or_waits_for_its_retry() {
        let depth = Depth::new(10, totals(6, 4), 3, 0);
        assert_eq!(depth, Depth { waiting: 6, running: 3, retrying: 1, scheduled: 0 });
        assert_eq!((depth.total(), depth.not_running()), (10, 7));
    }

    #[test]
    fn a_scheduled_call_needs_one_worker() {
        let depth = Depth::new(9, totals(0, 9), 0, 9);
        assert_eq!(depth, Depth { scheduled: 9, ..Depth::default() });
        assert_eq!((depth.total(), depth.not_running(), depth.for_scaling()), (0, 0, 1));
        let depth = Depth::new(9, totals(2, 7), 1, 4);
        assert_eq!((depth.total(), depth.for_scaling(), depth.retrying), (5, 5, 2));
    }

    #[test]
    fn calls_without_a_consumer_wait() {
        let depth = Depth::new(7, totals(0, 0), 0, 0);
        assert_eq!(depth, Depth { waiting: 7, running: 0, retrying: 0, scheduled: 0 });
        assert_eq!(Depth::new(0, totals(0, 0), 0, 0).total(), 0);
    }

    #[test]
    fn the_total_is_what_is_stored_whatever_was_read_earlier_or_later() {
        for stored in 0..4 {
            for unacknowledged in 0..6 {
                for (running, scheduled) in (0..6).flat_map(|one| (0..4).map(move |two| (one, two)))
                {
                    let depth = Depth::new(stored, totals(9, unacknowledged), running, scheduled);
                    assert_eq!(depth.total() + depth.scheduled, stored, "{depth:?}");
                    assert_eq!(depth.running, running.min(stored), "{depth:?}");
                    assert!(depth.scheduled <= scheduled, "{depth:?}");
                }
            }
        }
    }
}
