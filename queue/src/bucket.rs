//! The KV buckets beside the streams.

use std::time::Duration;

use async_nats::jetstream::{
    self, Context,
    context::{CreateStreamError, CreateStreamErrorKind},
    kv,
};
use tracing::debug;

use crate::error::cause;

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

/// The server's own answer, if that is why something could not be done with a bucket. Where it is the kind of an error, it is
/// none of the causes.
pub(crate) fn refusal(error: &(dyn std::error::Error + 'static)) -> Option<jetstream::Error> {
    let kind = cause::<CreateStreamError>(error).map(CreateStreamError::kind);
    match kind {
        Some(CreateStreamErrorKind::JetStream(refusal)) => Some(refusal),
        _ => cause::<jetstream::Error>(error).cloned(),
    }
}

impl Bucket {
    /// Opens the bucket.
    pub async fn open(&self, js: &Context) -> Result<kv::Store, BucketError> {
        js.get_key_value(self.name).await.map_err(self.failed("open"))
    }

    /// Opens the bucket, and creates it where there is none. It has at least so many replicas then; where NATS has not so
    /// many servers, it keeps those that it has, or is created with one.
    pub async fn ensure(&self, js: &Context, replicas: usize) -> Result<kv::Store, BucketError> {
        if let Ok(store) = self.open(js).await {
            self.raise_replicas(js, &store, replicas).await;
            return Ok(store);
        }
        let created = js.create_key_value(self.config(replicas)).await;
        let created = match created {
            // One queue that asks for too many replicas does not keep the bucket from all others.
            Err(error) if replicas > 1 && refusal(&error).is_some() => {
                js.create_key_value(self.config(1)).await
            }
            created => created,
        };
        created.map_err(self.failed("create"))
    }

    fn config(&self, replicas: usize) -> kv::Config {
        kv::Config {
            bucket: self.name.to_owned(),
            description: format!("AsyncQueue: {}", self.description),
            history: 1,
            max_age: self.max_age.unwrap_or_default(),
            num_replicas: replicas,
            ..kv::Config::default()
        }
    }

    /// Raises the number of replicas, and never lowers it: others may want more than this program.
    async fn raise_replicas(&self, js: &Context, store: &kv::Store, replicas: usize) {
        let mut config = store.stream.cached_info().config.clone();
        if config.num_replicas >= replicas {
            return;
        }
        config.num_replicas = replicas;
        // Those who ask for it have streams of their own with as many, and say why these can't be had.
        if let Err(error) = js.update_stream(config).await {
            debug!(bucket = self.name, replicas, %error, "the replicas of a KV bucket can't be raised");
        }
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
