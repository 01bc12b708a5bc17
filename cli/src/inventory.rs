//! Finds all queues: those of the directory, and those whose streams have the owner mark of
//! AsyncQueue.
//!
//! The operator writes the directory. If there is no operator, or if a deleted queue has left
//! streams behind, the streams themselves name their owner.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use anyhow::Context as _;
use async_nats::jetstream::{Context, context::GetStreamError, kv::Store, stream};
use asyncqueue::{
    QueueName,
    buckets::DIRECTORY,
    directory::{Directory, Key, QueueEntry},
    jetstream::is_stream_not_found,
    stream::META_OWNER,
    subject::stream_subjects,
};
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use tokio::time::timeout;

/// Maximum number of concurrent reads of directory entries, each a round trip.
const MAX_CONCURRENT_READS: usize = 64;

/// Maximum time for listing the directory's entries.
const LIST_TIMEOUT: Duration = Duration::from_secs(10);

/// The properties of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StreamSummary {
    pub(crate) name: String,
    pub(crate) subjects: Vec<String>,
    /// `namespace/name` of the `AsyncQueue`, or another text if no operator created the stream.
    /// `None` if it is not a stream of AsyncQueue.
    pub(crate) owner: Option<String>,
    pub(crate) messages: u64,
    /// When the oldest message was stored. Undefined if there are no messages.
    pub(crate) oldest: Timestamp,
}

/// All queues, and all streams by their names.
#[derive(Debug, Default)]
pub(crate) struct QueueInventory {
    /// Where a queue's calls go. `None` if only dead letters of it are left.
    pub(crate) queues: BTreeMap<QueueName, Option<QueueEntry>>,
    pub(crate) streams: HashMap<String, StreamSummary>,
}

/// Reads all queues and streams.
pub(crate) async fn read(js: &Context) -> anyhow::Result<QueueInventory> {
    let streams: Vec<StreamSummary> = js
        .streams()
        .map_ok(StreamSummary::from_info)
        .try_collect()
        .await
        .context("failed to list the streams")?;
    let directory = timeout(LIST_TIMEOUT, read_directory(js))
        .await
        .context("failed to read the directory")??;
    let queues = merge(&directory, &streams);
    Ok(QueueInventory {
        queues,
        streams: streams.into_iter().map(|summary| (summary.name.clone(), summary)).collect(),
    })
}

/// Returns the entry of a queue, which says where its calls go.
pub(crate) async fn queue_entry(js: &Context, queue: &QueueName) -> anyhow::Result<QueueEntry> {
    if let Some(store) = open_directory(js).await?
        && let Some(entry) = read_entry(&store, queue).await?
    {
        return Ok(entry);
    }
    read(js).await?.queues.remove(queue).flatten().with_context(|| {
        format!("there is no queue `{queue}`: `kubectl aq queues` lists all queues")
    })
}

impl QueueInventory {
    /// Returns the stream of a queue's calls, if it exists.
    pub(crate) fn call_stream(&self, queue: &QueueName) -> Option<&StreamSummary> {
        self.streams.get(&self.queues.get(queue)?.as_ref()?.stream)
    }
}

impl StreamSummary {
    fn from_info(info: stream::Info) -> Self {
        let oldest = info.state.first_timestamp.unix_timestamp_nanos();
        Self {
            owner: info.config.metadata.get(META_OWNER).cloned(),
            name: info.config.name,
            subjects: info.config.subjects,
            messages: info.state.messages,
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

/// Returns all queues. The directory takes precedence.
fn merge(
    directory: &BTreeMap<QueueName, QueueEntry>,
    streams: &[StreamSummary],
) -> BTreeMap<QueueName, Option<QueueEntry>> {
    let mut queues: BTreeMap<_, _> = streams
        .iter()
        .filter_map(StreamSummary::dead_letter_queue)
        .map(|queue| (queue, None))
        .collect();
    let calls = streams.iter().filter_map(StreamSummary::call_queue);
    let entries = directory.iter().map(|(queue, entry)| (queue.clone(), entry.clone()));
    queues.extend(calls.chain(entries).map(|(queue, entry)| (queue, Some(entry))));
    queues
}

/// Reads the directory's queues. Returns an empty map if there is no directory.
async fn read_directory(js: &Context) -> anyhow::Result<BTreeMap<QueueName, QueueEntry>> {
    let Some(store) = open_directory(js).await? else { return Ok(BTreeMap::new()) };
    let keys: Vec<String> = store.keys().await?.try_collect().await?;
    let queues = keys.iter().filter_map(|key| match Key::parse(key) {
        Some(Key::Queue(queue)) => Some(queue),
        _ => None,
    });
    futures::stream::iter(queues)
        .map(async |queue| Ok(read_entry(&store, &queue).await?.map(|entry| (queue, entry))))
        .buffer_unordered(MAX_CONCURRENT_READS)
        .try_filter_map(async |entry| Ok(entry))
        .try_collect()
        .await
}

/// Opens the directory's bucket. Returns `None` if it does not exist.
pub(crate) async fn open_directory(js: &Context) -> anyhow::Result<Option<Store>> {
    match DIRECTORY.open(js).await.map_err(anyhow::Error::from) {
        Ok(store) => Ok(Some(store)),
        Err(error) if is_missing_bucket(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns whether the cause of an error is that the stream does not exist.
fn is_missing_bucket(error: &anyhow::Error) -> bool {
    let cause = error.chain().find_map(|cause| cause.downcast_ref::<GetStreamError>());
    cause.is_some_and(is_stream_not_found)
}

async fn read_entry(store: &Store, queue: &QueueName) -> anyhow::Result<Option<QueueEntry>> {
    let key = Key::Queue(queue.clone());
    let value =
        store.get(key.to_string()).await.with_context(|| format!("failed to read {key}"))?;
    let mut directory = Directory::default();
    directory
        .apply(&key, value.as_deref())
        .with_context(|| format!("{key} in the KV bucket {} is not valid", DIRECTORY.name))?;
    Ok(directory.queues.remove(queue))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(name: &str, owner: &str, subjects: &[&str]) -> StreamSummary {
        StreamSummary {
            name: name.to_owned(),
            subjects: subjects.iter().map(|&subject| subject.to_owned()).collect(),
            owner: Some(owner.to_owned()).filter(|owner| !owner.is_empty()),
            messages: 0,
            oldest: Timestamp::UNIX_EPOCH,
        }
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
        let queues = merge(&directory, &streams);
        let queues: Vec<_> =
            queues.iter().map(|(queue, entry)| (queue.as_str(), entry.clone())).collect();
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
}
