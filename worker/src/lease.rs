//! The lease of a call: renewed while the call runs, so that a call may take hours and a dead worker's calls
//! are picked up within one lease.

use std::{
    pin::{Pin, pin},
    sync::atomic::Ordering,
    time::Duration,
};

use async_nats::jetstream::AckKind;
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use crate::{ack::Acks, delivery::Delivered};

/// Renewed this many times within a lease: two renewals in a row may fail before it is lost.
const RENEWALS: u32 = 3;

/// What ran under a lease.
#[derive(Debug)]
pub(crate) struct Held<T> {
    /// Its result.
    pub(crate) value: T,
    /// Whether the lease ran out meanwhile: somebody else may have the message.
    pub(crate) lost: bool,
}

/// Runs `work` and renews the lease of what was delivered until it has ended. `work` is pinned by the caller, since to take it in
/// would be to have it in memory twice, for each call that runs.
pub(crate) async fn hold<T>(
    acks: &Acks,
    delivered: &Delivered,
    lease: Duration,
    mut work: Pin<&mut impl Future<Output = T>>,
) -> Held<T> {
    let mut confirmed = Instant::now();
    let mut renewal = pin!(renew(acks, delivered, lease / RENEWALS));
    loop {
        tokio::select! {
            value = work.as_mut() => return Held { value, lost: confirmed.elapsed() > lease },
            renewed = &mut renewal => {
                if renewed.is_none() {
                    delivered.is_lease_in_doubt.store(true, Ordering::Relaxed);
                }
                confirmed = renewed.unwrap_or(confirmed);
                renewal.set(renew(acks, delivered, lease / RENEWALS));
            }
        }
    }
}

/// Waits for `pause`, then renews. Returns when the renewal was sent if the server confirmed it, since the new
/// lease began no earlier.
async fn renew(acks: &Acks, delivered: &Delivered, pause: Duration) -> Option<Instant> {
    sleep(pause).await;
    let sent = Instant::now();
    match timeout(pause, acks.confirm(delivered, AckKind::Progress)).await {
        Ok(Ok(())) => Some(sent),
        Ok(Err(error)) => {
            debug!(%error, "a lease was not renewed");
            None
        }
        Err(_) => {
            debug!("a renewal of a lease was not confirmed in time");
            None
        }
    }
}
