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

use super::{ack::AckBatcher, delivery::Delivery};

/// Number of renewals within a lease: two in a row may fail before the lease is lost.
const RENEWALS_PER_LEASE: u32 = 3;

/// Outcome of work that ran under a lease.
#[derive(Debug)]
pub(crate) struct LeaseOutcome<T> {
    /// Result of the work.
    pub(crate) value: T,
    /// Whether the lease ran out before the work ended: another worker may have the message.
    pub(crate) is_lost: bool,
}

/// Runs `work`, and renews the lease of the delivery until the work has ended. The calling function
/// pins `work`: taking it by value would hold it in memory twice, for each call that runs.
pub(crate) async fn run_with_renewal<T>(
    acks: &AckBatcher,
    delivery: &Delivery,
    lease: Duration,
    mut work: Pin<&mut impl Future<Output = T>>,
) -> LeaseOutcome<T> {
    let mut confirmed = Instant::now();
    let mut renewal = pin!(renew(acks, delivery, lease / RENEWALS_PER_LEASE));
    loop {
        tokio::select! {
            value = work.as_mut() => {
                return LeaseOutcome { value, is_lost: confirmed.elapsed() > lease };
            }
            renewed = &mut renewal => {
                if renewed.is_none() {
                    delivery.has_unconfirmed_renewal.store(true, Ordering::Relaxed);
                }
                confirmed = renewed.unwrap_or(confirmed);
                renewal.set(renew(acks, delivery, lease / RENEWALS_PER_LEASE));
            }
        }
    }
}

/// Waits for `interval`, then renews the lease. If the server confirms the renewal, returns the
/// time at which it was sent: the new lease began no earlier.
async fn renew(acks: &AckBatcher, delivery: &Delivery, interval: Duration) -> Option<Instant> {
    sleep(interval).await;
    let sent = Instant::now();
    match timeout(interval, acks.confirm(delivery, AckKind::Progress)).await {
        Ok(Ok(())) => Some(sent),
        Ok(Err(error)) => {
            debug!(%error, "failed to renew a lease");
            None
        }
        Err(_) => {
            debug!("lease renewal not confirmed in time");
            None
        }
    }
}
