//! Looks at what NATS knows of a call without taking anything away: messages on streams, and workers' words.

use std::time::Duration;

use async_nats::{
    Client, Message,
    jetstream::{
        Context, ErrorCode,
        message::StreamMessage,
        stream::{RawMessageError, RawMessageErrorKind, Stream},
    },
};
use bytes::Bytes;
use futures::StreamExt;
use tokio::time::{Instant, timeout_at};

/// How long workers have to answer a question. They answer within a millisecond or not at all.
const ANSWERS: Duration = Duration::from_millis(250);

/// NATS is away or refused. A repeat is safe.
#[derive(Debug, thiserror::Error)]
#[error("NATS could not {action}")]
pub struct NatsError {
    /// What was asked of it.
    action: &'static str,
    /// How it failed.
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// Makes an error of a failed action.
pub(crate) fn failed<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    action: &'static str,
) -> impl Fn(E) -> NatsError {
    move |error| NatsError { action, source: error.into() }
}

/// A stream, whether it is there or not.
pub(crate) async fn stream(js: &Context, name: &str) -> Result<Stream<()>, NatsError> {
    js.get_stream_no_info(name).await.map_err(failed("open the stream"))
}

/// The last message of a stream on a subject, which may hold wildcards; `None` also where there is no such stream.
/// Asked of the stream's leader: a call is found as soon as its 202 was sent. Of headers with one name, as each HTTP
/// header of a call is, the client keeps the last alone: good for reading what a call is, and not for storing it again.
pub(crate) async fn last_message(
    js: &Context,
    stream_name: &str,
    subject: &str,
) -> Result<Option<StreamMessage>, NatsError> {
    found(
        stream(js, stream_name).await?.raw_message_builder().last_by_subject(subject.to_owned()).send().await,
    )
}

/// The first message of a stream on a subject, as [`last_message`].
pub(crate) async fn first_message(
    js: &Context,
    stream_name: &str,
    subject: &str,
) -> Result<Option<StreamMessage>, NatsError> {
    found(
        stream(js, stream_name).await?.raw_message_builder().next_by_subject(subject.to_owned()).send().await,
    )
}

/// Whether a stream holds a message at a sequence.
pub async fn is_stored(js: &Context, stream_name: &str, sequence: u64) -> Result<bool, NatsError> {
    Ok(message_at(js, stream_name, sequence).await?.is_some())
}

/// The message of a stream at a sequence, as [`last_message`].
pub(crate) async fn message_at(
    js: &Context,
    stream_name: &str,
    sequence: u64,
) -> Result<Option<StreamMessage>, NatsError> {
    found(stream(js, stream_name).await?.raw_message_builder().sequence(sequence).send().await)
}

fn found(answer: Result<StreamMessage, RawMessageError>) -> Result<Option<StreamMessage>, NatsError> {
    match answer {
        Ok(message) => Ok(Some(message)),
        Err(error) => match error.kind() {
            RawMessageErrorKind::NoMessageFound => Ok(None),
            RawMessageErrorKind::JetStream(refused)
                if refused.error_code() == ErrorCode::STREAM_NOT_FOUND =>
            {
                Ok(None)
            }
            _ => Err(failed("look for the call")(error)),
        },
    }
}

/// Asks the workers that listen on a subject, and returns the first answer that `read` understands. `None` where
/// nobody listens or nobody gives one in time.
pub(crate) async fn ask_workers<T>(
    client: Client,
    subject: String,
    question: Bytes,
    read: impl Fn(&Message) -> Option<T>,
) -> Result<Option<T>, NatsError> {
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await.map_err(failed("hear the workers"))?;
    client.publish_with_reply(subject, inbox, question).await.map_err(failed("ask the workers"))?;
    let deadline = Instant::now() + ANSWERS;
    while let Ok(Some(answer)) = timeout_at(deadline, answers.next()).await {
        // Nobody listens: no worker runs.
        if answer.status.is_some() {
            return Ok(None);
        }
        if let Some(read) = read(&answer) {
            return Ok(Some(read));
        }
    }
    Ok(None)
}
