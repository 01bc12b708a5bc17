//! Delivers the results in the queue's stream of callbacks.

use std::time::Duration;

use async_nats::jetstream::{AckKind, Context};
use asyncqueue::{
    EndState, QueueName,
    attempt_offset::{AttemptOffset, CallbackAttempts},
    call::CallRef,
    dead_letters::DeathInfo,
    message::callback::Callback,
    reserve, tombstone,
};
use tracing::warn;

use super::dispatcher::{CallbackDispatcher, DeliveryOutcome};
use crate::{
    consumer::{Handler, InFlightPermit, delivery::Delivery},
    dead_letter::DeadLetterWriter,
    retry::backoff::PUT_OFF,
};

/// Delivers results, one for each message.
pub(crate) struct CallbackHandler {
    pub(crate) js: Context,
    pub(crate) queue: QueueName,
    pub(crate) dispatcher: CallbackDispatcher,
    pub(crate) dead_letters: DeadLetterWriter,
}

impl Handler for CallbackHandler {
    type SettleGuard = ();

    /// Posts a result once.
    async fn handle(
        &self,
        delivery: &Delivery,
        _lease: Duration,
        permit: &mut InFlightPermit,
    ) -> (AckKind, ()) {
        (self.post(delivery, permit).await, ())
    }

    async fn on_undecodable(
        &self,
        delivery: &Delivery,
        reason: String,
        permit: &mut InFlightPermit,
    ) -> AckKind {
        let reason = format!("not a result of a call: {reason}");
        let death = DeathInfo { reason, attempts: delivery.num_delivered, status: None };
        self.dead_letters.write(delivery.into(), None, death, permit).await.ack()
    }
}

impl CallbackHandler {
    async fn post(&self, delivery: &Delivery, permit: &mut InFlightPermit) -> AckKind {
        let message = &delivery.message;
        let callback = match Callback::decode(delivery.headers(), message.payload.clone()) {
            Ok(callback) => callback,
            Err(error) => {
                warn!(
                    subject = %message.subject, %error,
                    "not the result of a call: moving the message to the dead-letter stream"
                );
                let reason = format!("not a result of a call: {error}");
                let death = DeathInfo { reason, attempts: delivery.num_delivered, status: None };
                return self.dead_letters.write(delivery.into(), None, death, permit).await.ack();
            }
        };
        if callback.end == EndState::Cancelled {
            self.record(&callback).await;
        }
        let offset = self.offset(&callback, delivery.num_delivered).await;
        let attempt = offset.attempt_at(delivery.num_delivered);
        match self.dispatcher.deliver(&callback, attempt).await {
            DeliveryOutcome::Delivered => AckKind::Ack,
            DeliveryOutcome::Retry(wait) => {
                // With the other kind of offset, the next delivery counts as the next attempt
                // anyway.
                if let AttemptOffset::Attempts(_) = offset {
                    self.set_offset(&callback, AttemptOffset::Attempts(attempt)).await;
                }
                AckKind::Nak(Some(wait))
            }
            DeliveryOutcome::HostBusy => {
                let made = AttemptOffset::Attempts(attempt - 1);
                if offset != made {
                    self.set_offset(&callback, made).await;
                }
                let times = delivery.num_delivered.saturating_sub(attempt).saturating_add(1);
                AckKind::Nak(Some(PUT_OFF.wait_after(times, rand::random())))
            }
            DeliveryOutcome::Undeliverable(reason) => {
                let reason = format!("callback: {reason}");
                let call = Some((&callback.function, &callback.call_id));
                let death = DeathInfo { reason, attempts: attempt, status: Some(callback.status) };
                self.dead_letters.write(delivery.into(), call, death, permit).await.ack()
            }
        }
    }

    /// Records that the client gets the result of a cancellation. Without this record, a call whose
    /// run ends later might be taken for done, and a repeat of the cancellation would be answered
    /// so.
    async fn record(&self, callback: &Callback) {
        let call = CallRef { id: callback.call_id.clone(), sequence: callback.sequence };
        let write = || tombstone::record_result(&self.js, &self.queue, &call);
        if let Err(error) = reserve::with_space(&self.js, write).await {
            warn!(
                call_id = %call.id, %error,
                "failed to record that the result of a cancellation is delivered"
            );
        }
    }

    /// Returns which deliveries of a result did not count as attempts. If that is unknown, each
    /// delivery counts as an attempt.
    async fn offset(&self, callback: &Callback, delivery: u64) -> AttemptOffset {
        if delivery <= 1 {
            return AttemptOffset::Deliveries(0);
        }
        let stored = self.attempts(callback).get().await;
        stored.unwrap_or_else(|error| {
            let call_id = &callback.call_id;
            warn!(
                %call_id, %error,
                "failed to read the attempt offset of a callback: each delivery counts as an \
                 attempt"
            );
            AttemptOffset::Deliveries(0)
        })
    }

    async fn set_offset(&self, callback: &Callback, offset: AttemptOffset) {
        if let Err(error) = self.attempts(callback).set(offset).await {
            let call_id = &callback.call_id;
            warn!(
                %call_id, %error,
                "failed to record a non-counting delivery of a callback: it counts as an attempt"
            );
        }
    }

    fn attempts<'a>(&'a self, callback: &'a Callback) -> CallbackAttempts<'a> {
        let Callback { call_id, sequence, .. } = callback;
        CallbackAttempts { js: &self.js, queue: &self.queue, call: call_id, sequence: *sequence }
    }
}
