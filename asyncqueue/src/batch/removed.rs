//! Finds how a call of a batch has ended that left its queue without a recorded end.

use std::time::Duration;

use async_nats::jetstream::Context;
use jiff::{SignedDuration, Timestamp};

use super::{BatchId, BatchRecord, CallEnd, EndRecord, MemberCall, storage};
use crate::{
    end_state::EndState,
    jetstream::{NatsError, find_stream, last_message},
    subject::call_filter,
    tombstone::{self, Mark, Tombstone},
};

/// How long the worker of a call may take to confirm its cancellation, or to record another end.
const UNCONFIRMED_FOR: Duration = Duration::from_secs(120);

/// Returns how a call of a batch has ended that is not on its queue's stream any more, and records
/// that if it was not recorded. `None` if the call is still there.
pub(crate) async fn end_of_removed(
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
    // A program that removes a call records its end before, unless the call was cancelled, or the
    // program knows of no batches.
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

pub(super) async fn stream_exists(js: &Context, name: &str) -> Result<bool, NatsError> {
    let found = find_stream(js, name).await;
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
