//! Finds a call by its id: which queues may have it, and which of them does.
//!
//! A generated id names its queue, so only that queue is asked. For an id that a client chose, all
//! queues are asked, unless the function is named. Several calls may share an id: the newest is
//! returned, and the others are counted.

use async_nats::jetstream::{Context, message::StreamMessage};
use futures::{StreamExt, TryStreamExt, stream};

use crate::{
    call_id::{CallId, queue_hash},
    consumer_progress,
    directory::{Directory, QueueEntry},
    name::{FunctionName, QueueName},
    peek::{NatsError, count_messages, last_message},
    status::{self, CallStatus, Ended, State},
    subject::call_filter,
    tombstone::{self, Mark, Tombstone},
};

/// Number of queues that are asked concurrently. One request takes a server less than a
/// millisecond. More at a time would only delay the storing of calls.
const AT_ONCE: usize = 64;

/// The call to find.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Id of the call.
    pub id: CallId,
    /// Function of the call, if it is known.
    pub function: Option<FunctionName>,
}

/// A queue, and where its calls are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Name of the queue.
    pub queue: QueueName,
    /// Stream and subject of the queue.
    pub entry: QueueEntry,
}

/// The queues that may have a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The queues that the id or the function names. Never empty.
    pub named: Vec<Place>,
    /// The other queues, which are asked if the named ones do not know the call: a client's own
    /// UUID may name a queue by chance.
    pub rest: Vec<Place>,
}

/// The result of a search.
#[derive(Debug)]
pub enum Found {
    /// The call is stored: queued, running, or waiting for its next attempt.
    Stored {
        /// The newest call with the id.
        newest: Box<Stored>,
        /// Number of other stored calls with the id.
        others: u64,
    },
    /// The call has ended, and its end is still known.
    Ended(CallStatus),
    /// The call is marked as cancelled, and a worker that has it may still run it, or end it in
    /// another way.
    BeingCancelled(CallStatus),
    /// Nothing is known of the call: it never existed, or its end is not known any more.
    Unknown,
}

/// A call on its queue's stream.
#[derive(Debug)]
pub struct Stored {
    /// The queue.
    pub place: Place,
    /// The call's message, as it was when it was found.
    pub message: StreamMessage,
}

/// Returns the queues that may have a call: those that the id or the function names, and the
/// others. If none is named, all queues count as named.
#[must_use]
pub fn places(directory: &Directory, default_queue: &QueueName, wanted: &Wanted) -> Places {
    let mut all: Vec<Place> = directory
        .queues
        .iter()
        .map(|(queue, entry)| Place { queue: queue.clone(), entry: entry.clone() })
        .collect();
    if !directory.queues.contains_key(default_queue) {
        let entry = QueueEntry::named(default_queue);
        all.push(Place { queue: default_queue.clone(), entry });
    }
    let of_function = wanted.function.as_ref().map(|f| directory.route(f, default_queue).queue);
    let hash = wanted.id.queue_hash();
    let is_named =
        |queue: &QueueName| of_function.as_ref() == Some(queue) || hash == Some(queue_hash(queue));
    let (named, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(|place| is_named(&place.queue));
    match named.is_empty() {
        true => Places { named: rest, rest: named },
        // The calls of a named function are on its queue, and a call with a generated id is on the
        // queue that the id names.
        false if of_function.is_some() => Places { named, rest: Vec::new() },
        false => Places { named, rest },
    }
}

/// Searches these places for a call.
pub async fn locate(js: &Context, places: &Places, wanted: &Wanted) -> Result<Found, NatsError> {
    match locate_among(js, &places.named, wanted).await? {
        Found::Unknown if !places.rest.is_empty() => locate_among(js, &places.rest, wanted).await,
        found => Ok(found),
    }
}

async fn locate_among(js: &Context, places: &[Place], wanted: &Wanted) -> Result<Found, NatsError> {
    let stored: Vec<Stored> = stream::iter(places.iter().cloned())
        .map(|place| stored_at(js, place, wanted))
        .buffer_unordered(AT_ONCE)
        .try_filter_map(async |found| Ok(found))
        .try_collect()
        .await?;
    let mut others = 0;
    for Stored { place, .. } in &stored {
        let filter = call_filter(&place.entry.subject, wanted.function.as_ref(), &wanted.id);
        others += count_messages(js, &place.entry.stream, &filter).await?;
    }
    match stored.into_iter().max_by_key(|stored| stored.message.time) {
        Some(newest) => {
            Ok(Found::Stored { newest: newest.into(), others: others.saturating_sub(1) })
        }
        None => ended(js, places, wanted).await,
    }
}

async fn stored_at(
    js: &Context,
    place: Place,
    wanted: &Wanted,
) -> Result<Option<Stored>, NatsError> {
    let filter = call_filter(&place.entry.subject, wanted.function.as_ref(), &wanted.id);
    let message = last_message(js, &place.entry.stream, &filter).await?;
    Ok(message.map(|message| Stored { place, message }))
}

/// Returns the end of a call, if one of these places still knows it.
async fn ended(js: &Context, places: &[Place], wanted: &Wanted) -> Result<Found, NatsError> {
    let results: Vec<_> = stream::iter(places.iter().cloned())
        .map(|place| status::results(js, place.queue, wanted))
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    let queue = match places {
        [only] => Some(&only.queue),
        _ => None,
    };
    let tombstone = tombstone::newest(js, queue, &wanted.id).await?;
    let marked = tombstone.as_ref().and_then(|tombstone| status::of_tombstone(wanted, tombstone));
    let Some(Ended { is_mark, status, .. }) =
        status::last_end(results.into_iter().flatten(), marked)
    else {
        return Ok(Found::Unknown);
    };
    match tombstone.filter(|_| is_mark) {
        Some(tombstone) if !is_certain(js, places, &tombstone).await? => {
            Ok(Found::BeingCancelled(CallStatus { state: State::Delivered, ..status }))
        }
        _ => Ok(Found::Ended(status)),
    }
}

/// Returns whether a call that is marked as cancelled can't start any more.
async fn is_certain(
    js: &Context,
    places: &[Place],
    tombstone: &Tombstone,
) -> Result<bool, NatsError> {
    if tombstone.mark != (Mark::Cancelled { confirmed: false }) {
        return Ok(true);
    }
    let Some(place) = places.iter().find(|place| place.queue == tombstone.queue) else {
        return Ok(true);
    };
    let progress = consumer_progress::read(js, &place.entry.stream, &place.queue).await?;
    // Without a consumer, nothing is delivered.
    Ok(progress.is_none_or(|progress| tombstone.is_safe(progress.now, progress.lease)))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let wanted = Wanted { id: id.clone(), function };
        let places = places(&directory(&["slow", "fast"]), &"default".parse().unwrap(), &wanted);
        sorted_names(places.named)
    }

    fn sorted_names(places: Vec<Place>) -> Vec<String> {
        let mut names: Vec<_> = places.into_iter().map(|place| place.queue.to_string()).collect();
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
        let wanted = Wanted { id: CallId::generate(&"fast".parse().unwrap()), function: None };
        let places = places(&directory(&["slow", "fast"]), &"default".parse().unwrap(), &wanted);
        assert_eq!(sorted_names(places.rest), ["default", "slow"]);
    }

    #[test]
    fn an_id_of_a_queue_that_is_gone_is_asked_of_all() {
        let id = CallId::generate(&"gone".parse().unwrap());
        assert_eq!(asked(&id, None).len(), 3);
    }
}
