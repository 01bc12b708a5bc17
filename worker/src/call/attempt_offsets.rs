//! Reads and writes how many deliveries of a call did not count as attempts.

use async_nats::jetstream::Context;
use asyncqueue::{
    QueueName,
    attempt_offset::{self, AttemptOffset, OffsetIncrement, Unrecorded},
    call::CallRef,
    jetstream::NatsError,
};
use tracing::{debug, warn};

use super::Call;
use crate::{consumer::InFlightPermit, record::Record, record_store::RecordStore};

/// The attempt offsets of a queue's calls.
#[derive(Clone, Debug)]
pub(crate) struct AttemptOffsets {
    pub(crate) js: Context,
    pub(crate) queue: QueueName,
    pub(crate) store: RecordStore,
}

impl AttemptOffsets {
    /// Returns the stored record of the attempts of a call.
    pub(crate) async fn read(
        &self,
        call: &CallRef,
        unrecorded: Unrecorded,
    ) -> Result<AttemptOffset, NatsError> {
        attempt_offset::get(&self.js, &self.queue, call, unrecorded).await
    }

    /// Records that deliveries of a call count again, from this one on: if this worker crashes, the
    /// invocation that is about to start was an attempt.
    pub(crate) async fn count_deliveries(&self, call: &Call) {
        let CallRef { id, sequence } = &call.stored;
        let written = AttemptOffset::Deliveries(call.offset);
        if let Err(error) = attempt_offset::set(&self.js, &self.queue, id, *sequence, written).await
        {
            debug!(call_id = %id, %error, "failed to write the attempt offset");
        }
    }

    /// Excludes deliveries of a call from its attempts, if that succeeds at once.
    pub(crate) async fn exclude(&self, call: &CallRef, unrecorded: Unrecorded, deliveries: u64) {
        let increment = OffsetIncrement::new(&self.queue, call, unrecorded, deliveries);
        match increment.write(&self.js).await {
            Ok(()) => {
                debug!(call_id = %call.id, deliveries, "deliveries excluded from the attempts");
            }
            Err(error) => {
                debug!(
                    call_id = %call.id,
                    %error,
                    "failed to record a non-counting delivery: it counts as an attempt"
                );
            }
        }
    }

    /// Excludes more deliveries of a call from its attempts.
    pub(crate) async fn add(
        &self,
        call: &CallRef,
        unrecorded: Unrecorded,
        deliveries: u64,
        permit: &mut InFlightPermit,
    ) {
        let addition = OffsetIncrement::new(&self.queue, call, unrecorded, deliveries);
        let written = self.store.store_with_retries(
            Record::AttemptOffset,
            permit,
            |_| {},
            || addition.write(&self.js),
        );
        if let Err(failure) = written.await {
            let (call_id, reason) = (&call.id, failure.as_str());
            warn!(
                %call_id, reason,
                "failed to record a non-counting delivery: it counts as an attempt"
            );
        }
    }

    /// Stores which deliveries of a call did not count as attempts.
    pub(crate) async fn set(
        &self,
        call: &Call,
        offset: AttemptOffset,
        permit: &mut InFlightPermit,
    ) {
        let stored = &call.stored;
        let written = self.store.store_with_retries(
            Record::AttemptOffset,
            permit,
            |_| {},
            async || {
                attempt_offset::set(&self.js, &self.queue, &stored.id, stored.sequence, offset)
                    .await
            },
        );
        if let Err(failure) = written.await {
            let (call_id, reason) = (&stored.id, failure.as_str());
            warn!(
                %call_id, reason,
                "failed to record a non-counting delivery: it counts as an attempt"
            );
        }
    }
}

/// Returns the attempt offset to store for a call that is retried, if any. `is_attempt`: the
/// invocation that failed counts as an attempt. `redeliveries`: number of deliveries that were
/// ignored while the call was in flight. `is_lease_certain`: each renewal of the lease was
/// confirmed. Otherwise there may have been deliveries that never arrived here.
pub(super) fn offset_after(
    call: &Call,
    is_attempt: bool,
    redeliveries: u64,
    is_lease_certain: bool,
) -> Option<AttemptOffset> {
    let made = call.attempts.number - u64::from(!is_attempt);
    match (is_lease_certain, redeliveries + u64::from(!is_attempt)) {
        (false, _) => Some(AttemptOffset::Attempts(made)),
        (true, 0) => None,
        (true, uncounted) => {
            Some(AttemptOffset::Deliveries(call.offset.saturating_add_unsigned(uncounted)))
        }
    }
}
