//! Hands a result over to the queue's stream of callbacks.

use async_nats::jetstream::{Context, context::PublishError, message::PublishMessage, publish::PublishAck};
use asyncqueue::{QueueName, message::callback::Callback, subject::result_subject};

/// The queue's stream of callbacks.
#[derive(Clone, Debug)]
pub(crate) struct ResultStore {
    js: Context,
    queue: QueueName,
}

impl ResultStore {
    pub(crate) fn new(js: Context, queue: &QueueName) -> Self {
        Self { js, queue: queue.clone() }
    }

    /// Stores a result. One that is stored already, by a worker that ran the call too or for a cancellation, counts as
    /// stored: the acknowledgement says that it is a duplicate.
    pub(crate) async fn put(&self, callback: &Callback) -> Result<PublishAck, PublishError> {
        let Callback { function, call_id, sequence, .. } = callback;
        let subject = result_subject(&self.queue, function, call_id, *sequence);
        let message = PublishMessage::build().headers(callback.encode()).payload(callback.body.clone());
        self.js.send_publish(subject, message).await?.await
    }
}
