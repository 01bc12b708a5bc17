//! Opens and creates the KV buckets that the queues share.

use std::time::Duration;

use async_nats::jetstream::{
    self, Context,
    context::{CreateStreamError, CreateStreamErrorKind},
    kv,
};
use tracing::debug;

pub use poll::{PollEvent, poll_bucket};

use crate::error::find_cause;

mod poll;

/// Describes a KV bucket: its name and how long it keeps entries.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    /// Name of the bucket.
    pub name: &'static str,
    /// Description of the content, for `nats kv ls`.
    pub description: &'static str,
    /// How long an entry is kept. `None`: until it is deleted.
    pub max_age: Option<Duration>,
}

/// A bucket could not be read or written. The next attempt starts from the beginning.
#[derive(Debug, thiserror::Error)]
#[error("failed to {action} the KV bucket {bucket}")]
pub struct BucketError {
    action: &'static str,
    bucket: &'static str,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// Returns the server's own answer, if that is why an operation on a bucket failed. An answer that
/// is the kind of an error is not among its causes, so the kinds are checked too.
pub(crate) fn api_error(error: &(dyn std::error::Error + 'static)) -> Option<jetstream::Error> {
    let kind = find_cause::<CreateStreamError>(error).map(CreateStreamError::kind);
    match kind {
        Some(CreateStreamErrorKind::JetStream(refusal)) => Some(refusal),
        _ => find_cause::<jetstream::Error>(error).cloned(),
    }
}

impl Bucket {
    /// Opens the bucket.
    pub async fn open(&self, js: &Context) -> Result<kv::Store, BucketError> {
        js.get_key_value(self.name).await.map_err(self.failed("open"))
    }

    /// Opens the bucket, and creates it if it does not exist. It then has at least `replicas`
    /// replicas. If NATS has fewer servers, an existing bucket keeps its replicas, and a new one is
    /// created with one.
    pub async fn ensure(&self, js: &Context, replicas: usize) -> Result<kv::Store, BucketError> {
        if let Ok(store) = self.open(js).await {
            self.raise_replicas(js, &store, replicas).await;
            return Ok(store);
        }
        let created = js.create_key_value(self.config(replicas)).await;
        let created = match created {
            // One queue that requests too many replicas must not prevent all others from having the
            // bucket.
            Err(error) if replicas > 1 && api_error(&error).is_some() => {
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

    /// Raises the number of replicas, and never lowers it: others may need more than this program.
    async fn raise_replicas(&self, js: &Context, store: &kv::Store, replicas: usize) {
        let mut config = store.stream.cached_info().config.clone();
        if config.num_replicas >= replicas {
            return;
        }
        config.num_replicas = replicas;
        // Programs that request so many have streams with as many replicas, and report why they
        // can't have them.
        if let Err(error) = js.update_stream(config).await {
            debug!(
                bucket = self.name, replicas, %error,
                "failed to raise the replicas of a bucket"
            );
        }
    }

    /// Returns the name of the stream that holds the entries.
    #[must_use]
    pub fn stream(&self) -> String {
        format!("KV_{}", self.name)
    }

    /// Returns the subject of a key, which may hold wildcards. Reading or writing a subject is one
    /// request to the stream; opening the bucket first would be another.
    #[must_use]
    pub fn subject(&self, key: &str) -> String {
        format!("$KV.{}.{key}", self.name)
    }

    /// Returns a function that turns the cause of a failed action into an error.
    pub(crate) fn failed<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
        &self,
        action: &'static str,
    ) -> impl Fn(E) -> BucketError + Copy + use<E> {
        let bucket = self.name;
        move |error| BucketError { action, bucket, source: error.into() }
    }
}
