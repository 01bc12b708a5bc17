//! Finds a call by its id: which queues may have it, and which of them does.
//!
//! An id that was made here names its queue, so that one is asked; a client's own id is asked of all, unless the
//! function is named.

use async_nats::jetstream::{Context, message::StreamMessage};
use futures::{StreamExt, TryStreamExt, stream};

use crate::{
    call_id::{CallId, queue_hash},
    directory::{Directory, QueueEntry},
    name::{FunctionName, QueueName},
    peek::{NatsError, last_message},
    status::{self, CallStatus},
    subject::call_filter,
};

/// Queues that are asked at once. One question takes a server less than a millisecond; more at once would only keep
/// it from storing calls.
const AT_ONCE: usize = 64;

/// The call that is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its id.
    pub id: CallId,
    /// Its function, where that is known.
    pub function: Option<FunctionName>,
}

/// A queue, and where its calls are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The queue.
    pub queue: QueueName,
    /// Its stream and subject.
    pub entry: QueueEntry,
}

/// What was found.
#[derive(Debug)]
pub enum Found {
    /// The call is stored: queued, running, or waiting for its next attempt.
    Stored(Stored),
    /// It has ended, and its end is still known.
    Ended(CallStatus),
    /// Several calls with this id are stored, on these queues.
    Ambiguous(Vec<QueueName>),
    /// Nothing is known of it: it never was, or its end is not known any more.
    Unknown,
}

/// A call on its queue's stream.
#[derive(Debug)]
pub struct Stored {
    /// The queue.
    pub place: Place,
    /// The call's message, as it was when it was looked for.
    pub message: StreamMessage,
}

/// The queues that may have a call. Never none.
///
/// Those that the id or the function names, or else all. A client's own `UUIDv7` may name a queue by chance and then
/// is asked of that alone: one in 65536 for each queue. Its function, if named, finds it all the same.
#[must_use]
pub fn places(directory: &Directory, default_queue: &QueueName, wanted: &Wanted) -> Vec<Place> {
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
    let is_named = |queue: &QueueName| of_function.as_ref() == Some(queue) || hash == Some(queue_hash(queue));
    if all.iter().any(|place| is_named(&place.queue)) {
        all.retain(|place| is_named(&place.queue));
    }
    all
}

/// Looks for a call in these places.
pub async fn locate(js: &Context, places: &[Place], wanted: &Wanted) -> Result<Found, NatsError> {
    let mut stored: Vec<Stored> = stream::iter(places.iter().cloned())
        .map(|place| stored_at(js, place, wanted))
        .buffer_unordered(AT_ONCE)
        .try_filter_map(async |found| Ok(found))
        .try_collect()
        .await?;
    match (stored.pop(), &stored[..]) {
        (Some(stored), []) => Ok(Found::Stored(stored)),
        (Some(last), others) => {
            let mut queues: Vec<_> = others.iter().chain([&last]).map(|s| s.place.queue.clone()).collect();
            queues.sort();
            Ok(Found::Ambiguous(queues))
        }
        (None, _) => Ok(ended(js, places, wanted).await?.map_or(Found::Unknown, Found::Ended)),
    }
}

async fn stored_at(js: &Context, place: Place, wanted: &Wanted) -> Result<Option<Stored>, NatsError> {
    let filter = call_filter(&place.entry.subject, wanted.function.as_ref(), &wanted.id);
    let message = last_message(js, &place.entry.stream, &filter).await?;
    Ok(message.map(|message| Stored { place, message }))
}

/// The end of a call, as far as one of these places still knows it. Where several do, because the id was used
/// again, the latest counts.
async fn ended(js: &Context, places: &[Place], wanted: &Wanted) -> Result<Option<CallStatus>, NatsError> {
    let results: Vec<_> = stream::iter(places.iter().cloned())
        .map(|place| status::results(js, place.queue, wanted))
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    let cancelled = match places {
        [only] => status::cancelled(js, Some(&only.queue), wanted).await?,
        _ => status::cancelled(js, None, wanted).await?,
    };
    let last = results.into_iter().flatten().max_by_key(|ended| ended.at);
    let last = match (last, cancelled) {
        // Its caller is told of the cancellation after it.
        (Some(last), Some(cancelled))
            if last.at > cancelled.at && !last.status.state.tells_of_cancellation() =>
        {
            Some(last)
        }
        (last, cancelled) => cancelled.or(last),
    };
    Ok(last.map(|ended| ended.status))
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
        let mut names: Vec<_> = places.into_iter().map(|place| place.queue.to_string()).collect();
        names.sort();
        names
    }

    #[test]
    fn an_id_that_was_made_here_is_asked_of_its_queue_alone() {
        let id = CallId::generate(&"fast".parse().unwrap());
        assert_eq!(asked(&id, None), ["fast"]);
        // Its function may have moved to another queue since.
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
    fn an_id_of_a_queue_that_is_gone_is_asked_of_all() {
        let id = CallId::generate(&"gone".parse().unwrap());
        assert_eq!(asked(&id, None).len(), 3);
    }
}
