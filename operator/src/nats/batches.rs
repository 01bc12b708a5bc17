//! Sweeps the batches of calls on all servers that queues use.

use std::collections::HashSet;

use asyncqueue::batch::{SWEEP_INTERVAL, sweep_now};
use tokio::time::sleep;

use super::connections::{NatsEndpoint, NatsPool};
use crate::{cache::watch::MultiStore, crd::AsyncQueue};

/// Sweeps the batches at each interval, for as long as it is polled.
pub(crate) async fn run(pool: &NatsPool, queues: &MultiStore<AsyncQueue>) {
    for turn in 0.. {
        sleep(SWEEP_INTERVAL).await;
        let of_queues = queues.all().into_iter().map(|queue| NatsEndpoint::from_queue(&queue));
        let endpoints: HashSet<_> = of_queues.chain([None]).collect();
        for endpoint in endpoints {
            if let Ok(connection) = pool.get(endpoint).await {
                sweep_now(&connection.js, turn).await;
            }
        }
    }
}
