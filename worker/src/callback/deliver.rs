//! Delivers the results on the queue's stream of callbacks.

use std::time::Duration;

use async_nats::jetstream::{AckKind, Message};
use asyncqueue::message::{callback::Callback, dead_letter::Death};
use tracing::warn;

use super::{Delivery, Messenger};
use crate::{bury::Graveyard, delivery, pull::Handler};

/// Delivers results, one message each.
pub(crate) struct Deliver {
    pub(crate) messenger: Messenger,
    pub(crate) graveyard: Graveyard,
}

impl Handler for Deliver {
    /// Posts a result once.
    async fn handle(&self, message: &Message, _lease: Duration) -> AckKind {
        let attempts = delivery::Delivery::of(message).count;
        let callback = match Callback::decode(delivery::headers(message), message.payload.clone()) {
            Ok(callback) => callback,
            Err(error) => {
                warn!(subject = %message.subject, %error, "a message is no result of a call: it becomes a dead letter");
                let reason = format!("not a result of a call: {error}");
                return self.graveyard.bury(message, None, Death { reason, attempts, status: None }).await;
            }
        };
        match self.messenger.deliver(&callback, attempts).await {
            Delivery::Done => AckKind::Ack,
            Delivery::Again(wait) => AckKind::Nak(Some(wait)),
            Delivery::GivenUp(reason) => {
                let reason = format!("callback: {reason}");
                let call = Some((&callback.function, &callback.call_id));
                self.graveyard
                    .bury(message, call, Death { reason, attempts, status: Some(callback.status) })
                    .await
            }
        }
    }

    async fn bury(&self, message: &Message, why: String) -> AckKind {
        let attempts = delivery::Delivery::of(message).count;
        let death = Death { reason: format!("not a result of a call: {why}"), attempts, status: None };
        self.graveyard.bury(message, None, death).await
    }
}
