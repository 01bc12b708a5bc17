//! A message's end: acknowledged or handed back, and the server's word that it is.

use std::time::Duration;

use async_nats::jetstream::AckKind;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, warn};

use crate::{
    ack::{Acks, CONFIRM, Unconfirmed},
    delivery::Delivered,
    lease::Held,
    pull::Ticket,
};

/// How long a question is waited for before it is asked once more.
const WORD: Duration = Duration::from_secs(1);

/// Between attempts.
const PAUSE: Duration = Duration::from_millis(500);

/// After this many leases the message is certainly with somebody else, and who had it has said its last word.
pub(crate) const PATIENCE_IN_LEASES: u32 = 2;

/// Tells the server a message's end until it confirms that, while NATS is away too: a call that is done must
/// not run again because of a lost acknowledgement.
///
/// A message that is put off is let go of first: its next delivery, which may come before the server's word, is another
/// attempt.
///
/// Without a word, this leaves its slot to another call, but not the claim: a consumer that was made anew, or whose server was
/// killed before it wrote down what it delivered, says nothing to an end of what it does not know to be delivered. It has
/// to deliver the message again, and for that it has to be asked for one.
pub(crate) async fn settle(
    acks: &Acks,
    delivered: &Delivered,
    held: Held<(AckKind, impl Sized)>,
    lease: Duration,
    mut ticket: Ticket,
) {
    // What the handler keeps of the call until it is settled.
    let (ack, kept) = held.value;
    if held.lost {
        let subject = &delivered.message.subject;
        warn!(%subject, "the lease could not be renewed in time: another worker may have this message too");
        // What is done is done, whoever did it; but to put off what another has in hand would give it to a third.
        if matches!(ack, AckKind::Nak(_)) {
            return;
        }
    }
    let patience = match ack {
        // After that, it would put off the next attempt, which may run by then.
        AckKind::Nak(Some(wait)) => {
            drop(kept);
            ticket.give_up_claim();
            // No longer than the lease: then another worker may have it.
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

/// The server's word, if it comes soon.
async fn word(confirming: impl Future<Output = Result<(), Unconfirmed>>) -> Result<(), Unconfirmed> {
    timeout(WORD, confirming).await.unwrap_or(Err(Unconfirmed::Silence))
}
