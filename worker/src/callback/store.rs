//! Hands a result over to the queue's stream of callbacks.

use async_nats::jetstream::{
    Context,
    context::{PublishError, PublishErrorKind},
    message::PublishMessage,
};
use asyncqueue::{QueueName, message::callback::Callback, subject::result_subject};

/// The queue's stream of callbacks.
#[derive(Clone, Debug)]
pub(crate) struct CallbackStore {
    js: Context,
    queue: QueueName,
}

/// Why a result is not on the stream.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// Trying again does not help: it is larger than NATS takes.
    #[error("it can't be stored: {0}")]
    Never(PublishError),
    /// There is no such stream, or no server leads it now.
    #[error("there is no stream for it: {0}")]
    NoStream(PublishError),
    /// NATS is away, or the stream is full.
    #[error("it can't be stored now: {0}")]
    NotNow(PublishError),
}

// === impl CallbackStore ===

impl CallbackStore {
    pub(crate) fn new(js: Context, queue: &QueueName) -> Self {
        Self { js, queue: queue.clone() }
    }

    /// Stores a result. One that is stored already, by a worker that ran the call too, counts as stored.
    pub(crate) async fn put(&self, callback: &Callback) -> Result<(), StoreError> {
        let Callback { function, call_id, sequence, .. } = callback;
        let subject = result_subject(&self.queue, function, call_id, *sequence);
        let message = PublishMessage::build().headers(callback.encode()).payload(callback.body.clone());
        let publish = async { self.js.send_publish(subject, message).await?.await };
        match publish.await {
            Ok(_) => Ok(()),
            Err(error) => Err(match error.kind() {
                PublishErrorKind::MaxPayloadExceeded => StoreError::Never(error),
                PublishErrorKind::StreamNotFound => StoreError::NoStream(error),
                _ => StoreError::NotNow(error),
            }),
        }
    }
}
