//! Cancels the calls of a batch that have not ended.

use std::time::Duration;

use async_nats::jetstream::Context;
use futures::{StreamExt, TryStreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::{BatchId, BatchRecord, CallEnd, EndRecord, MAX_CONCURRENT, MemberCall, ends, storage};
use crate::{
    call::{CallQuery, QueueLocation},
    cancel::{CancelCounts, cancel_member},
    directory::QueueEntry,
    end_state::EndState,
    jetstream::{NatsError, last_message},
    subject::call_filter,
    tombstone::{self, Mark, Tombstone},
};

/// How long the worker of a call may take to confirm its cancellation, or to record another end.
const UNCONFIRMED_FOR: Duration = Duration::from_secs(120);

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
    ends::finish_if_complete(js, id).await?;
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

/// Returns how a call of a batch has ended that is not on its queue's stream any more, and records
/// that if it was not recorded. `None` if the call is still there.
pub(super) async fn end_of_removed(
    js: &Context,
    id: &BatchId,
    record: &BatchRecord,
    call: &MemberCall,
) -> Result<Option<CallEnd>, NatsError> {
    let Ok(call_id) = call.call_id.parse() else { return Ok(None) };
    let subject = call_filter(&record.subject, Some(&call.function), &call_id);
    if last_message(js, &record.stream, &subject).await?.is_some() {
        return Ok(None);
    }
    // Whoever removes a call records its end before, unless it was cancelled, or the program knows
    // of no batches.
    if let Some(end) = storage::read_end(js, id, &call.call_id).await? {
        return Ok(Some(end.end));
    }
    let tombstone = tombstone::newest(js, Some(&record.queue), &call_id).await?;
    let end = match &tombstone {
        Some(Tombstone { mark: Mark::Cancelling, at, .. }) if is_recent(*at) => return Ok(None),
        Some(tombstone) => end_of_marked(tombstone.mark),
        None if !stream_exists(js, &record.stream).await? => CallEnd::Cancelled,
        None => CallEnd::Unknown,
    };
    let sequence = tombstone.map_or(0, |tombstone| tombstone.call.sequence);
    storage::write_end(js, id, &call.call_id, &EndRecord { sequence, end, status: None }).await?;
    Ok(storage::read_end(js, id, &call.call_id).await?.map(|end| end.end))
}

/// Returns how a call ended that has a tombstone, and whose end was not recorded otherwise.
fn end_of_marked(mark: Mark) -> CallEnd {
    match mark.end() {
        EndState::Cancelled => CallEnd::Cancelled,
        EndState::Dead => CallEnd::Dead,
        EndState::Expired => CallEnd::Expired,
        // It was done, and with which status is not known.
        EndState::Done => CallEnd::Unknown,
    }
}

/// Returns whether a cancellation without a confirmation may still come too late: the worker that
/// has the call then records another end.
fn is_recent(cancelled_at: Timestamp) -> bool {
    let age = Timestamp::now().duration_since(cancelled_at);
    age < SignedDuration::try_from(UNCONFIRMED_FOR).unwrap_or_default()
}

async fn stream_exists(js: &Context, name: &str) -> Result<bool, NatsError> {
    let found = crate::jetstream::find_stream(js, name).await;
    Ok(found.map_err(NatsError::during("read the queue's stream"))?.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tombstone_says_how_a_removed_call_ended() {
        let marks = EndState::ALL.map(|end| end_of_marked(Mark::Ended(end)));
        let expected = [CallEnd::Unknown, CallEnd::Dead, CallEnd::Cancelled, CallEnd::Expired];
        assert_eq!(marks, expected);
        assert_eq!(end_of_marked(Mark::Cancelling), CallEnd::Cancelled);
        assert!(is_recent(Timestamp::now()) && !is_recent(Timestamp::UNIX_EPOCH));
    }
}
