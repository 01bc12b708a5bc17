//! Tombstones as in version 0.1, under `<queue>.<call-id>`, for as long as programs of that version
//! may run at the same time. Both versions arbitrate by the same entry, and each program's watchers
//! see what the other wrote. The one entry for all calls with an id holds only the last of them.
//! That is why the next version removes it.

use async_nats::jetstream::Context;

use super::{Mark, Tombstone, parse, publish};
use crate::{
    buckets::TOMBSTONES,
    call::CallRef,
    call_id::CallId,
    end_state::EndState,
    jetstream::{NatsError, last_message},
    names::QueueName,
};

/// Maximum number of attempts to write. Each failed attempt found the tombstone of another call
/// with the id, written just then.
const MAX_CAS_ATTEMPTS: usize = 10;

/// Returns the tombstone of a call, if the entry is of that call.
pub(super) async fn read(
    js: &Context,
    queue: &QueueName,
    call: &CallRef,
) -> Result<Option<Tombstone>, NatsError> {
    let tombstone = newest(js, queue.as_str(), &call.id).await?;
    Ok(tombstone.filter(|tombstone| tombstone.call == *call))
}

/// Returns the tombstone that was written last for an id; `queue` may be a wildcard.
pub(super) async fn newest(
    js: &Context,
    queue: &str,
    id: &CallId,
) -> Result<Option<Tombstone>, NatsError> {
    let subject = TOMBSTONES.subject(&format!("{queue}.{id}"));
    Ok(last_message(js, &TOMBSTONES.stream(), &subject).await?.and_then(|message| parse(&message)))
}

/// Writes the entry unless it is of this call already, and returns the mark of the call then.
/// `None` if there is no bucket.
pub(super) async fn write_once(
    js: &Context,
    queue: &QueueName,
    call: &CallRef,
    mark: Mark,
) -> Result<Option<Mark>, NatsError> {
    let subject = TOMBSTONES.subject(&format!("{queue}.{}", call.id));
    // Version 0.1 knows two marks, and takes anything else for the tombstone of another call.
    let value = if mark.is_cancelled() { Mark::Cancelling } else { Mark::Ended(EndState::Dead) };
    let mut revision = 0;
    for _ in 0..MAX_CAS_ATTEMPTS {
        match publish(js, subject.clone(), value.encode(call.sequence), revision).await {
            Ok(()) => return Ok(Some(mark)),
            Err(failure) if failure.is_missing_bucket() => return Ok(None),
            Err(failure) if !failure.is_conflict() => return Err(failure.0),
            Err(_) => {}
        }
        let other = newest(js, queue.as_str(), &call.id).await?;
        match other {
            // The entry is of the same call. Dead and expired share one mark here and differ in the
            // newer entry.
            Some(found) if found.call == *call && found.mark == value => return Ok(Some(mark)),
            Some(found) if found.call == *call => return Ok(Some(found.mark)),
            other => revision = other.map_or(0, |other| other.revision),
        }
    }
    Err(NatsError::during("write the tombstone")("others with the same id were written each time"))
}
