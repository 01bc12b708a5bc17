//! Delivers the results on the queue's stream of callbacks.

use std::time::Duration;

use async_nats::jetstream::AckKind;
use asyncqueue::message::{callback::Callback, dead_letter::Death};
use tracing::warn;

use super::{Delivery, Messenger};
use crate::{bury::Graveyard, delivery::Delivered, pull::Handler};

/// Delivers results, one message each.
pub(crate) struct Deliver {
    pub(crate) messenger: Messenger,
    pub(crate) graveyard: Graveyard,
}

impl Handler for Deliver {
    /// Posts a result once.
    async fn handle(&self, delivered: &Delivered, _lease: Duration) -> AckKind {
        let (message, attempts) = (&delivered.message, delivered.count);
        let callback = match Callback::decode(delivered.headers(), message.payload.clone()) {
            Ok(callback) => callback,
            Err(error) => {
                warn!(subject = %message.subject, %error, "a message is no result of a call: it becomes a dead letter");
                let reason = format!("not a result of a call: {error}");
                return self.graveyard.bury(delivered, None, Death { reason, attempts, status: None }).await;
            }
        };
        match self.messenger.deliver(&callback, attempts).await {
            Delivery::Done => AckKind::Ack,
            Delivery::Again(wait) => AckKind::Nak(Some(wait)),
            Delivery::GivenUp(reason) => {
                let reason = format!("callback: {reason}");
                let call = Some((&callback.function, &callback.call_id));
                self.graveyard
                    .bury(delivered, call, Death { reason, attempts, status: Some(callback.status) })
                    .await
            }
        }
    }

    async fn bury(&self, delivered: &Delivered, why: String) -> AckKind {
        let reason = format!("not a result of a call: {why}");
        let death = Death { reason, attempts: delivered.count, status: None };
        self.graveyard.bury(delivered, None, death).await
    }
}
