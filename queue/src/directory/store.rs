//! Writes the directory.

use std::collections::HashMap;

use async_nats::jetstream::{Context, kv};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};

use super::{BUCKET, Directory, Key};
use crate::bucket::BucketError;

/// The KV bucket, for its one writer.
#[derive(Clone, Debug)]
pub struct DirectoryStore {
    bucket: kv::Store,
}

impl DirectoryStore {
    /// Opens the bucket, and creates it where there is none. `replicas` is for a new one.
    pub async fn open(js: &Context, replicas: usize) -> Result<Self, BucketError> {
        let bucket = BUCKET.ensure(js, replicas).await?;
        Ok(Self { bucket })
    }

    /// Brings the bucket to `wanted` and returns how many entries that changed. Writes only what differs, and
    /// leaves keys alone that it doesn't know.
    pub async fn sync(&self, wanted: &Directory) -> Result<usize, BucketError> {
        let current = self.read().await?;
        let wanted = wanted.entries().map_err(BUCKET.failed("encode"))?;
        let mut changed = 0;
        for (key, value) in &wanted {
            if current.get(key).is_none_or(|now| now[..] != value[..]) {
                self.bucket
                    .put(key.to_string(), value.clone().into())
                    .await
                    .map_err(BUCKET.failed("write"))?;
                changed += 1;
            }
        }
        for key in current.keys().filter(|key| !wanted.contains_key(key)) {
            self.bucket.delete(key.to_string()).await.map_err(BUCKET.failed("write"))?;
            changed += 1;
        }
        Ok(changed)
    }

    async fn read(&self) -> Result<HashMap<Key, Bytes>, BucketError> {
        let keys: Vec<String> = self
            .bucket
            .keys()
            .await
            .map_err(BUCKET.failed("read"))?
            .try_collect()
            .await
            .map_err(BUCKET.failed("read"))?;
        let known = keys.into_iter().filter_map(|text| Key::parse(&text));
        futures::stream::iter(known)
            .map(async |key| {
                Ok((self.bucket.get(key.to_string()).await.map_err(BUCKET.failed("read"))?, key))
            })
            // A round trip each: enough of them at once that ten thousand take a second.
            .buffer_unordered(64)
            .try_filter_map(async |(value, key)| Ok(value.map(|value| (key, value))))
            .try_collect()
            .await
    }
}
