//! Remembers the calls that this worker has run to their end, and answers questions about them.
//!
//! A call that is done leaves no record, unless its callback is on the way or its result is kept.
//! So its status is best effort: the last calls of each worker, for some minutes, in its memory.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_nats::Client;
use asyncqueue::{
    CallId, FunctionName, QueueName,
    call::{CallQuery, RememberedEnd, whole_millis},
    worker_requests::end_request_subject,
};
use bytes::Bytes;
use jiff::Timestamp;

use super::Call;
use crate::responder;

/// Maximum number of calls that are remembered. Each takes about 210 bytes, and at most 420, with
/// the longest names: 4 to 8.4 MB in all.
const MAX_CALLS: usize = 20_000;

/// How long a call is remembered.
const REMEMBER_FOR: Duration = Duration::from_secs(600);

/// The calls that this worker has run to their end. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct EndedCalls {
    queue: QueueName,
    ends: Arc<Mutex<Ends>>,
}

/// The ends of the last calls, in the order in which they came.
#[derive(Debug, Default)]
struct Ends {
    entries: VecDeque<EndEntry>,
    /// Number of entries that were removed: the number of the first one that is left.
    first: u64,
    /// The number of the newest entry of the ids with a hash.
    newest: HashMap<u64, u64>,
    hasher: RandomState,
}

/// The end of a call, as small as possible.
#[derive(Debug)]
struct EndEntry {
    /// The call's id and its function: [`CallQuery::encode`].
    call: Box<str>,
    /// The number of the entry before this one whose id has the same hash, if there is one.
    before: Option<u64>,
    sequence: u64,
    submitted_micros: i64,
    finished_micros: i64,
    duration_millis: u32,
    attempt: u32,
    status: u16,
}

// === impl EndedCalls ===

impl EndedCalls {
    pub(crate) fn new(queue: QueueName) -> Self {
        Self { queue, ends: Arc::default() }
    }

    /// Remembers that a call is done, with this status of its function.
    pub(crate) fn remember(&self, call: &Call, status: u16, duration: Duration) {
        let (function, id) = call.function_and_id();
        let entry = EndEntry {
            call: name(id, function),
            before: None,
            sequence: call.stored.sequence,
            submitted_micros: call.invocation.submitted_at.as_microsecond(),
            finished_micros: Timestamp::now().as_microsecond(),
            duration_millis: whole_millis(duration).0.as_millis().try_into().unwrap_or(u32::MAX),
            attempt: call.attempts.number.try_into().unwrap_or(u32::MAX),
            status,
        };
        self.lock().push(entry);
    }

    /// Answers questions about calls, for as long as it is polled.
    pub(crate) async fn answer_requests(&self, client: &Client) {
        let subject = end_request_subject(&self.queue);
        responder::answer(client, subject, |request, _| self.answer(request)).await;
    }

    /// Returns the answer to a question: `null` if the call is not remembered, so that the client
    /// does not wait for this worker.
    fn answer(&self, request: &[u8]) -> Option<Bytes> {
        let end = self.end_of(&CallQuery::decode(request)?, Timestamp::now());
        serde_json::to_vec(&end).ok().map(Bytes::from)
    }

    fn end_of(&self, query: &CallQuery, now: Timestamp) -> Option<RememberedEnd> {
        let since = now.saturating_sub(REMEMBER_FOR).unwrap_or(Timestamp::MIN).as_microsecond();
        let ends = self.lock();
        let entry = ends.newest_of(query).filter(|entry| entry.finished_micros > since)?;
        let function = function_of(&entry.call)?.to_owned();
        Some(RememberedEnd {
            queue: self.queue.clone(),
            function: function.try_into().ok()?,
            sequence: entry.sequence,
            status: entry.status,
            attempt: entry.attempt.into(),
            duration: whole_millis(Duration::from_millis(entry.duration_millis.into())),
            submitted_at: Timestamp::from_microsecond(entry.submitted_micros).ok()?,
            finished_at: Timestamp::from_microsecond(entry.finished_micros).ok()?,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Ends> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Ends ===

impl Ends {
    /// Adds the end of a call, in place of the oldest one if there are too many.
    fn push(&mut self, mut entry: EndEntry) {
        if self.entries.capacity() == 0 {
            self.entries.reserve_exact(MAX_CALLS);
        }
        if self.entries.len() >= MAX_CALLS
            && let Some(oldest) = self.entries.pop_front()
        {
            let hash = self.hash(id_of(&oldest.call));
            if self.newest.get(&hash) == Some(&self.first) {
                self.newest.remove(&hash);
            }
            self.first += 1;
        }
        let hash = self.hash(id_of(&entry.call));
        let number = self.first + self.entries.len() as u64;
        entry.before = self.newest.insert(hash, number);
        self.entries.push_back(entry);
    }

    /// Returns the newest end of the calls with an id, and of a function if one is named.
    fn newest_of(&self, query: &CallQuery) -> Option<&EndEntry> {
        let mut number = self.newest.get(&self.hash(query.id.as_str())).copied();
        while let Some(entry) = number.and_then(|number| self.at(number)) {
            let function = query.function.as_ref();
            let is_wanted = function.is_none_or(|wanted| {
                function_of(&entry.call).is_some_and(|name| name == wanted.to_string())
            });
            if is_wanted && id_of(&entry.call) == query.id.as_str() {
                return Some(entry);
            }
            number = entry.before;
        }
        None
    }

    /// Returns the entry with a number, unless it was removed.
    fn at(&self, number: u64) -> Option<&EndEntry> {
        self.entries.get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    fn hash(&self, id: &str) -> u64 {
        self.hasher.hash_one(id)
    }
}

/// Returns the text under which a call is remembered.
fn name(id: &CallId, function: &FunctionName) -> Box<str> {
    format!("{id} {function}").into()
}

fn id_of(call: &str) -> &str {
    call.split(' ').next().unwrap_or_default()
}

fn function_of(call: &str) -> Option<&str> {
    call.split_once(' ').map(|(_, function)| function)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(id: &str, function: &str, sequence: u64) -> EndEntry {
        EndEntry {
            call: name(&id.parse().unwrap(), &FunctionName::parse(function, "ns").unwrap()),
            before: None,
            sequence,
            submitted_micros: 0,
            finished_micros: 1_000_000,
            duration_millis: 1_500,
            attempt: 2,
            status: 404,
        }
    }

    fn query(id: &str, function: Option<&str>) -> CallQuery {
        let function = function.map(|name| FunctionName::parse(name, "ns").unwrap());
        CallQuery { id: id.parse().unwrap(), function }
    }

    fn sequence(ends: &Ends, id: &str, function: Option<&str>) -> Option<u64> {
        ends.newest_of(&query(id, function)).map(|entry| entry.sequence)
    }

    #[test]
    fn newest_call_with_an_id_is_found_and_that_of_a_function() {
        let mut ends = Ends::default();
        for (id, function, number) in
            [("a", "f", 1), ("b", "f", 2), ("a", "g", 3), ("a", "g", 4), ("c", "f", 5)]
        {
            ends.push(entry(id, function, number));
        }
        assert_eq!(sequence(&ends, "a", None), Some(4));
        assert_eq!(sequence(&ends, "a", Some("g")), Some(4));
        assert_eq!(sequence(&ends, "a", Some("f")), Some(1));
        assert_eq!(sequence(&ends, "b", Some("g")), None);
        assert_eq!(sequence(&ends, "d", None), None);
    }

    #[test]
    fn only_the_last_calls_are_remembered() {
        let mut ends = Ends::default();
        ends.push(entry("first", "f", 0));
        for number in 1..MAX_CALLS as u64 {
            ends.push(entry(&format!("id-{number}"), "f", number));
        }
        assert_eq!(sequence(&ends, "first", None), Some(0));
        ends.push(entry("shared", "f", 20_000));
        assert_eq!(sequence(&ends, "first", None), None, "it was the oldest");
        for number in 0..3 * MAX_CALLS as u64 {
            ends.push(entry("shared", "f", number));
        }
        assert_eq!(sequence(&ends, "id-19999", None), None);
        assert_eq!(sequence(&ends, "shared", Some("g")), None);
        assert_eq!(sequence(&ends, "shared", None), Some(3 * MAX_CALLS as u64 - 1));
        assert_eq!((ends.entries.len(), ends.newest.len()), (MAX_CALLS, 1));
        assert_eq!(ends.entries.capacity(), MAX_CALLS);
    }

    #[test]
    fn documented_memory_of_a_call_is_not_exceeded() {
        // An entry of the map is two numbers and a byte. The map may have grown once more than its
        // entries need.
        let index = (2 * size_of::<u64>() + 1) * 2 * MAX_CALLS.next_power_of_two() / MAX_CALLS;
        let names = |id: usize, function: usize| id + 1 + function;
        let bytes = |names: usize| size_of::<EndEntry>() + index + names.next_multiple_of(16) + 16;
        assert!(bytes(names(36, 20)) <= 210, "{}", bytes(names(36, 20)));
        assert!(bytes(names(128, 127)) <= 420, "{}", bytes(names(128, 127)));
    }

    #[test]
    fn call_is_forgotten_after_its_time() {
        let ended = EndedCalls::new("jobs".parse().unwrap());
        ended.lock().push(entry("id-1", "f", 7));
        let finished_at = Timestamp::from_second(1).unwrap();
        let end = ended.end_of(&query("id-1", None), finished_at).unwrap();
        assert_eq!((end.sequence, end.status, end.attempt), (7, 404, 2));
        assert_eq!((end.duration.to_string().as_str(), end.finished_at), ("1s500ms", finished_at));
        assert_eq!(end.function.to_string(), "f.ns");
        let at = |seconds| ended.end_of(&query("id-1", None), finished_at + seconds);
        assert!(at(Duration::from_secs(599)).is_some());
        assert_eq!(at(REMEMBER_FOR), None);
    }

    #[test]
    fn each_question_that_can_be_read_is_answered() {
        let ended = EndedCalls::new("jobs".parse().unwrap());
        assert_eq!(ended.answer(b"id-1").as_deref(), Some(&b"null"[..]));
        assert_eq!(ended.answer(b"id-1 f.ns").as_deref(), Some(&b"null"[..]));
        assert_eq!(ended.answer(b"a.b"), None);
    }

    proptest! {
        #[test]
        fn newest_is_that_of_a_plain_list(
            calls in proptest::collection::vec((0..4_u8, 0..3_u8), 0..60)
        ) {
            let mut ends = Ends::default();
            for (number, (id, function)) in calls.iter().enumerate() {
                ends.push(entry(&format!("id-{id}"), &format!("f{function}"), number as u64));
            }
            for id in 0..4 {
                let last = calls.iter().rposition(|call| call.0 == id).map(|at| at as u64);
                prop_assert_eq!(sequence(&ends, &format!("id-{id}"), None), last);
                for function in 0..3 {
                    let last = calls.iter().rposition(|call| *call == (id, function));
                    let found =
                        sequence(&ends, &format!("id-{id}"), Some(&format!("f{function}")));
                    prop_assert_eq!(found, last.map(|at| at as u64));
                }
            }
        }
    }
}
