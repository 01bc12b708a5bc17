//! Hands a result over to the queue's stream of callbacks.

use async_nats::jetstream::{
    Context,
    context::{PublishError, PublishErrorKind},
    message::PublishMessage,
};
use asyncqueue::{QueueName, message::callback::Callback, subject::call_subject};

/// The queue's stream of callbacks.
#[derive(Clone, Debug)]
pub(crate) struct CallbackStore {
    js: Context,
    stream: String,
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
        Self { js, stream: queue.callback_stream() }
    }

    /// Stores the result of the call at `sequence` of the queue's stream. One that is stored already, by a worker that ran the call too, counts as stored.
    pub(crate) async fn put(&self, callback: &Callback, sequence: u64) -> Result<(), StoreError> {
        let subject = call_subject(&self.stream, &callback.function, &callback.call_id);
        let message =
            PublishMessage::build().headers(callback.encode(sequence)).payload(callback.body.clone());
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
