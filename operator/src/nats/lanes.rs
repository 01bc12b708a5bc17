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
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::{
    connections::{NatsConnection, NatsEndpoint, NatsPool},
    queue_spec::queue_spec,
};
use crate::{cache::watch::MultiStore, crd::AsyncQueue, error::chain};

/// Maximum number of queues that are swept concurrently.
const MAX_CONCURRENT_SWEEPS: usize = 8;

/// Minimum time between two warnings about one queue.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// The sweepers of queues, by the UID of the `AsyncQueue`.
type Sweepers = HashMap<String, Sweeper>;

/// Sweeps all queues at each interval, for as long as it is polled.
pub(crate) async fn run(pool: &NatsPool, queues: &MultiStore<AsyncQueue>) {
    let mut sweepers = Sweepers::new();
    let warnings = LogLimits::new(WARNING_INTERVAL);
    loop {
        sleep(SWEEP_INTERVAL).await;
        let queues = queues.all();
        let with_lanes = queues.iter().filter(|queue| has_lanes(queue));
        let sweeps: Vec<_> = with_lanes
            .map(|queue| {
                let uid = queue.uid().unwrap_or_default();
                sweep(pool, queue.clone(), sweepers.remove(&uid), uid, &warnings)
            })
            .collect();
        let swept: Vec<_> = futures::stream::iter(sweeps)
            .buffer_unordered(MAX_CONCURRENT_SWEEPS)
            .filter_map(std::future::ready)
            .collect()
            .await;
        sweepers = swept.into_iter().collect();
    }
}

/// Returns whether the operator takes care of a queue's lanes.
fn has_lanes(queue: &AsyncQueue) -> bool {
    queue.spec.fairness == Fairness::Function
        && queue.owns_stream()
        && queue.metadata.deletion_timestamp.is_none()
}

/// Sweeps one queue. Returns its sweeper, which knows what the last sweep saw.
async fn sweep(
    pool: &NatsPool,
    queue: Arc<AsyncQueue>,
    sweeper: Option<Sweeper>,
    uid: String,
    warnings: &LogLimits<String>,
) -> Option<(String, Sweeper)> {
    let connection = pool.get(NatsEndpoint::from_queue(&queue)).await.ok()?;
    let connection = Some(connection).filter(|connection| connection.is_connected())?;
    let spec = queue_spec(&queue).ok()?;
    let mut sweeper = sweeper.unwrap_or_else(|| new_sweeper(&connection, &spec));
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
