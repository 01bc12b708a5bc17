//! Which queues there are, from the directory and from the streams.
//!
//! The operator writes the directory. If there is no operator, or if a deleted queue has left
//! streams behind, the streams themselves name their owner.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use async_nats::jetstream::{Context, context::StreamsError, stream};
use futures::TryStreamExt;
use jiff::Timestamp;

use crate::{
    call::{CallQuery, CandidateQueues, QueueLocation},
    directory::{Directory, QueueEntry},
    lookup::candidate_queues,
    names::QueueName,
    stats::WorkerReplies,
    stream::{META_OWNER, META_OWNER_UID},
    subject::stream_subjects,
};

/// By how much each listed stream extends the pause until the next listing at least: 30,000 streams
/// are listed twice a minute.
const PAUSE_OF_STREAM: Duration = Duration::from_millis(1);

/// Returns how long a program that lists all streams again and again waits after a listing of this
/// many. It depends on the work that a listing is, and not on how long it took: after a listing
/// that waited for a server, the counts would be old for minutes.
#[must_use]
pub fn listing_pause(interval: Duration, streams: usize) -> Duration {
    let streams = u32::try_from(streams).unwrap_or(u32::MAX);
    interval.max(PAUSE_OF_STREAM.saturating_mul(streams))
}

/// The properties of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamSummary {
    /// Its name.
    pub name: String,
    /// Its subjects.
    pub subjects: Vec<String>,
    /// `namespace/name` of the `AsyncQueue`, or another text if no operator created the stream.
    /// `None` if it is not a stream of AsyncQueue.
    pub owner: Option<String>,
    /// UID of the `AsyncQueue`, or the owner's name if no operator created the stream.
    pub owner_uid: Option<String>,
    /// How many messages it stores.
    pub messages: u64,
    /// The sequence of the last message that was stored.
    pub last_sequence: u64,
    /// When the oldest message was stored. Undefined if there are no messages.
    pub oldest: Timestamp,
}

/// How many messages came into a stream and left it between two of its summaries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Messages that were stored.
    pub stored: u64,
    /// Messages that left: for whatever reason they are no longer stored.
    pub left: u64,
}

/// The calls of a queue that have not ended, each counted once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallCounts {
    /// Calls that are due and do not run.
    pub waiting: u64,
    /// Calls that run; `None` if workers do not report that.
    pub running: Option<u64>,
    /// Delayed calls that are not due, as far as workers report them.
    pub scheduled: u64,
}

/// All queues, and all streams by their names.
#[derive(Clone, Debug, Default)]
pub struct QueueInventory {
    /// Where a queue's calls go. `None` if only dead letters of it are left.
    pub queues: BTreeMap<QueueName, Option<QueueEntry>>,
    /// By name.
    pub streams: HashMap<String, StreamSummary>,
}

impl QueueInventory {
    /// Returns all queues of the directory and of these streams. The directory takes precedence.
    #[must_use]
    pub fn new(
        directory: impl IntoIterator<Item = (QueueName, QueueEntry)>,
        streams: Vec<StreamSummary>,
    ) -> Self {
        let mut queues: BTreeMap<_, _> = streams
            .iter()
            .filter_map(StreamSummary::dead_letter_queue)
            .map(|queue| (queue, None))
            .collect();
        let calls = streams.iter().filter_map(StreamSummary::call_queue);
        queues.extend(calls.chain(directory).map(|(queue, entry)| (queue, Some(entry))));
        let streams = streams.into_iter().map(|summary| (summary.name.clone(), summary)).collect();
        Self { queues, streams }
    }

    /// Returns the stream of a queue's calls, if it exists.
    #[must_use]
    pub fn call_stream(&self, queue: &QueueName) -> Option<&StreamSummary> {
        self.streams.get(&self.queues.get(queue)?.as_ref()?.stream)
    }

    /// Counts the calls of a queue, of which its workers report how many run.
    #[must_use]
    pub fn count_calls(&self, queue: &QueueName, replies: &WorkerReplies) -> CallCounts {
        let stored = self.call_stream(queue).map_or(0, |stream| stream.messages);
        let running = replies.count().map(|(_, running)| running);
        let not_running = stored.saturating_sub(running.unwrap_or(0));
        let scheduled = replies.scheduled().min(not_running);
        CallCounts { waiting: not_running - scheduled, running, scheduled }
    }

    /// Returns how many messages a stream stores; 0 if it does not exist.
    #[must_use]
    pub fn messages(&self, stream: &str) -> u64 {
        self.streams.get(stream).map_or(0, |summary| summary.messages)
    }

    /// Returns the queues that may have a call. If its id names none of them, those whose streams
    /// held something are searched first: each search takes a few round trips.
    #[must_use]
    pub fn candidate_queues(&self, query: &CallQuery) -> CandidateQueues {
        let none = CandidateQueues { named: Vec::new(), rest: Vec::new() };
        let Some(any) = self.queues.keys().next() else { return none };
        let queues = self
            .queues
            .iter()
            // A deleted queue may still have dead letters.
            .map(|(queue, entry)| {
                let entry = entry.clone().unwrap_or_else(|| QueueEntry::with_default_names(queue));
                (queue.clone(), entry)
            })
            .collect();
        // The default queue would be searched too if it were not one of them.
        let directory = Directory { queues, ..Directory::default() };
        let CandidateQueues { named, rest } = candidate_queues(&directory, any, query);
        let (holding, empty): (Vec<_>, Vec<_>) =
            named.into_iter().partition(|place| self.holds_messages(place));
        if holding.is_empty() {
            return CandidateQueues { named: empty, rest };
        }
        CandidateQueues { named: holding, rest: [empty, rest].concat() }
    }

    fn holds_messages(&self, QueueLocation { queue, entry }: &QueueLocation) -> bool {
        let others = [queue.callback_stream(), queue.results_stream(), queue.dead_letter_stream()];
        self.messages(&entry.stream) > 0 || others.iter().any(|stream| self.messages(stream) > 0)
    }
}

impl StreamSummary {
    /// Reads the properties of all streams, 256 with one request.
    pub async fn read_all(js: &Context) -> Result<Vec<Self>, StreamsError> {
        js.streams().map_ok(Self::from_info).try_collect().await
    }

    /// Returns what came and left since an earlier summary. `None` if the stream was recreated
    /// since then.
    #[must_use]
    pub fn flow_since(&self, before: &Self) -> Option<Flow> {
        let stored = self.last_sequence.checked_sub(before.last_sequence)?;
        let left = before.messages.checked_add(stored)?.checked_sub(self.messages)?;
        Some(Flow { stored, left })
    }

    /// Returns the properties that the server reports of a stream.
    #[must_use]
    fn from_info(info: stream::Info) -> Self {
        let oldest = info.state.first_timestamp.unix_timestamp_nanos();
        Self {
            owner: info.config.metadata.get(META_OWNER).cloned(),
            owner_uid: info.config.metadata.get(META_OWNER_UID).cloned(),
            name: info.config.name,
            subjects: info.config.subjects,
            messages: info.state.messages,
            last_sequence: info.state.last_sequence,
            oldest: Timestamp::from_nanosecond(oldest).unwrap_or_default(),
        }
    }

    /// Returns the queue whose calls the stream stores, if it is a stream of AsyncQueue that stores
    /// calls.
    fn call_queue(&self) -> Option<(QueueName, QueueEntry)> {
        let owner = self.owner.as_ref()?;
        let subject =
            self.subjects.first().filter(|first| self.subjects == stream_subjects(first))?;
        // An AsyncQueue may give its stream another name. A stream that a worker created has the
        // name of the queue.
        let name = owner.split_once('/').map_or(self.name.as_str(), |(_, name)| name);
        let entry = QueueEntry::new(&*self.name, &**subject);
        Some((name.parse().ok()?, entry))
    }

    /// Returns the queue whose dead letters the stream stores, if it is a stream of AsyncQueue that
    /// stores dead letters.
    fn dead_letter_queue(&self) -> Option<QueueName> {
        let queue: QueueName = self.name.strip_suffix("-dead")?.parse().ok()?;
        let is_owned =
            self.owner.is_some() && self.subjects == [format!("{}.>", queue.dead_letter_stream())];
        is_owned.then_some(queue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call_id::CallId;

    fn summary(name: &str, owner: &str, subjects: &[&str]) -> StreamSummary {
        StreamSummary {
            name: name.to_owned(),
            subjects: subjects.iter().map(|&subject| subject.to_owned()).collect(),
            owner: Some(owner.to_owned()).filter(|owner| !owner.is_empty()),
            owner_uid: None,
            messages: 0,
            last_sequence: 0,
            oldest: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn the_pause_grows_with_the_streams_alone() {
        let (interval, seconds) = (Duration::from_secs(5), Duration::from_secs);
        for (streams, expected) in [(0, 5), (5_000, 5), (30_000, 30), (100_000, 100)] {
            assert_eq!(listing_pause(interval, streams), seconds(expected), "{streams}");
        }
    }

    #[test]
    fn flow_is_computed_from_sequences_and_counts() {
        let at = |last_sequence, messages| StreamSummary {
            messages,
            last_sequence,
            ..summary("jobs", "ns/jobs", &[])
        };
        let flow = |last_sequence, messages| at(last_sequence, messages).flow_since(&at(100, 9));
        let of = |stored, left| Some(Flow { stored, left });
        assert_eq!(flow(100, 9), of(0, 0));
        assert_eq!(flow(110, 9), of(10, 10));
        assert_eq!(flow(100, 0), of(0, 9));
        assert_eq!(flow(110, 19), of(10, 0));
        assert_eq!(flow(5, 5), None, "the stream was recreated");
        assert_eq!(flow(101, 20), None, "no stream has more than before and what was stored");
    }

    #[test]
    fn queues_come_from_the_directory_and_from_streams() {
        let streams = [
            summary("named", "ns/named", &["named", "named.>"]),
            summary("OTHER", "ns/other", &["jobs.other", "jobs.other.>"]),
            summary("alone", "standalone", &["alone", "alone.>"]),
            summary("alone-callbacks", "standalone", &["alone-callbacks.>"]),
            summary("alone-dead", "standalone", &["alone-dead.>"]),
            summary("left-dead", "ns/left", &["left-dead.>"]),
            summary("foreign", "", &["foreign", "foreign.>"]),
            summary("foreign-dead", "", &["foreign-dead.>"]),
        ];
        let entry = |stream: &str, subject: &str| QueueEntry::new(stream, subject);
        let directory = BTreeMap::from([("named".parse().unwrap(), entry("named", "set"))]);
        let inventory = QueueInventory::new(directory, streams.to_vec());
        let queues: Vec<_> =
            inventory.queues.iter().map(|(queue, entry)| (queue.as_str(), entry.clone())).collect();
        assert_eq!(
            queues,
            [
                ("alone", Some(entry("alone", "alone"))),
                ("left", None),
                ("named", Some(entry("named", "set"))),
                ("other", Some(entry("OTHER", "jobs.other"))),
            ]
        );
    }

    fn places(queues: &[&str], call: &CallId) -> Vec<String> {
        let queues = queues.iter().map(|queue| (queue.parse().unwrap(), None)).collect();
        let query = CallQuery { id: call.clone(), function: None };
        let places =
            QueueInventory { queues, ..QueueInventory::default() }.candidate_queues(&query);
        let mut names: Vec<String> =
            places.named.into_iter().map(|place| place.queue.to_string()).collect();
        names.sort();
        names
    }

    #[test]
    fn id_selects_its_queue_or_all_queues() {
        let generated = CallId::generate(&"slow".parse().unwrap());
        assert_eq!(places(&["fast", "slow"], &generated), ["slow"]);
        assert_eq!(places(&["fast", "slow"], &"own".parse().unwrap()), ["fast", "slow"]);
        assert!(places(&[], &generated).is_empty());
    }

    #[test]
    fn queues_that_hold_something_are_searched_first() {
        let dead = StreamSummary { messages: 1, ..summary("fast-dead", "ns/fast", &[]) };
        let queues = ["fast", "slow"].map(|queue| (queue.parse().unwrap(), None));
        let inventory = QueueInventory {
            queues: queues.into(),
            streams: HashMap::from([("fast-dead".to_owned(), dead)]),
        };
        let query = CallQuery { id: "own".parse().unwrap(), function: None };
        let CandidateQueues { named, rest } = inventory.candidate_queues(&query);
        let names = |places: Vec<QueueLocation>| -> Vec<String> {
            places.into_iter().map(|place| place.queue.to_string()).collect()
        };
        assert_eq!((names(named), names(rest)), (vec!["fast".to_owned()], vec!["slow".to_owned()]));
    }
}
