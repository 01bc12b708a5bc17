//! Sweeps the lanes of all queues that have some: creates lanes for calls that no consumer takes,
//! and removes those that are not used.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use asyncqueue::{
    lanes::{Fairness, SWEEP_INTERVAL, Sweeper},
    stream::QueueSpec,
};
use asyncqueue_runtime::log_limit::LogLimits;
use futures::StreamExt;
use kube::ResourceExt;
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};
use tracing::{info, warn};

use super::{
    connections::{NatsConnection, NatsEndpoint, NatsPool},
    queue_spec::queue_spec,
};
use crate::{
    cache::watch::MultiStore,
    crd::AsyncQueue,
    error::chain,
    lane_limits::{LaneStates, QueueLanes, is_replicated},
};

/// Maximum number of queues that are swept concurrently.
const MAX_CONCURRENT_SWEEPS: usize = 8;

/// Minimum time between two warnings about one queue.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// The sweepers of queues, by the UID of the `AsyncQueue`.
type Sweepers = HashMap<String, Sweeper>;

/// Sweeps all queues at each interval, for as long as it is polled. `changed` is notified when the
/// directory has to say something else about lanes.
pub(crate) async fn run(
    pool: &NatsPool,
    queues: &MultiStore<AsyncQueue>,
    states: &LaneStates,
    changed: &Notify,
) {
    let mut sweepers = Sweepers::new();
    let warnings = LogLimits::new(WARNING_INTERVAL);
    loop {
        sleep(SWEEP_INTERVAL).await;
        let queues = queues.all();
        let with_lanes: Vec<_> = queues.iter().filter(|queue| has_lanes(queue)).collect();
        let (usage, count) = (states.usage(), with_lanes.len());
        let sweeps: Vec<_> = with_lanes
            .iter()
            .map(|queue| {
                let lanes = known_lanes(states, queue, None);
                let max_own = usage.max_own_after_sweep(&states.limits, &lanes, count);
                let sweeper = sweepers.remove(&uid(queue));
                sweep(pool, (*queue).clone(), sweeper, max_own, &warnings)
            })
            .collect();
        let swept: Vec<_> = futures::stream::iter(sweeps)
            .buffer_unordered(MAX_CONCURRENT_SWEEPS)
            .filter_map(std::future::ready)
            .collect()
            .await;
        sweepers = swept.into_iter().collect();
        let found = with_lanes.iter().map(|queue| {
            let uid = uid(queue);
            let lanes = known_lanes(states, queue, sweepers.get(&uid));
            (uid, lanes)
        });
        if states.record(found.collect()) {
            changed.notify_one();
        }
    }
}

fn uid(queue: &AsyncQueue) -> String {
    queue.uid().unwrap_or_default()
}

/// Returns the lanes of a queue that a sweep found, or else an earlier one: NATS may be
/// unavailable.
fn known_lanes(states: &LaneStates, queue: &AsyncQueue, sweeper: Option<&Sweeper>) -> QueueLanes {
    let counts = sweeper.map(Sweeper::lanes);
    let counts = counts.or_else(|| states.of(queue).map(|lanes| lanes.counts));
    QueueLanes { counts: counts.unwrap_or_default(), is_replicated: is_replicated(queue) }
}

/// Returns whether the operator takes care of a queue's lanes.
fn has_lanes(queue: &AsyncQueue) -> bool {
    queue.spec.fairness == Fairness::Function
        && queue.owns_stream()
        && queue.metadata.deletion_timestamp.is_none()
}

/// Sweeps one queue, of which at most `max_own` functions have lanes of their own then. Returns its
/// sweeper, which knows what the last sweep saw.
async fn sweep(
    pool: &NatsPool,
    queue: Arc<AsyncQueue>,
    sweeper: Option<Sweeper>,
    max_own: usize,
    warnings: &LogLimits<String>,
) -> Option<(String, Sweeper)> {
    let connection = pool.get(NatsEndpoint::from_queue(&queue)).await.ok()?;
    let connection = Some(connection).filter(|connection| connection.is_connected())?;
    let spec = queue_spec(&queue).ok()?;
    let mut sweeper = sweeper.unwrap_or_else(|| new_sweeper(&connection, &spec));
    sweeper.limit_to(max_own);
    let uid = uid(&queue);
    let failure = match timeout(SWEEP_INTERVAL, sweeper.sweep()).await {
        Ok(Ok(changes)) => {
            for change in changes {
                info!(queue = %spec.queue, "{change}");
            }
            None
        }
        Ok(Err(error)) => Some(chain(&error)),
        Err(_) => Some(format!("it takes longer than {SWEEP_INTERVAL:?}")),
    };
    if let Some(failure) = failure.filter(|_| warnings.allow(&uid, Instant::now()).is_some()) {
        warn!(queue = %spec.queue, "failed to sweep the lanes of the queue, retrying: {failure}");
    }
    Some((uid, sweeper))
}

fn new_sweeper(connection: &NatsConnection, spec: &QueueSpec) -> Sweeper {
    Sweeper::new(connection.js.clone(), spec)
}
