//! Looks at each queue again from time to time. Whose turn it is follows from its uid and the time, so that nothing has to be
//! kept for any: an alarm for each would take as much memory as its Deployment.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::{crd::AsyncQueue, slim::uid, triggers::Triggers, watch::Stores};

/// Between two looks at a queue that is as it shall be: what somebody changes on NATS, of which there may be no notice, comes
/// back within so many seconds.
const RESYNC: u64 = 10;

/// Where there are many queues, so many of them are looked at a second: a look takes a handful of requests to NATS.
const LOOKS_PER_SECOND: u64 = 50;

/// Has queues looked at for as long as it is polled.
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

/// In so many seconds each of so many queues is looked at once.
fn round(queues: usize) -> u64 {
    RESYNC.max(u64::try_from(queues).unwrap_or(u64::MAX) / LOOKS_PER_SECOND)
}

/// Where a queue stands among all, by chance and always the same.
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
