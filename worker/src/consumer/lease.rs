//! Renews the lease of a call while the call runs. So a call may take hours, and the calls of a
//! dead worker are picked up within one lease.

use std::{
    pin::{Pin, pin},
    sync::atomic::Ordering,
    time::Duration,
};

use async_nats::jetstream::AckKind;
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use super::{ack::Acks, delivery::Delivered};

/// Number of renewals within a lease: two in a row may fail before the lease is lost.
const RENEWALS: u32 = 3;

/// Outcome of work that ran under a lease.
#[derive(Debug)]
pub(crate) struct Held<T> {
    /// Result of the work.
    pub(crate) value: T,
    /// Whether the lease ran out before the work ended: another worker may have the message.
    pub(crate) lost: bool,
}

/// Runs `work`, and renews the lease of the delivery until the work has ended. The calling function
/// pins `work`: taking it by value would hold it in memory twice, for each call that runs.
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

/// Waits for `pause`, then renews the lease. If the server confirms the renewal, returns the time
/// at which it was sent: the new lease began no earlier.
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
