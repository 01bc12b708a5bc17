//! Finds the kept result of a call.

use async_nats::jetstream::Context;
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;

use super::{MAX_CONCURRENT_LOOKUPS, find_call};
use crate::{
    call::{CallQuery, CandidateQueues, Lookup, QueueLocation},
    jetstream::NatsError,
    kept_results::{self, FoundResult},
    message::kept_result::KeptResult,
    names::QueueName,
};

/// What is known of the result of a call.
#[derive(Debug)]
pub enum ResultLookup {
    /// The call has ended, and its result is kept.
    Kept(Box<KeptResult>),
    /// The call has not ended.
    Pending,
    /// The call has ended, and its result is not kept, or not any more.
    NotKept,
    /// Nothing is known of the call.
    NotFound,
}

/// A result and its queue.
struct ResultOnQueue {
    queue: QueueName,
    found: FoundResult,
}

/// Searches these queues for the result of a call: that of the newest call with the id.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use asyncqueue::{
///     call::CallQuery,
///     directory::Directory,
///     lookup::{ResultLookup, candidate_queues, find_result},
/// };
///
/// # let client = asyncqueue::async_nats::connect("nats://127.0.0.1:4222").await?;
/// # let js = asyncqueue::async_nats::jetstream::new(client);
/// # let directory = Directory::default();
/// let query = CallQuery { id: "order-7".parse()?, function: None };
/// let candidates = candidate_queues(&directory, &"faas-request".parse()?, &query);
/// if let ResultLookup::Kept(result) = find_result(&js, &candidates, &query).await? {
///     println!("{} with status {}", result.end, result.status);
/// }
/// # Ok(())
/// # }
/// ```
pub async fn find_result(
    js: &Context,
    candidates: &CandidateQueues,
    query: &CallQuery,
) -> Result<ResultLookup, NatsError> {
    let found = newest_result(js, candidates, query).await?;
    // A generated id has one call.
    if let Some(ResultOnQueue { found: FoundResult::Kept { result, .. }, .. }) = found
        && query.id.is_generated()
    {
        return Ok(ResultLookup::Kept(result));
    }
    let call = find_call(js, candidates, query).await?;
    // The call may have ended between the two.
    let found = newest_result(js, candidates, query).await?;
    Ok(decide(found, &call))
}

/// Returns what a result and the state of the calls with its id mean. The newest call counts.
fn decide(found: Option<ResultOnQueue>, call: &Lookup) -> ResultLookup {
    let is_newer_pending = |sequence: u64, queue: &QueueName| match call {
        Lookup::Pending { newest, .. } => {
            newest.location.queue != *queue || newest.message.sequence > sequence
        }
        _ => false,
    };
    match found {
        Some(ResultOnQueue { queue, found: FoundResult::Kept { result, .. } })
            if !is_newer_pending(result.sequence, &queue) =>
        {
            ResultLookup::Kept(result)
        }
        Some(ResultOnQueue { queue, found: FoundResult::Gone { sequence, .. } })
            if !is_newer_pending(sequence, &queue) =>
        {
            ResultLookup::NotKept
        }
        _ => match call {
            Lookup::Pending { .. } | Lookup::Cancelling(_) => ResultLookup::Pending,
            Lookup::Ended(_) => ResultLookup::NotKept,
            Lookup::NotFound => ResultLookup::NotFound,
        },
    }
}

/// Returns the newest result of the calls with an id.
async fn newest_result(
    js: &Context,
    candidates: &CandidateQueues,
    query: &CallQuery,
) -> Result<Option<ResultOnQueue>, NatsError> {
    match newest_among(js, &candidates.named, query).await? {
        None if !candidates.rest.is_empty() => newest_among(js, &candidates.rest, query).await,
        found => Ok(found),
    }
}

async fn newest_among(
    js: &Context,
    locations: &[QueueLocation],
    query: &CallQuery,
) -> Result<Option<ResultOnQueue>, NatsError> {
    let found: Vec<ResultOnQueue> = stream::iter(locations.iter().cloned())
        .map(|location| result_on(js, location.queue, query))
        .buffer_unordered(MAX_CONCURRENT_LOOKUPS)
        .try_filter_map(async |found| Ok(found))
        .try_collect()
        .await?;
    Ok(found.into_iter().max_by_key(|on_queue| stored_at(&on_queue.found)))
}

async fn result_on(
    js: &Context,
    queue: QueueName,
    query: &CallQuery,
) -> Result<Option<ResultOnQueue>, NatsError> {
    let found = kept_results::find(js, &queue, query).await?;
    Ok(found.map(|found| ResultOnQueue { queue, found }))
}

fn stored_at(found: &FoundResult) -> Timestamp {
    match found {
        FoundResult::Kept { at, .. } | FoundResult::Gone { at, .. } => *at,
    }
}
