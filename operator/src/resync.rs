//! Reconciles each queue periodically. The time at which a queue is due follows from its uid, so
//! that no state is kept. A timer for each queue would take as much memory as its Deployment.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::{
    cache::{object::uid, watch::Stores},
    crd::AsyncQueue,
    triggers::Triggers,
};

/// Interval, in seconds, of the reconciliations of a queue in its desired state. Changes on NATS,
/// for which there may be no advisory, are reverted within this time.
const RESYNC: u64 = 10;

/// With many queues, the number that is reconciled each second: a reconciliation takes a handful of
/// requests to NATS.
const LOOKS_PER_SECOND: u64 = 50;

/// Triggers reconciliations for as long as it is polled.
pub(crate) async fn run(queues: &Stores<AsyncQueue>, triggers: &Triggers) {
    queues.complete().await;
    let mut clock = interval(Duration::from_secs(1));
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for second in 0.. {
        clock.tick().await;
        let queues = queues.all();
        let round = round(queues.len());
        let is_due = |queue: &AsyncQueue| place(queue) % round == second % round;
        for queue in queues.iter().filter(|queue| is_due(queue)) {
            triggers.look(queue);
        }
    }
}

/// Returns the time, in seconds, in which each of so many queues is reconciled once.
fn round(queues: usize) -> u64 {
    RESYNC.max(u64::try_from(queues).unwrap_or(u64::MAX) / LOOKS_PER_SECOND)
}

/// Returns the position of a queue among all: random, but always the same.
fn place(queue: &AsyncQueue) -> u64 {
    uid(&queue.metadata).as_u64_pair().1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_queues_are_looked_at_less_often() {
        for (queues, seconds) in [(0, 10), (1, 10), (500, 10), (10_000, 200)] {
            assert_eq!(round(queues), seconds, "{queues}");
        }
    }
}
