//! Reads the end of a call from a result that waits for delivery. The first result of a call that
//! is stored counts. A later one is answered as a duplicate, with the sequence of the first.

use async_nats::jetstream::{Context, message::StreamMessage};
use bytes::Bytes;

use crate::{
    call::CallRef,
    end_state::EndState,
    jetstream::{self, NatsError},
    message::callback::Callback,
    names::QueueName,
    subject::call_filter,
    tombstone,
};

/// Returns the end in the result of a call, at a sequence of its queue's stream of results. `None`
/// if the result was delivered and removed, unless it was that of a cancellation, which is
/// recorded.
pub async fn end_at(
    js: &Context,
    queue: &QueueName,
    call: &CallRef,
    sequence: u64,
) -> Result<Option<EndState>, NatsError> {
    let result = jetstream::message_at(js, &queue.callback_stream(), sequence).await?;
    known_end(js, queue, call, result).await
}

/// Returns the end in the result of a call. `None` if no result is stored now and none of a
/// cancellation was recorded.
pub(crate) async fn end_of_call(
    js: &Context,
    queue: &QueueName,
    call: &CallRef,
) -> Result<Option<EndState>, NatsError> {
    let stream = queue.callback_stream();
    let subject = format!("{}.{}", call_filter(&stream, None, &call.id), call.sequence);
    let result = jetstream::last_message(js, &stream, &subject).await?;
    known_end(js, queue, call, result).await
}

async fn known_end(
    js: &Context,
    queue: &QueueName,
    call: &CallRef,
    result: Option<StreamMessage>,
) -> Result<Option<EndState>, NatsError> {
    match result {
        Some(result) => Ok(end_of(&result)),
        None => {
            Ok(tombstone::is_result_recorded(js, queue, call).await?.then_some(EndState::Cancelled))
        }
    }
}

fn end_of(result: &StreamMessage) -> Option<EndState> {
    Callback::decode(&result.headers, Bytes::new()).ok().map(|result| result.end)
}
