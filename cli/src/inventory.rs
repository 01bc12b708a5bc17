//! Finds all queues: those of the directory, and those whose streams have the owner mark of
//! AsyncQueue.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context as _;
use async_nats::jetstream::{Context, context::GetStreamError, kv::Store};
use asyncqueue::{
    QueueName,
    buckets::DIRECTORY,
    directory::{Directory, Key, QueueEntry},
    inventory::StreamSummary,
    jetstream::is_stream_not_found,
};
use futures::{StreamExt, TryStreamExt};
use tokio::time::timeout;

pub(crate) use asyncqueue::inventory::QueueInventory;

/// Maximum number of concurrent reads of directory entries, each a round trip.
const MAX_CONCURRENT_READS: usize = 64;

/// Maximum time for listing the directory's entries.
const LIST_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads all queues and streams.
pub(crate) async fn read(js: &Context) -> anyhow::Result<QueueInventory> {
    let streams = StreamSummary::read_all(js).await.context("failed to list the streams")?;
    let directory = timeout(LIST_TIMEOUT, read_directory(js))
        .await
        .context("failed to read the directory")??;
    Ok(QueueInventory::new(directory, streams))
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
