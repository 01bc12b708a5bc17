//! Delivers the results on the queue's stream of callbacks.

use std::time::Duration;

use async_nats::jetstream::AckKind;
use asyncqueue::message::{callback::Callback, dead_letter::Death};
use tracing::warn;

use super::{Delivery, Messenger};
use crate::{
    dead_letter::DeadLetterWriter,
    delivery::Delivered,
    pull::{Handler, Ticket},
};

/// Delivers results, one message each.
pub(crate) struct Deliver {
    pub(crate) messenger: Messenger,
    pub(crate) dead_letters: DeadLetterWriter,
}

impl Handler for Deliver {
    type Kept = ();

    /// Posts a result once.
    async fn handle(&self, delivered: &Delivered, _lease: Duration, ticket: &mut Ticket) -> (AckKind, ()) {
        (self.post(delivered, ticket).await, ())
    }

    async fn give_up_unreadable(&self, delivered: &Delivered, why: String, ticket: &mut Ticket) -> AckKind {
        let reason = format!("not a result of a call: {why}");
        let death = Death { reason, attempts: delivered.count, status: None };
        self.dead_letters.write(delivered.into(), None, death, ticket).await.ack()
    }
}

impl Deliver {
    async fn post(&self, delivered: &Delivered, ticket: &mut Ticket) -> AckKind {
        let (message, attempts) = (&delivered.message, delivered.count);
        let callback = match Callback::decode(delivered.headers(), message.payload.clone()) {
            Ok(callback) => callback,
            Err(error) => {
                warn!(subject = %message.subject, %error, "a message is no result of a call: it becomes a dead letter");
                let reason = format!("not a result of a call: {error}");
                let death = Death { reason, attempts, status: None };
                return self.dead_letters.write(delivered.into(), None, death, ticket).await.ack();
            }
        };
        match self.messenger.deliver(&callback, attempts).await {
            Delivery::Done => AckKind::Ack,
            Delivery::Again(wait) => AckKind::Nak(Some(wait)),
            Delivery::GivenUp(reason) => {
                let reason = format!("callback: {reason}");
                let call = Some((&callback.function, &callback.call_id));
                let death = Death { reason, attempts, status: Some(callback.status) };
                self.dead_letters.write(delivered.into(), call, death, ticket).await.ack()
            }
        }
    }
}
