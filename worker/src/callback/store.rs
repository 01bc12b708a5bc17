//! Stores results in the queue's stream of callbacks.

use async_nats::jetstream::{
    Context, context::PublishError, message::PublishMessage, publish::PublishAck,
};
use asyncqueue::{QueueName, message::callback::Callback, subject::result_subject};

/// Stores results in the stream of callbacks of a queue.
#[derive(Clone, Debug)]
pub(crate) struct ResultStore {
    js: Context,
    queue: QueueName,
}

impl ResultStore {
    pub(crate) fn new(js: Context, queue: &QueueName) -> Self {
        Self { js, queue: queue.clone() }
    }

    /// Stores a result. A result that is stored already counts as stored: the ack says that this
    /// one is a duplicate. The earlier one is from a worker that ran the call too, or from a
    /// cancellation.
    pub(crate) async fn put(&self, callback: &Callback) -> Result<PublishAck, PublishError> {
        let Callback { function, call_id, sequence, .. } = callback;
        let subject = result_subject(&self.queue, function, call_id, *sequence);
        let message =
            PublishMessage::build().headers(callback.encode()).payload(callback.body.clone());
        self.js.send_publish(subject, message).await?.await
    }
}
