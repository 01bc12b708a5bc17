//! The KV buckets beside the streams.

use std::time::Duration;

use async_nats::jetstream::{Context, kv};

/// A KV bucket: what it is called and how long it keeps things.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    /// Its name.
    pub name: &'static str,
    /// What it holds, for `nats kv ls`.
    pub description: &'static str,
    /// How long an entry is kept; `None`: until it is deleted.
    pub max_age: Option<Duration>,
}

/// Why a bucket could not be read or written; the next attempt starts anew.
#[derive(Debug, thiserror::Error)]
#[error("could not {action} the KV bucket {bucket}")]
pub struct BucketError {
    action: &'static str,
    bucket: &'static str,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl Bucket {
    /// Opens the bucket.
    pub async fn open(&self, js: &Context) -> Result<kv::Store, BucketError> {
        js.get_key_value(self.name).await.map_err(self.failed("open"))
    }

    /// Opens the bucket, and creates it where there is none. `replicas` is for a new one.
    pub async fn ensure(&self, js: &Context, replicas: usize) -> Result<kv::Store, BucketError> {
        if let Ok(store) = self.open(js).await {
            return Ok(store);
        }
        let config = kv::Config {
            bucket: self.name.to_owned(),
            description: format!("AsyncQueue: {}", self.description),
            history: 1,
            max_age: self.max_age.unwrap_or_default(),
            num_replicas: replicas,
            ..kv::Config::default()
        };
        js.create_key_value(config).await.map_err(self.failed("create"))
    }

    /// The stream that holds the entries.
    #[must_use]
    pub fn stream(&self) -> String {
        format!("KV_{}", self.name)
    }

    /// The subject of a key, which may hold wildcards. A read or a write of one is one request to its stream, where
    /// opening the bucket takes another.
    #[must_use]
    pub fn subject(&self, key: &str) -> String {
        format!("$KV.{}.{key}", self.name)
    }

    /// Makes an error of a failed action.
    pub(crate) fn failed<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
        &self,
        action: &'static str,
    ) -> impl Fn(E) -> BucketError + Copy + use<E> {
        let bucket = self.name;
        move |error| BucketError { action, bucket, source: error.into() }
    }
}
