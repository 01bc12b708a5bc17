//! Keeps the reserve of the operator's own NATS server full: the room for what ends calls when the
//! store is full.

use std::time::Duration;

use asyncqueue::reserve::{self, FillOutcome};
use tokio::time::sleep;
use tracing::{debug, info, warn};

use crate::{
    broker::Brokers, crd::AsyncQueue, directory::most_replicas, error::chain, watch::Stores,
};

/// Interval of the checks.
const INTERVAL: Duration = Duration::from_secs(10);

/// Keeps the reserve of the operator's own NATS server full for as long as it is polled. A new
/// reserve has as many copies as the stream of a queue has at most.
pub(crate) async fn run(brokers: &Brokers, queues: &Stores<AsyncQueue>) {
    let mut is_short = false;
    loop {
        let own = brokers.own();
        if own.is_connected() {
            let replicas = most_replicas(queues.all().iter().map(AsRef::as_ref));
            let replicas = usize::try_from(replicas).unwrap_or(1);
            match reserve::keep_full(&own.js, replicas).await {
                Ok(FillOutcome::Full) => is_short = false,
                Ok(FillOutcome::Filled) => {
                    is_short = false;
                    info!("the reserve for what ends calls is full");
                }
                Ok(FillOutcome::NoSpace) if !std::mem::replace(&mut is_short, true) => {
                    warn!(
                        "the store of NATS has no room for the reserve: new calls are refused until it has"
                    );
                }
                Ok(FillOutcome::NoSpace) => {}
                Err(error) => debug!("the reserve can't be filled now: {}", chain(&error)),
            }
        }
        sleep(INTERVAL).await;
    }
}
