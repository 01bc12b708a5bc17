//! Waits for the result of a call.

use async_nats::{Client, Subscriber};
use futures::StreamExt;

use crate::{
    call_id::CallId,
    jetstream::NatsError,
    kept_results::done_subject,
    message::kept_result::KeptResult,
    names::{FunctionName, QueueName},
};

/// A wait for the result of a call. A worker stores the result, and the server publishes it again
/// at once. The wait has a subscription for its call alone, which ends when the wait is dropped.
#[derive(Debug)]
pub struct ResultWait {
    results: Subscriber,
}

// === impl ResultWait ===

impl ResultWait {
    /// Begins to wait for the result of a call. Begin before the call is stored: an earlier result
    /// is not seen.
    pub async fn begin(
        client: &Client,
        queue: &QueueName,
        function: &FunctionName,
        call_id: &CallId,
    ) -> Result<Self, NatsError> {
        Self::begin_on(client, done_subject(queue, function, call_id)).await
    }

    /// Begins to wait for what is published on the subject of a call.
    #[doc(hidden)]
    pub async fn begin_on(client: &Client, subject: String) -> Result<Self, NatsError> {
        let results = client.subscribe(subject).await;
        let results = results.map_err(NatsError::during("subscribe to the result of a call"))?;
        Ok(Self { results })
    }

    /// Returns the next result of the call; `None` if the connection is closed. `sequence` is the
    /// one at which the call is stored, if it is known: other calls may have the same id.
    pub async fn next(&mut self, sequence: Option<u64>) -> Option<KeptResult> {
        while let Some(message) = self.results.next().await {
            let headers = message.headers.unwrap_or_default();
            // A message without the headers of a result says that one is not kept any more.
            let Ok(result) = KeptResult::decode(&headers, message.payload) else { continue };
            if sequence.is_none_or(|sequence| sequence == result.sequence) {
                return Some(result);
            }
        }
        None
    }
}
