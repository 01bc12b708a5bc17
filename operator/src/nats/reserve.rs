//! Keeps the reserve of the operator's own NATS server full. The reserve is space for ending calls
//! when the store is full.

use std::time::Duration;

use asyncqueue::reserve::{self, FillOutcome};
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::connections::{NatsPool, max_replicas};
use crate::{cache::watch::MultiStore, crd::AsyncQueue, error::chain};

/// Interval of the checks.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// Refills the reserve of the operator's own NATS server for as long as it is polled. A new reserve
/// has as many replicas as the stream of a queue has at most.
pub(crate) async fn run(pool: &NatsPool, queues: &MultiStore<AsyncQueue>) {
    let mut is_short = false;
    loop {
        let own = pool.own();
        if own.is_connected() {
            let replicas = max_replicas(queues.all().iter().map(AsRef::as_ref));
            match reserve::keep_full(&own.js, replicas).await {
                Ok(FillOutcome::Full) => is_short = false,
                Ok(FillOutcome::Filled) => {
                    is_short = false;
                    info!("refilled the reserve for ending calls");
                }
                Ok(FillOutcome::NoSpace) if !std::mem::replace(&mut is_short, true) => {
                    warn!(
                        "no space on NATS for the reserve: new calls are refused until there is \
                         space"
                    );
                }
                Ok(FillOutcome::NoSpace) => {}
                Err(error) => debug!("failed to refill the reserve: {}", chain(&error)),
            }
        }
        sleep(CHECK_INTERVAL).await;
    }
}
