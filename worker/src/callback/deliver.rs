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

use super::{Delivery, Messenger, hosts};
use crate::{
    dead_letter::DeadLetterWriter,
    delivery::Delivered,
    pull::{Handler, Ticket},
};

/// Delivers results, one for each message.
pub(crate) struct Deliver {
    pub(crate) js: Context,
    pub(crate) queue: QueueName,
    pub(crate) messenger: Messenger,
    pub(crate) dead_letters: DeadLetterWriter,
}

impl Handler for Deliver {
    type Kept = ();

    /// Posts a result once.
    async fn handle(
        &self,
        delivered: &Delivered,
        _lease: Duration,
        ticket: &mut Ticket,
    ) -> (AckKind, ()) {
        (self.post(delivered, ticket).await, ())
    }

    async fn give_up_unreadable(
        &self,
        delivered: &Delivered,
        why: String,
        ticket: &mut Ticket,
    ) -> AckKind {
        let reason = format!("not a result of a call: {why}");
        let death = DeathInfo { reason, attempts: delivered.count, status: None };
        self.dead_letters.write(delivered.into(), None, death, ticket).await.ack()
    }
}

impl Deliver {
    async fn post(&self, delivered: &Delivered, ticket: &mut Ticket) -> AckKind {
        let message = &delivered.message;
        let callback = match Callback::decode(delivered.headers(), message.payload.clone()) {
            Ok(callback) => callback,
            Err(error) => {
                warn!(subject = %message.subject, %error, "a message is no result of a call: it becomes a dead letter");
                let reason = format!("not a result of a call: {error}");
                let death = DeathInfo { reason, attempts: delivered.count, status: None };
                return self.dead_letters.write(delivered.into(), None, death, ticket).await.ack();
            }
        };
        if callback.end == EndState::Cancelled {
            self.record(&callback).await;
        }
        let offset = self.offset(&callback, delivered.count).await;
        let attempt = delivered.count - offset.at(delivered.count).min(delivered.count - 1);
        match self.messenger.deliver(&callback, attempt).await {
            Delivery::Done => AckKind::Ack,
            Delivery::Again(wait) => {
                // With the other kind of offset, the next delivery counts as the next attempt
                // anyway.
                if let AttemptOffset::Attempts(_) = offset {
                    self.set_offset(&callback, AttemptOffset::Attempts(attempt)).await;
                }
                AckKind::Nak(Some(wait))
            }
            Delivery::Busy => {
                let made = AttemptOffset::Attempts(attempt - 1);
                if offset != made {
                    self.set_offset(&callback, made).await;
                }
                AckKind::Nak(Some(hosts::wait(delivered.count - attempt, rand::random())))
            }
            Delivery::GivenUp(reason) => {
                let reason = format!("callback: {reason}");
                let call = Some((&callback.function, &callback.call_id));
                let death = DeathInfo { reason, attempts: attempt, status: Some(callback.status) };
                self.dead_letters.write(delivered.into(), call, death, ticket).await.ack()
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
            warn!(call_id = %call.id, %error, "that the result of a cancellation is sent can't be recorded");
        }
    }

    /// Returns which deliveries of a result were no attempts. If that is unknown, each delivery
    /// counts as an attempt.
    async fn offset(&self, callback: &Callback, delivery: u64) -> AttemptOffset {
        if delivery <= 1 {
            return AttemptOffset::Deliveries(0);
        }
        let stored = self.attempts(callback).get().await;
        stored.unwrap_or_else(|error| {
            let call_id = &callback.call_id;
            warn!(%call_id, %error, "the attempt offset of a callback can't be read: each delivery counts as an attempt");
            AttemptOffset::Deliveries(0)
        })
    }

    async fn set_offset(&self, callback: &Callback, offset: AttemptOffset) {
        if let Err(error) = self.attempts(callback).set(offset).await {
            let call_id = &callback.call_id;
            warn!(%call_id, %error, "the attempt offset of a callback can't be written: a delivery counts as an attempt though it was none");
        }
    }

    fn attempts<'a>(&'a self, callback: &'a Callback) -> CallbackAttempts<'a> {
        let Callback { call_id, sequence, .. } = callback;
        CallbackAttempts { js: &self.js, queue: &self.queue, call: call_id, sequence: *sequence }
    }
}
