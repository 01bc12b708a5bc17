//! Records how the calls of a batch end, and cancels the rest of a batch whose client wants that.

use std::time::Duration;

use async_nats::jetstream::Context;
use asyncqueue::{
    EndState,
    batch::{BatchMember, CallEnd, EndEffect, record_end},
    cancel::cancel_rest,
};
use tracing::{info, warn};

use super::{
    Call,
    status::{StatusGuard, blocked_reporter},
};
use crate::{consumer::InFlightPermit, record::Record, record_store::RecordStore};

/// Maximum time to be certain that the calls of a batch that are cancelled do not start. Those that
/// are not certain then end by their tombstones.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(10);

/// Records the ends of calls in their batches.
#[derive(Clone)]
pub(crate) struct BatchEnds {
    pub(crate) js: Context,
    pub(crate) store: RecordStore,
}

// === impl BatchEnds ===

impl BatchEnds {
    /// Records how a call has ended, if it belongs to a batch. `status` is that of its result.
    /// This is done before the call is acknowledged: if the worker dies in between, the call is
    /// delivered again.
    pub(crate) async fn record(
        &self,
        call: &Call,
        end: EndState,
        status: u16,
        blocked: Option<&StatusGuard>,
        permit: &mut InFlightPermit,
    ) {
        let Some(member) = &call.invocation.batch else { return };
        let end = CallEnd::new(end, status);
        let on_blocked = blocked_reporter(blocked);
        let recorded = self.store.store_with_retries(Record::BatchEnd, permit, on_blocked, || {
            record_end(&self.js, member, &call.stored, end, status)
        });
        match recorded.await {
            Ok(EndEffect::None) => {}
            Ok(EndEffect::CancelRest) => self.cancel_rest(call, member, permit).await,
            Err(failure) => {
                let (function, call_id) = call.function_and_id();
                warn!(
                    %call_id, %function, batch = %member.id, reason = failure.as_str(),
                    "failed to record how the call has ended in its batch: the sweep of batches \
                     counts it as unknown"
                );
            }
        }
    }

    /// Cancels the calls of a batch that have not ended, because this one has failed.
    async fn cancel_rest(&self, call: &Call, member: &BatchMember, permit: &mut InFlightPermit) {
        // However long that takes, another call can use the slot.
        permit.release_slot_early();
        let call_id = &call.invocation.call_id;
        match cancel_rest(&self.js, &member.id, CANCEL_TIMEOUT).await {
            Ok(counts) => {
                info!(
                    %call_id, batch = %member.id, ?counts,
                    "cancelled the rest of the batch, since a call of it has failed"
                );
            }
            Err(error) => {
                warn!(
                    %call_id, batch = %member.id, %error,
                    "failed to cancel the rest of the batch after a call of it has failed"
                );
            }
        }
    }
}
