//! Cancels the calls of a batch that have not ended.

use std::time::Duration;

use async_nats::jetstream::Context;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::time::Instant;

use super::{CancelCounts, Canceller};
use crate::{
    batch::{
        BatchId, BatchRecord, CallEnd, MAX_CONCURRENT, MemberCall, end_of_removed, find_batch,
        finish_if_complete, storage,
    },
    call::{CallQuery, QueueLocation},
    directory::QueueEntry,
    jetstream::NatsError,
    tombstone::{self, Mark},
};

/// The outcome of the cancellation of what was left of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchCancelCounts {
    /// Calls that are cancelled.
    pub cancelled: u64,
    /// Calls that have ended in another way.
    pub ended: u64,
    /// Calls whose cancellation is not certain yet. A repeat is safe.
    pub unconfirmed: u64,
}

/// Cancels what is left of a batch, as [`cancel_rest`] does. All counts are 0 if the batch has
/// ended. `None` if no such batch is known.
pub async fn cancel_batch(
    js: &Context,
    id: &BatchId,
    timeout: Duration,
) -> Result<Option<BatchCancelCounts>, NatsError> {
    match cancel_rest(js, id, timeout).await? {
        Some(counts) => Ok(Some(counts)),
        None => Ok(find_batch(js, id).await?.map(|_| BatchCancelCounts::default())),
    }
}

/// Cancels the calls of a batch that have not ended, 64 at a time. Waits up to `timeout` to be
/// certain that they do not start. `None` if no such batch is open.
pub async fn cancel_rest(
    js: &Context,
    id: &BatchId,
    timeout: Duration,
) -> Result<Option<BatchCancelCounts>, NatsError> {
    let Some((record, ..)) = storage::read_record(js, id).await? else { return Ok(None) };
    let deadline = Instant::now() + timeout;
    let location = QueueLocation {
        queue: record.queue.clone(),
        entry: QueueEntry::new(&record.stream, &record.subject),
    };
    let cancelling: Vec<_> = record
        .calls
        .iter()
        .map(|call| cancel_call(js, id, &record, &location, call, deadline))
        .collect();
    let mut outcomes = stream::iter(cancelling).buffer_unordered(MAX_CONCURRENT);
    let mut counts = BatchCancelCounts::default();
    while let Some(outcome) = outcomes.try_next().await? {
        counts.cancelled += outcome.cancelled;
        counts.ended += outcome.ended;
        counts.unconfirmed += outcome.unconfirmed;
    }
    drop(outcomes);
    finish_if_complete(js, id).await?;
    Ok(Some(counts))
}

async fn cancel_call(
    js: &Context,
    id: &BatchId,
    record: &BatchRecord,
    location: &QueueLocation,
    call: &MemberCall,
    deadline: Instant,
) -> Result<BatchCancelCounts, NatsError> {
    let counted = |end: CallEnd| match end {
        CallEnd::Cancelled => BatchCancelCounts { cancelled: 1, ..BatchCancelCounts::default() },
        _ => BatchCancelCounts { ended: 1, ..BatchCancelCounts::default() },
    };
    if let Some(end) = storage::read_end(js, id, &call.call_id).await? {
        return Ok(counted(end.end));
    }
    let Ok(call_id) = call.call_id.parse() else { return Ok(counted(CallEnd::Unknown)) };
    let query = CallQuery { id: call_id, function: Some(call.function.clone()) };
    let CancelCounts { cancelled, ended, unconfirmed, .. } =
        cancel_member(js, location, &query, id, deadline).await?;
    if cancelled + ended + unconfirmed > 0 {
        return Ok(BatchCancelCounts { cancelled, ended, unconfirmed });
    }
    // It has just ended, or an earlier request has removed it.
    Ok(match end_of_removed(js, id, record, call).await? {
        Some(end) => counted(end),
        None => BatchCancelCounts { unconfirmed: 1, ..BatchCancelCounts::default() },
    })
}

/// Cancels the calls with an id that belong to a batch. Waits until `deadline` for their
/// confirmations. A call that an earlier request has removed is not counted.
async fn cancel_member(
    js: &Context,
    location: &QueueLocation,
    query: &CallQuery,
    batch: &BatchId,
    deadline: Instant,
) -> Result<CancelCounts, NatsError> {
    let canceller = Canceller { js, location, deadline };
    let mut counts = CancelCounts::default();
    for stored in canceller.stored(query).await? {
        if stored.batch().is_some_and(|member| member.id == *batch) {
            counts.count(canceller.cancel(&stored).await?);
        }
    }
    if counts.is_empty()
        && let Some(tombstone) = tombstone::newest(js, Some(&location.queue), &query.id).await?
        && tombstone.mark == Mark::Cancelling
    {
        // The program that removed the call died before the cancellation was certain.
        canceller.confirm_removed(&tombstone).await?;
    }
    Ok(counts)
}
