//! Finds a call by its id: which queues may have it, and which of them does.
//!
//! A generated id names its queue, so only that queue is asked. For an id that a client chose, all
//! queues are asked, unless the function is named. Several calls may share an id: the newest is
//! returned, and the others are counted.

use async_nats::jetstream::Context;
use futures::{StreamExt, TryStreamExt, stream};

use self::ends::{RecordedEnd, from_tombstone, newest_end, recorded_ends};
use crate::{
    call::{CallQuery, CallState, CallStatus, CandidateQueues, Lookup, PendingCall, QueueLocation},
    call_id::queue_hash,
    consumer_progress,
    directory::{Directory, QueueEntry},
    invocation::Invocation,
    jetstream::{NatsError, count_messages, last_message},
    message::native,
    names::QueueName,
    raw_message::next_raw_message,
    subject::call_filter,
    tombstone::{self, Mark, Tombstone},
};

mod ends;
mod remembered;
mod result;
mod wait;

pub use remembered::remembered_end;
pub use result::{ResultLookup, find_result};
pub use wait::ResultWait;

/// Number of queues that are asked concurrently. One request takes a server less than a
/// millisecond. More at a time would only delay the storing of calls.
const MAX_CONCURRENT_LOOKUPS: usize = 64;

/// Returns the queues that may have a call: those that the id or the function names, and the
/// others. If none is named, all queues count as named.
///
/// ```
/// use asyncqueue::{
///     call::CallQuery,
///     directory::{Directory, QueueEntry},
///     lookup::candidate_queues,
/// };
///
/// let mut directory = Directory::default();
/// directory.queues.insert("slow-queue".parse()?, QueueEntry::new("slow", "jobs.slow"));
///
/// let query = CallQuery { id: "order-7".parse()?, function: None };
/// let candidates = candidate_queues(&directory, &"faas-request".parse()?, &query);
/// assert_eq!(candidates.named.len(), 2); // a client's own id may be on each queue
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn candidate_queues(
    directory: &Directory,
    default_queue: &QueueName,
    query: &CallQuery,
) -> CandidateQueues {
    let mut all: Vec<QueueLocation> = directory
        .queues
        .iter()
        .map(|(queue, entry)| QueueLocation { queue: queue.clone(), entry: entry.clone() })
        .collect();
    if !directory.queues.contains_key(default_queue) {
        let entry = QueueEntry::with_default_names(default_queue);
        all.push(QueueLocation { queue: default_queue.clone(), entry });
    }
    let of_function = query.function.as_ref().map(|f| directory.route(f, default_queue).queue);
    let hash = query.id.queue_hash();
    let is_named =
        |queue: &QueueName| of_function.as_ref() == Some(queue) || hash == Some(queue_hash(queue));
    let (named, rest): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|location| is_named(&location.queue));
    match named.is_empty() {
        true => CandidateQueues { named: rest, rest: named },
        // The calls of a named function are on its queue, and a call with a generated id is on the
        // queue that the id names.
        false if of_function.is_some() => CandidateQueues { named, rest: Vec::new() },
        false => CandidateQueues { named, rest },
    }
}

/// Returns the request of a call that was found, with all of its headers; `None` if it has ended
/// since, or can't be read. The message that a search returns has only the last of several headers
/// with one name, as the HTTP headers of a call are.
///
/// # Errors
///
/// Fails if NATS does not answer.
pub async fn find_request(
    js: &Context,
    call: &PendingCall,
) -> Result<Option<Invocation>, NatsError> {
    let PendingCall { location, message } = call;
    let (stream, sequence) = (&location.entry.stream, message.sequence);
    let stored = next_raw_message(js, stream, &message.subject, sequence).await?;
    let stored = stored.filter(|stored| stored.sequence == sequence);
    Ok(stored.and_then(|stored| {
        native::decode(&stored.read_headers().ok()?, stored.payload.clone()).ok()
    }))
}

/// Searches these queues for a call.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use asyncqueue::{
///     call::{CallQuery, Lookup},
///     directory::Directory,
///     lookup::{candidate_queues, find_call},
///     status::status_of_pending,
/// };
///
/// # let client = asyncqueue::async_nats::connect("nats://127.0.0.1:4222").await?;
/// # let js = asyncqueue::async_nats::jetstream::new(client);
/// # let directory = Directory::default();
/// let query = CallQuery { id: "order-7".parse()?, function: None };
/// let candidates = candidate_queues(&directory, &"faas-request".parse()?, &query);
/// match find_call(&js, &candidates, &query).await? {
///     Lookup::Pending { newest, .. } => {
///         let status = status_of_pending(&js, &query, &newest).await?;
///         println!("{:?}", status.state);
///     }
///     Lookup::Ended(status) | Lookup::Cancelling(status) => println!("{:?}", status.state),
///     Lookup::NotFound => println!("not found"),
/// }
/// # Ok(())
/// # }
/// ```
pub async fn find_call(
    js: &Context,
    candidates: &CandidateQueues,
    query: &CallQuery,
) -> Result<Lookup, NatsError> {
    match find_among(js, &candidates.named, query).await? {
        Lookup::NotFound if !candidates.rest.is_empty() => {
            find_among(js, &candidates.rest, query).await
        }
        found => Ok(found),
    }
}

async fn find_among(
    js: &Context,
    locations: &[QueueLocation],
    query: &CallQuery,
) -> Result<Lookup, NatsError> {
    let stored: Vec<PendingCall> = stream::iter(locations.iter().cloned())
        .map(|location| find_pending(js, location, query))
        .buffer_unordered(MAX_CONCURRENT_LOOKUPS)
        .try_filter_map(async |found| Ok(found))
        .try_collect()
        .await?;
    let mut others = 0;
    for PendingCall { location, .. } in &stored {
        let filter = call_filter(&location.entry.subject, query.function.as_ref(), &query.id);
        others += count_messages(js, &location.entry.stream, &filter).await?;
    }
    match stored.into_iter().max_by_key(|stored| stored.message.time) {
        Some(newest) => {
            Ok(Lookup::Pending { newest: newest.into(), others: others.saturating_sub(1) })
        }
        None => find_end(js, locations, query).await,
    }
}

async fn find_pending(
    js: &Context,
    location: QueueLocation,
    query: &CallQuery,
) -> Result<Option<PendingCall>, NatsError> {
    let filter = call_filter(&location.entry.subject, query.function.as_ref(), &query.id);
    let message = last_message(js, &location.entry.stream, &filter).await?;
    Ok(message.map(|message| PendingCall { location, message }))
}

/// Returns the end of a call, if one of these queues still knows it.
async fn find_end(
    js: &Context,
    locations: &[QueueLocation],
    query: &CallQuery,
) -> Result<Lookup, NatsError> {
    let results: Vec<_> = stream::iter(locations.iter().cloned())
        .map(|location| recorded_ends(js, location.queue, query))
        .buffer_unordered(MAX_CONCURRENT_LOOKUPS)
        .try_collect()
        .await?;
    let queue = match locations {
        [only] => Some(&only.queue),
        _ => None,
    };
    let tombstone = tombstone::newest(js, queue, &query.id).await?;
    let marked = tombstone.as_ref().and_then(|tombstone| from_tombstone(query, tombstone));
    let Some(RecordedEnd { is_tombstone, status, .. }) =
        newest_end(results.into_iter().flatten(), marked)
    else {
        return Ok(Lookup::NotFound);
    };
    match tombstone.filter(|_| is_tombstone) {
        Some(tombstone) if !is_certain(js, locations, &tombstone).await? => {
            Ok(Lookup::Cancelling(CallStatus { state: CallState::Delivered, ..status }))
        }
        _ => Ok(Lookup::Ended(status)),
    }
}

/// Returns whether a call that is marked as cancelled can't start any more.
async fn is_certain(
    js: &Context,
    locations: &[QueueLocation],
    tombstone: &Tombstone,
) -> Result<bool, NatsError> {
    if tombstone.mark != Mark::Cancelling {
        return Ok(true);
    }
    let Some(location) = locations.iter().find(|location| location.queue == tombstone.queue) else {
        return Ok(true);
    };
    let progress = consumer_progress::read(js, &location.entry.stream, &location.queue).await?;
    // Without a consumer, nothing is delivered.
    Ok(progress.is_none_or(|progress| tombstone.is_safe(progress.now, progress.lease)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{call_id::CallId, names::FunctionName};

    fn directory(queues: &[&str]) -> Directory {
        let mut directory = Directory::default();
        for queue in queues {
            let entry = QueueEntry::new(queue.to_uppercase(), format!("jobs.{queue}"));
            directory.queues.insert(queue.parse().unwrap(), entry);
        }
        let json = br#"{"queue":"slow"}"#;
        let key = crate::directory::Key::parse("function.ns.figlet").unwrap();
        directory.apply(&key, Some(json)).unwrap();
        directory
    }

    fn asked(id: &CallId, function: Option<&str>) -> Vec<String> {
        let function = function.map(|name| FunctionName::parse(name, "ns").unwrap());
        let query = CallQuery { id: id.clone(), function };
        let locations =
            candidate_queues(&directory(&["slow", "fast"]), &"default".parse().unwrap(), &query);
        sorted_names(locations.named)
    }

    fn sorted_names(locations: Vec<QueueLocation>) -> Vec<String> {
        let mut names: Vec<_> =
            locations.into_iter().map(|location| location.queue.to_string()).collect();
        names.sort();
        names
    }

    #[test]
    fn an_id_that_was_made_here_is_asked_of_its_queue_alone() {
        let id = CallId::generate(&"fast".parse().unwrap());
        assert_eq!(asked(&id, None), ["fast"]);
        // Its function may have moved to another queue since then.
        assert_eq!(asked(&id, Some("figlet")), ["fast", "slow"]);
    }

    #[test]
    fn a_clients_id_is_asked_of_all_queues_or_of_its_functions() {
        let own = "order-7".parse().unwrap();
        assert_eq!(asked(&own, None), ["default", "fast", "slow"]);
        assert_eq!(asked(&own, Some("figlet")), ["slow"]);
        assert_eq!(asked(&own, Some("unknown")), ["default"]);
    }

    #[test]
    fn a_uuid_that_names_a_queue_by_chance_is_asked_of_all() {
        let query = CallQuery { id: CallId::generate(&"fast".parse().unwrap()), function: None };
        let locations =
            candidate_queues(&directory(&["slow", "fast"]), &"default".parse().unwrap(), &query);
        assert_eq!(sorted_names(locations.rest), ["default", "slow"]);
    }

    #[test]
    fn an_id_of_a_queue_that_is_gone_is_asked_of_all() {
        let id = CallId::generate(&"gone".parse().unwrap());
        assert_eq!(asked(&id, None).len(), 3);
    }
}
