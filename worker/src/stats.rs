//! Says over core NATS how many calls run here, for whoever adds it up.

use std::time::Duration;

use async_nats::Client;
use asyncqueue::{
    QueueName,
    stats::{WorkerStats, stats_subject},
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tracing::debug;

use crate::store::Store;

/// Without a change, said this often: a listener takes a worker for gone after a few of them.
const EVERY: Duration = Duration::from_secs(5);

/// Changes within this time are said as one: a worker of short calls would say nothing else.
const SETTLE: Duration = Duration::from_millis(250);

/// Says the number of running calls, on change and every few seconds, for as long as it is known.
pub(crate) async fn publish(
    client: Client,
    queue: &QueueName,
    worker: String,
    max_inflight: u32,
    mut running: watch::Receiver<usize>,
    store: Store,
) {
    let subject = stats_subject(queue);
    loop {
        let now = u32::try_from(*running.borrow_and_update()).unwrap_or(u32::MAX);
        let stats =
            WorkerStats { worker: worker.clone(), running: now, max_inflight, blocked: store.blocked() };
        match serde_json::to_vec(&stats) {
            Ok(json) => {
                if let Err(error) = client.publish(subject.clone(), json.into()).await {
                    debug!(%error, "statistics could not be sent");
                }
            }
            Err(error) => debug!(%error, "statistics could not be encoded"),
        }
        sleep(SETTLE).await;
        if let Ok(Err(_)) = timeout(EVERY, running.changed()).await {
            return;
        }
    }
}
