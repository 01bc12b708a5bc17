//! Prepares a delivered call: decodes the message, finds the number of the attempt, and the policy.

use std::time::Duration;

use asyncqueue::{
    CallId, Invocation,
    attempt_offset::Unrecorded,
    call::CallRef,
    message::{self, Fallback},
};
use jiff::Timestamp;
use tracing::{debug, warn};

use super::{
    Call,
    attempt_offsets::AttemptOffsets,
    cancellations::{CallGuard, Cancellations},
    policies::RetryPolicies,
    status::StatusGuard,
    unrecorded,
    waiting_records::LastRecorded,
};
use crate::{
    consumer::delivery::Delivery, function::request::add_idempotency_key,
    retry::outcome::AttemptCount, server_clock::ServerClock,
};

/// Prepares the calls of a queue.
pub(crate) struct Preparer {
    pub(crate) policies: RetryPolicies,
    /// Namespace of functions that are named without one.
    pub(crate) function_namespace: String,
    pub(crate) offsets: AttemptOffsets,
    pub(crate) cancellations: Cancellations,
    pub(crate) clock: ServerClock,
    pub(crate) last_recorded: LastRecorded,
}

/// Says what follows for a message that is not a prepared call.
pub(crate) enum Unprepared {
    /// The message is not a call, for this reason, and becomes a dead letter.
    DeadLetter(String),
    /// The number of the attempt can't be determined now: the call must be delivered again later.
    Redeliver(CallGuard, Unrecorded),
}

/// A call that this worker has in flight.
pub(crate) struct Prepared {
    pub(crate) call: Call,
    /// Receives cancellations of the call.
    pub(crate) guard: CallGuard,
    /// Reports the call as running, from its start.
    pub(crate) status: Option<StatusGuard>,
}

impl Preparer {
    /// Prepares a delivered call, and registers it for cancellations.
    pub(crate) async fn prepare(&self, delivery: &Delivery) -> Result<Prepared, Unprepared> {
        let invocation = match self.decode(delivery) {
            Ok(invocation) => invocation,
            Err(error) => {
                let subject = &delivery.message.subject;
                warn!(
                    %subject, %error,
                    "not a valid call: moving the message to the dead-letter stream"
                );
                return Err(Unprepared::DeadLetter(format!("undecodable: {error}")));
            }
        };
        let stored = CallRef { id: invocation.call_id.clone(), sequence: delivery.sequence };
        let guard = self.cancellations.register(stored.clone());
        let is_first = delivery.is_first && self.last_recorded.is_before(delivery.stored_at);
        let unrecorded = unrecorded(&invocation);
        let recorded = if is_first {
            Ok(unrecorded.offset())
        } else {
            Box::pin(self.offsets.read(&stored, unrecorded)).await
        };
        let recorded = match recorded {
            Ok(recorded) => recorded,
            Err(error) => {
                let call_id = &stored.id;
                debug!(
                    %call_id, %error,
                    "failed to read the attempt offset: the call is not started now"
                );
                return Err(Unprepared::Redeliver(guard, unrecorded));
            }
        };
        let number = recorded.attempt_at(delivery.num_delivered);
        let runs_from = invocation.not_before.unwrap_or_default().max(delivery.stored_at);
        let attempts = AttemptCount {
            number,
            deliveries: delivery.num_delivered.max(number),
            age: self.time_since(runs_from),
        };
        let policy = self.policies.for_call(&invocation);
        let offset = delivery.num_delivered.cast_signed().saturating_sub_unsigned(number);
        let stored_for = self.time_since(delivery.stored_at);
        let call =
            Call { invocation, stored, attempts, recorded, offset, is_first, stored_for, policy };
        Ok(Prepared { call, guard, status: None })
    }

    /// Returns the call in a delivered message, and what holds for its attempts if they have no
    /// record; `None` if the message is not a call.
    pub(crate) fn call_of(&self, delivery: &Delivery) -> Option<(CallRef, Unrecorded)> {
        let invocation = self.decode(delivery).ok()?;
        let unrecorded = unrecorded(&invocation);
        Some((CallRef { id: invocation.call_id, sequence: delivery.sequence }, unrecorded))
    }

    fn decode(&self, delivery: &Delivery) -> Result<Invocation, message::DecodeError> {
        let decoded = message::decode(delivery.headers(), &delivery.message.payload, || Fallback {
            call_id: CallId::from_sequence(delivery.sequence),
            stored_at: delivery.stored_at,
            namespace: self.function_namespace.clone(),
        });
        decoded.map(|mut invocation| {
            add_idempotency_key(&mut invocation, delivery.headers());
            invocation
        })
    }

    /// Returns how long ago a time was, by the server's clock.
    fn time_since(&self, then: Timestamp) -> Duration {
        self.clock.now().duration_since(then).try_into().unwrap_or_default()
    }
}
