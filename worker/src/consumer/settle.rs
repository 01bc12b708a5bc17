//! Settles a message: acknowledges it or hands it back, and waits until the server confirms that.

use std::time::Duration;

use async_nats::jetstream::AckKind;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, warn};

use super::{
    ack::{Acks, CONFIRM, Unconfirmed},
    delivery::Delivered,
    in_flight::Ticket,
    lease::Held,
};

/// Maximum time to wait for a confirmation before it is requested once more.
const WORD: Duration = Duration::from_secs(1);

/// Wait between attempts.
const PAUSE: Duration = Duration::from_millis(500);

/// Number of leases after which the message is certainly with another worker, and the previous one
/// no longer settles it.
pub(crate) const PATIENCE_IN_LEASES: u32 = 2;

/// Settles a message, and repeats that until the server confirms it, also while NATS is
/// unavailable. A call that is done must not run again because of a lost ack.
///
/// A message that is put off gives up its claim first: its next delivery, which may come before the
/// confirmation, is another attempt.
///
/// Without a confirmation, this leaves its slot to another call, but keeps the claim. The consumer
/// may have been recreated, or its server killed before it wrote down what it delivered. It then
/// does not answer acks of deliveries that it does not know. It has to deliver the message again,
/// and for that it needs a request.
pub(crate) async fn settle(
    acks: &Acks,
    delivered: &Delivered,
    held: Held<(AckKind, impl Sized)>,
    lease: Duration,
    mut ticket: Ticket,
) {
    // `kept` is what the handler keeps of the call until it is settled.
    let (ack, kept) = held.value;
    if held.lost {
        let subject = &delivered.message.subject;
        warn!(%subject, "the lease could not be renewed in time: another worker may have this message too");
        // An end is valid whichever worker brought it about. But a nak would give a third worker
        // what another one has in flight.
        if matches!(ack, AckKind::Nak(_)) {
            return;
        }
    }
    let patience = match ack {
        // After this time, the nak would put off the next attempt, which may run by then.
        AckKind::Nak(Some(wait)) => {
            drop(kept);
            ticket.give_up_claim();
            // At most the lease: after it, another worker may have the message.
            wait.min(lease)
        }
        _ => (lease * PATIENCE_IN_LEASES).max(CONFIRM * 2),
    };
    let give_up = Instant::now() + patience;
    let mut confirmed = word(acks.confirm(delivered, ack)).await;
    while let Err(error) = confirmed {
        ticket.leave_slot();
        if Instant::now() + PAUSE > give_up {
            let subject = &delivered.message.subject;
            warn!(%subject, %error, "a message could not be acknowledged and will be delivered again");
            return;
        }
        debug!(%error, "an acknowledgement is not confirmed, trying again");
        sleep(PAUSE).await;
        confirmed = word(acks.confirm_again(delivered, ack)).await;
    }
}

/// Waits for the confirmation, for at most [`WORD`].
async fn word(
    confirming: impl Future<Output = Result<(), Unconfirmed>>,
) -> Result<(), Unconfirmed> {
    timeout(WORD, confirming).await.unwrap_or(Err(Unconfirmed::Silence))
}
