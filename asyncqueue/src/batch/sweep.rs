//! The sweep: finds batches whose end was not reported, since a program died or an end was lost,
//! and those that have reached their deadline.

use std::time::Duration;

use async_nats::{connection::State, jetstream::Context};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::{
    BatchId, BatchRecord, CallEnd, EndRecord, MAX_CONCURRENT, MemberCall, end_of_removed,
    finish_if_complete, storage,
};
use crate::{
    jetstream::{NatsError, last_message},
    subject::call_filter,
};

/// Interval of the sweeps.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// Maximum time of a sweep.
const SWEEP_TIMEOUT: Duration = Duration::from_secs(60);

/// The age from which a batch is checked: a younger one may be about to be stored.
const MIN_AGE: Duration = Duration::from_secs(60);

/// The deadline of a batch: how long after its submission the calls that have not ended count as
/// unknown.
pub(crate) const DEADLINE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Maximum number of batches that one sweep checks. The next one begins with others.
const MAX_CHECKED: usize = 10;

/// What a sweep does about a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    /// It may just be stored: nothing.
    TooYoung,
    /// Calls that have left their queue get an end.
    Missing,
    /// All calls without an end get one.
    Deadline,
}

/// Decides by the age of a batch.
fn check_of(age: Duration) -> Check {
    match age {
        age if age < MIN_AGE => Check::TooYoung,
        age if age < DEADLINE => Check::Missing,
        _ => Check::Deadline,
    }
}

/// Sweeps at each interval, for as long as it is polled.
pub async fn keep_sweeping(js: &Context) {
    for turn in 0.. {
        sleep(SWEEP_INTERVAL).await;
        sweep_now(js, turn).await;
    }
}

/// Sweeps once, if NATS is connected, and logs what has changed.
pub async fn sweep_now(js: &Context, turn: usize) {
    if js.client().connection_state() != State::Connected {
        return;
    }
    match timeout(SWEEP_TIMEOUT, sweep(js, turn, Timestamp::now())).await {
        Ok(Ok(changes)) => changes.iter().for_each(|change| info!("{change}")),
        Ok(Err(error)) => warn!("failed to sweep the batches, retrying: {error}"),
        Err(_) => warn!("the sweep of the batches takes longer than {SWEEP_TIMEOUT:?}"),
    }
}

/// Checks open batches, and returns in words which of them have ended by that. `turn` is the number
/// of the sweep: it says with which batches the sweep begins, if they are many. `now` is the
/// current time. A batch that can't be checked is logged, and checked again by the next sweep.
pub async fn sweep(js: &Context, turn: usize, now: Timestamp) -> Result<Vec<String>, NatsError> {
    let mut open = storage::open_batches(js).await?;
    open.sort();
    let first = turn.wrapping_mul(MAX_CHECKED) % open.len().max(1);
    open.rotate_left(first);
    let mut changes = Vec::new();
    for id in open.into_iter().take(MAX_CHECKED) {
        match check(js, &id, now).await {
            Ok(change) => changes.extend(change),
            // The others do not wait for it.
            Err(error) => warn!(batch = %id, "failed to check a batch, retrying: {error}"),
        }
    }
    Ok(changes)
}

async fn check(js: &Context, id: &BatchId, now: Timestamp) -> Result<Option<String>, NatsError> {
    let Some((record, _, stored_at)) = storage::read_record(js, id).await? else {
        return Ok(None);
    };
    let age = Duration::try_from(now.duration_since(stored_at)).unwrap_or_default();
    let check = check_of(age);
    if check == Check::TooYoung {
        return Ok(None);
    }
    let ends = storage::read_ends(js, id, &record.calls).await?;
    let is_new = ends.iter().all(Option::is_none);
    let missing: Vec<_> =
        record.calls.iter().zip(&ends).filter(|(_, end)| end.is_none()).map(|(c, _)| c).collect();
    if is_new && !storage::is_stored(js, id).await? && !is_any_pending(js, &record).await? {
        storage::remove_open(js, id).await?;
        return Ok(Some(format!("removed batch {id}, whose calls were never stored")));
    }
    let ending: Vec<_> =
        missing.into_iter().map(|call| end_call(js, id, &record, call, check)).collect();
    let ended: Vec<bool> =
        stream::iter(ending).buffer_unordered(MAX_CONCURRENT).try_collect().await?;
    if ended.iter().any(|ended| !ended) || !finish_if_complete(js, id).await? {
        return Ok(None);
    }
    Ok(Some(format!("reported the end of batch {id}: {} calls had no recorded end", ended.len())))
}

/// Ends a call of a batch, if the check says so. Returns whether it has an end.
async fn end_call(
    js: &Context,
    id: &BatchId,
    record: &BatchRecord,
    call: &MemberCall,
    check: Check,
) -> Result<bool, NatsError> {
    if end_of_removed(js, id, record, call).await?.is_some() {
        return Ok(true);
    }
    if check == Check::Deadline {
        let unknown = EndRecord { sequence: 0, end: CallEnd::Unknown, status: None };
        storage::write_end(js, id, &call.call_id, &unknown).await?;
        return Ok(true);
    }
    Ok(false)
}

/// Returns whether any call of a batch is on the queue's stream.
async fn is_any_pending(js: &Context, record: &BatchRecord) -> Result<bool, NatsError> {
    // They are stored together, so the first one shows it, unless it has ended.
    for call in &record.calls {
        let Ok(call_id) = call.call_id.parse() else { continue };
        let subject = call_filter(&record.subject, Some(&call.function), &call_id);
        if last_message(js, &record.stream, &subject).await?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn age_of_a_batch_decides_the_check() {
        let check = |seconds| check_of(Duration::from_secs(seconds));
        assert_eq!((check(0), check(59)), (Check::TooYoung, Check::TooYoung));
        assert_eq!((check(60), check(7 * 24 * 3600 - 1)), (Check::Missing, Check::Missing));
        assert_eq!(check(7 * 24 * 3600), Check::Deadline);
    }
}
