//! Looks at what NATS knows of a call without taking anything away: messages on streams, and workers' words.

use std::time::Duration;

use async_nats::{
    Client, Message, Subscriber,
    jetstream::{
        Context, ErrorCode,
        context::{GetStreamError, GetStreamErrorKind},
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

/// Whether an error says that there is no such stream.
#[must_use]
pub fn is_missing_stream(error: &GetStreamError) -> bool {
    matches!(error.kind(), GetStreamErrorKind::JetStream(e) if e.error_code() == ErrorCode::STREAM_NOT_FOUND)
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

/// The first message of a stream on a subject, which may hold wildcards, at or after a sequence; as [`last_message`].
pub(crate) async fn next_message(
    js: &Context,
    stream_name: &str,
    subject: &str,
    from: u64,
) -> Result<Option<StreamMessage>, NatsError> {
    let request = stream(js, stream_name).await?.raw_message_builder();
    found(request.sequence(from).next_by_subject(subject.to_owned()).send().await)
}

/// How many messages of a stream have a subject, which may hold wildcards; none where there is no such stream.
pub(crate) async fn count_messages(js: &Context, stream_name: &str, subject: &str) -> Result<u64, NatsError> {
    let request = serde_json::json!({ "subjects_filter": subject });
    let answer: serde_json::Value = js
        .request(format!("STREAM.INFO.{stream_name}"), &request)
        .await
        .map_err(failed("count the calls"))?;
    let subjects = answer["state"]["subjects"].as_object();
    Ok(subjects
        .into_iter()
        .flat_map(|subjects| subjects.values())
        .filter_map(serde_json::Value::as_u64)
        .sum())
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

/// Asks the workers that listen on a subject, and returns the first answer that `read` understands. `None` where no
/// worker listens, or none answers in time.
pub(crate) async fn ask_workers<T>(
    client: Client,
    subject: String,
    question: Bytes,
    read: impl Fn(&Message) -> Option<T>,
) -> Result<Option<T>, NatsError> {
    Ok(Inquiry::send(&client, subject, question).await?.answer(Instant::now() + ANSWERS, read).await)
}

/// A question to the workers of a queue, and the answers to it.
pub(crate) struct Inquiry {
    answers: Subscriber,
}

impl Inquiry {
    /// Sends a question to the workers that listen on a subject.
    pub(crate) async fn send(client: &Client, subject: String, question: Bytes) -> Result<Self, NatsError> {
        let inbox = client.new_inbox();
        let answers = client.subscribe(inbox.clone()).await.map_err(failed("subscribe to the answers"))?;
        client.publish_with_reply(subject, inbox, question).await.map_err(failed("ask the workers"))?;
        Ok(Self { answers })
    }

    /// The next answer that `read` understands; `None` where no worker listens, or none answers by then.
    pub(crate) async fn answer<T>(
        &mut self,
        deadline: Instant,
        read: impl Fn(&Message) -> Option<T>,
    ) -> Option<T> {
        while let Ok(Some(answer)) = timeout_at(deadline, self.answers.next()).await {
            // No responders: no worker is connected.
            if answer.status.is_some() {
                return None;
            }
            if let Some(read) = read(&answer) {
                return Some(read);
            }
        }
        None
    }
}
