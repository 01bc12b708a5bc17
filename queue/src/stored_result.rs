//! What a result that waits for delivery says of the end of its call. The first result of a call that is stored counts: a
//! later one is answered as a duplicate, with the sequence of the first.

use async_nats::jetstream::{Context, message::StreamMessage};
use bytes::Bytes;

use crate::{
    end_state::EndState,
    message::callback::Callback,
    name::QueueName,
    peek::{self, NatsError},
    stored_call::StoredCall,
    subject::call_filter,
};

/// The end that the result at a sequence of a queue's stream of results says; `None` if it is delivered and gone.
pub async fn end_at(js: &Context, queue: &QueueName, sequence: u64) -> Result<Option<EndState>, NatsError> {
    let result = peek::message_at(js, &queue.callback_stream(), sequence).await?;
    Ok(result.and_then(|result| end_of(&result)))
}

/// The end that the result of a call says; `None` if none is stored now.
pub(crate) async fn end_of_call(
    js: &Context,
    queue: &QueueName,
    call: &StoredCall,
) -> Result<Option<EndState>, NatsError> {
    let stream = queue.callback_stream();
    let subject = format!("{}.{}", call_filter(&stream, None, &call.id), call.sequence);
    let result = peek::last_message(js, &stream, &subject).await?;
    Ok(result.and_then(|result| end_of(&result)))
}

fn end_of(result: &StreamMessage) -> Option<EndState> {
    Callback::decode(&result.headers, Bytes::new()).ok().map(|result| result.end)
}
