//! Settles a message: acknowledges it or hands it back, and waits until the server confirms that.

use std::time::Duration;

use async_nats::jetstream::AckKind;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, warn};

use super::{
    ack::{AckBatcher, AckError, CONFIRM_REQUEST_TIMEOUT},
    delivery::Delivery,
    in_flight::InFlightPermit,
    lease::LeaseOutcome,
};

/// Maximum time to wait for a confirmation before it is requested once more.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(1);

/// Wait between attempts.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Number of leases after which the message is certainly with another worker, and the previous one
/// no longer settles it.
pub(crate) const LEASES_UNTIL_ABANDONED: u32 = 2;

/// Settles a message, and repeats that until the server confirms it, also while NATS is
/// unavailable. A call that is done must not run again because of a lost ack.
///
/// For a delayed nak, releases the claim first: the redelivery, which may arrive before the
/// confirmation, is another attempt.
///
/// Without a confirmation, releases the slot, but keeps the claim. The consumer may have been
/// recreated, or its server killed before it stored what it delivered. It then does not answer acks
/// of deliveries that it does not know. It has to deliver the message again, and for that it needs
/// a request.
pub(crate) async fn settle(
    acks: &AckBatcher,
    delivery: &Delivery,
    outcome: LeaseOutcome<(AckKind, impl Sized)>,
    lease: Duration,
    mut permit: InFlightPermit,
) {
    let (ack, settle_guard) = outcome.value;
    if outcome.is_lost {
        let subject = &delivery.message.subject;
        warn!(
            %subject,
            "lease not renewed in time: another worker may have received this message too"
        );
        // An ack is safe even if another worker has the message. A nak would deliver it to a third
        // one.
        if matches!(ack, AckKind::Nak(_)) {
            return;
        }
    }
    let time_limit = match ack {
        // After this time, the nak would delay the next attempt, which may run by then.
        AckKind::Nak(Some(wait)) => {
            drop(settle_guard);
            permit.release_claim();
            // At most the lease: after it, another worker may have the message.
            wait.min(lease)
        }
        _ => (lease * LEASES_UNTIL_ABANDONED).max(CONFIRM_REQUEST_TIMEOUT * 2),
    };
    let deadline = Instant::now() + time_limit;
    let mut confirmed = await_confirmation(acks.confirm(delivery, ack)).await;
    while let Err(error) = confirmed {
        permit.release_slot_early();
        if Instant::now() + RETRY_INTERVAL > deadline {
            let subject = &delivery.message.subject;
            warn!(%subject, %error, "failed to acknowledge a message: it will be delivered again");
            return;
        }
        debug!(%error, "ack not confirmed, retrying");
        sleep(RETRY_INTERVAL).await;
        confirmed = await_confirmation(acks.confirm_again(delivery, ack)).await;
    }
}

/// Waits for the confirmation, for at most [`CONFIRM_TIMEOUT`].
async fn await_confirmation(
    confirmation: impl Future<Output = Result<(), AckError>>,
) -> Result<(), AckError> {
    timeout(CONFIRM_TIMEOUT, confirmation).await.unwrap_or(Err(AckError::Timeout))
}
