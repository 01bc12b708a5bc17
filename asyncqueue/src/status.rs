//! Determines the state of a stored call from the streams themselves, without a database.
//!
//! A stored call is queued, or was delivered. For a delivered call, its worker is asked for details
//! over core NATS. How a call ended that is not stored any more: see [`crate::lookup`].

use async_nats::jetstream::Context;
use bytes::Bytes;
use jiff::Timestamp;

use crate::{
    call::{CallQuery, CallRef, CallState, CallStatus, PendingCall, WorkerReport},
    consumer_progress::{self, Progress},
    delay::time_until,
    end_state::EndState,
    jetstream::{NatsError, stored_at},
    message::native,
    names::QueueName,
    tombstone::{self, Mark},
    worker_requests::{request_workers, status_request_subject},
};

/// Returns the status of a stored call.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use asyncqueue::{
///     call::{CallQuery, PendingCall},
///     status::status_of_pending,
/// };
///
/// # let client = asyncqueue::async_nats::connect("nats://127.0.0.1:4222").await?;
/// # let js = asyncqueue::async_nats::jetstream::new(client);
/// # let (query, pending): (CallQuery, PendingCall) = todo!();
/// // `pending` is the result of `lookup::find_call`.
/// let status = status_of_pending(&js, &query, &pending).await?;
/// println!("{:?} on {}", status.state, status.queue);
/// # Ok(())
/// # }
/// ```
pub async fn status_of_pending(
    js: &Context,
    query: &CallQuery,
    pending: &PendingCall,
) -> Result<CallStatus, NatsError> {
    let PendingCall { location, message } = pending;
    let call = CallRef { id: query.id.clone(), sequence: message.sequence };
    let (progress, tombstone) = futures::try_join!(
        consumer_progress::read_for_call(
            js,
            &location.entry.stream,
            &location.queue,
            &message.subject
        ),
        tombstone::read(js, &location.queue, &call)
    )?;
    // A cancelled or expired call is stored until the program that ends it has finished. A call
    // that was delivered and is not certainly cancelled may end by itself.
    let queued = queued(progress, message.sequence);
    let is_open = tombstone
        .as_ref()
        .is_some_and(|tombstone| queued.is_none() && tombstone.mark == Mark::Cancelling);
    let ended = tombstone.filter(|_| !is_open).and_then(|tombstone| tombstone.state());
    let invocation = native::decode(&message.headers, Bytes::new()).ok();
    let scheduled = invocation.as_ref().and_then(|invocation| {
        let now = progress.map_or_else(Timestamp::now, |progress| progress.now);
        scheduled(invocation.not_before, now)
    });
    let ended = ended.filter(|state| state.end() != Some(EndState::Dead));
    let state = match ended.or(scheduled).or(queued) {
        Some(state) => state,
        None => ask_worker(js, &location.queue, &call).await?,
    };
    let submitted_at =
        invocation.map_or_else(|| stored_at(message), |invocation| invocation.submitted_at);
    Ok(CallStatus::new(query, &location.queue, Some(&message.subject), state)
        .submitted(submitted_at, Timestamp::now()))
}

/// Returns the state of the call at a sequence, if it was not delivered yet.
fn queued(progress: Option<Progress>, sequence: u64) -> Option<CallState> {
    // Without a consumer, nothing is delivered.
    let Some(progress) = progress else { return Some(CallState::Queued { position: None }) };
    let distance = sequence.checked_sub(progress.delivered).filter(|distance| *distance > 0)?;
    // Calls that left the stream out of order leave gaps, so both are upper bounds.
    let position = (distance - 1).min(progress.pending.saturating_sub(1));
    Some(CallState::Queued { position: Some(position) })
}

/// Returns the state of a delayed call that is not due yet.
fn scheduled(not_before: Option<Timestamp>, now: Timestamp) -> Option<CallState> {
    time_until(not_before, now)?;
    not_before.map(|not_before| CallState::Scheduled { not_before })
}

async fn ask_worker(
    js: &Context,
    queue: &QueueName,
    call: &CallRef,
) -> Result<CallState, NatsError> {
    let report = request_worker_report(js, queue, call).await?;
    Ok(report.map_or(CallState::Delivered, CallState::from))
}

/// Returns the report of the worker that has a stored call; `None` if no worker reports that it has
/// it.
#[doc(hidden)]
pub async fn request_worker_report(
    js: &Context,
    queue: &QueueName,
    call: &CallRef,
) -> Result<Option<WorkerReport>, NatsError> {
    let request = call.encode().into();
    request_workers(js.client(), status_request_subject(queue), request, |reply| {
        serde_json::from_slice(&reply.payload).ok()
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn undelivered_call_is_queued_with_or_without_a_consumer() {
        let (lease, now) = (Duration::from_secs(30), Timestamp::now());
        let at = |delivered, pending| {
            Some(Progress { delivered, pending, lease, now, has_lanes: false })
        };
        let position = |position| Some(CallState::Queued { position });
        assert_eq!(queued(None, 7), position(None));
        assert_eq!(queued(at(0, 3), 1), position(Some(0)));
        assert_eq!(queued(at(4, 9), 7), position(Some(2)));
        // Some of the calls before it have left the stream.
        assert_eq!(queued(at(4, 2), 700), position(Some(1)));
        assert_eq!(queued(at(7, 0), 7), None);
        assert_eq!(queued(at(9, 0), 7), None);
    }

    #[test]
    fn delayed_call_is_scheduled_until_it_is_due() {
        let now: Timestamp = "2026-11-29T10:00:00Z".parse().unwrap();
        let later = now + Duration::from_millis(1);
        assert_eq!(scheduled(Some(later), now), Some(CallState::Scheduled { not_before: later }));
        assert_eq!([scheduled(Some(now), now), scheduled(None, now)], [None, None]);
    }
}
