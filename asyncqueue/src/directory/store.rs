//! Writes the directory.

use std::collections::HashMap;

use async_nats::jetstream::{Context, kv};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};

use super::{Change, Contents, Directory, Key, MARKER};
use crate::{buckets::DIRECTORY, kv::BucketError};

/// Number of concurrent requests. Each is a round trip: with so many, ten thousand take a second.
const MAX_CONCURRENT_REQUESTS: usize = 64;

/// Value of the marker. Fields are reserved for later versions.
const MARKER_VALUE: &str = "{}";

/// The KV bucket, for its only writer.
#[derive(Clone, Debug)]
pub struct DirectoryStore {
    bucket: kv::Store,
}

impl DirectoryStore {
    /// Opens the bucket, and creates it if it does not exist, with at least `replicas` replicas.
    pub async fn open(js: &Context, replicas: usize) -> Result<Self, BucketError> {
        let bucket = DIRECTORY.ensure(js, replicas).await?;
        Ok(Self { bucket })
    }

    /// Updates the bucket to `wanted` and returns how many entries changed. Writes only entries
    /// that differ, leaves unknown keys as they are, and writes the marker last: the directory is
    /// then complete.
    pub async fn sync(&self, wanted: &Directory) -> Result<usize, BucketError> {
        let keys = self.keys().await?;
        // As bytes: an entry that can't be read differs from all others.
        let mut current = self.read(&keys).await?;
        let wanted = Directory::default().changes_to(wanted).map_err(DIRECTORY.failed("encode"))?;
        let mut is_other =
            |(key, value): &Change| current.remove(key).as_deref() != value.as_deref();
        let mut changes: Vec<_> = wanted.into_iter().filter(|change| is_other(change)).collect();
        changes.extend(current.into_keys().map(|key| (key, None)));
        self.write(changes, keys.iter().any(|key| key == MARKER)).await
    }

    /// Does the same for a program that follows the bucket and so knows its content.
    pub async fn update(
        &self,
        current: &Contents,
        wanted: &Directory,
    ) -> Result<usize, BucketError> {
        let changes = current.directory.changes_to(wanted).map_err(DIRECTORY.failed("encode"))?;
        self.write(changes, current.is_complete).await
    }

    async fn write(&self, changes: Vec<Change>, is_marked: bool) -> Result<usize, BucketError> {
        let count = changes.len();
        let written = futures::stream::iter(changes).map(async |(key, value)| match value {
            Some(value) => self
                .bucket
                .put(key.to_string(), value.into())
                .await
                .map(drop)
                .map_err(DIRECTORY.failed("write")),
            None => self.bucket.delete(key.to_string()).await.map_err(DIRECTORY.failed("write")),
        });
        written
            .buffer_unordered(MAX_CONCURRENT_REQUESTS)
            .try_for_each(|()| std::future::ready(Ok(())))
            .await?;
        if !is_marked {
            self.bucket
                .put(MARKER, MARKER_VALUE.into())
                .await
                .map_err(DIRECTORY.failed("write"))?;
        }
        Ok(count)
    }

    async fn keys(&self) -> Result<Vec<String>, BucketError> {
        let keys = self.bucket.keys().await.map_err(DIRECTORY.failed("read"))?;
        keys.try_collect().await.map_err(DIRECTORY.failed("read"))
    }

    async fn read(&self, keys: &[String]) -> Result<HashMap<Key, Bytes>, BucketError> {
        let known: Vec<Key> = keys.iter().filter_map(|text| Key::parse(text)).collect();
        futures::stream::iter(known)
            .map(async |key| {
                Ok((self.bucket.get(key.to_string()).await.map_err(DIRECTORY.failed("read"))?, key))
            })
            .buffer_unordered(MAX_CONCURRENT_REQUESTS)
            .try_filter_map(async |(value, key)| Ok(value.map(|value| (key, value))))
            .try_collect()
            .await
    }
}
