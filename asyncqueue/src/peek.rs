//! Reads what NATS knows of a call without removing anything: messages on streams, and answers of
//! workers.

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

/// NATS is unavailable or refused the request. A repeat is safe.
#[derive(Debug, thiserror::Error)]
#[error("NATS could not {action}")]
pub struct NatsError {
    /// The action that failed.
    action: &'static str,
    /// How the action failed.
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// Returns a function that turns the cause of a failed action into an error.
pub(crate) fn failed<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    action: &'static str,
) -> impl Fn(E) -> NatsError {
    move |error| NatsError { action, source: error.into() }
}

/// Returns whether an error says that the stream does not exist.
#[must_use]
pub fn is_missing_stream(error: &GetStreamError) -> bool {
    matches!(error.kind(), GetStreamErrorKind::JetStream(e) if e.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

/// Returns a handle of a stream, whether the stream exists or not.
pub(crate) async fn stream(js: &Context, name: &str) -> Result<Stream<()>, NatsError> {
    js.get_stream_no_info(name).await.map_err(failed("open the stream"))
}

/// Returns the last message of a stream on a subject, which may hold wildcards. `None` if there is
/// no message or no stream.
///
/// The stream's leader is asked, so a call is found as soon as its 202 was sent. Of headers with
/// one name, as the HTTP headers of a call are, the client keeps only the last. The result is good
/// for reading what a call is, and not for storing it again.
pub(crate) async fn last_message(
    js: &Context,
    stream_name: &str,
    subject: &str,
) -> Result<Option<StreamMessage>, NatsError> {
    found(
        stream(js, stream_name)
            .await?
            .raw_message_builder()
            .last_by_subject(subject.to_owned())
            .send()
            .await,
    )
}

/// Returns the first message of a stream on a subject, as [`last_message`] does.
pub(crate) async fn first_message(
    js: &Context,
    stream_name: &str,
    subject: &str,
) -> Result<Option<StreamMessage>, NatsError> {
    found(
        stream(js, stream_name)
            .await?
            .raw_message_builder()
            .next_by_subject(subject.to_owned())
            .send()
            .await,
    )
}

/// Returns whether a stream holds a message at a sequence.
pub async fn is_stored(js: &Context, stream_name: &str, sequence: u64) -> Result<bool, NatsError> {
    Ok(message_at(js, stream_name, sequence).await?.is_some())
}

/// Returns the first message of a stream on a subject, which may hold wildcards, at or after a
/// sequence. See [`last_message`].
pub(crate) async fn next_message(
    js: &Context,
    stream_name: &str,
    subject: &str,
    from: u64,
) -> Result<Option<StreamMessage>, NatsError> {
    let request = stream(js, stream_name).await?.raw_message_builder();
    found(request.sequence(from).next_by_subject(subject.to_owned()).send().await)
}

/// Returns how many messages of a stream have a subject, which may hold wildcards. 0 if the stream
/// does not exist.
pub(crate) async fn count_messages(
    js: &Context,
    stream_name: &str,
    subject: &str,
) -> Result<u64, NatsError> {
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

/// Returns the message of a stream at a sequence, as [`last_message`] does.
pub(crate) async fn message_at(
    js: &Context,
    stream_name: &str,
    sequence: u64,
) -> Result<Option<StreamMessage>, NatsError> {
    found(stream(js, stream_name).await?.raw_message_builder().sequence(sequence).send().await)
}

fn found(
    answer: Result<StreamMessage, RawMessageError>,
) -> Result<Option<StreamMessage>, NatsError> {
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

/// Asks the workers that listen on a subject, and returns the first answer that `read` understands.
/// `None` if no worker listens, or none answers in time.
pub(crate) async fn ask_workers<T>(
    client: Client,
    subject: String,
    question: Bytes,
    read: impl Fn(&Message) -> Option<T>,
) -> Result<Option<T>, NatsError> {
    Ok(Inquiry::send(&client, subject, question)
        .await?
        .answer(Instant::now() + ANSWERS, read)
        .await)
}

/// A question to the workers of a queue, and their answers.
pub(crate) struct Inquiry {
    answers: Subscriber,
}

impl Inquiry {
    /// Sends a question to the workers that listen on a subject.
    pub(crate) async fn send(
        client: &Client,
        subject: String,
        question: Bytes,
    ) -> Result<Self, NatsError> {
        let inbox = client.new_inbox();
        let answers =
            client.subscribe(inbox.clone()).await.map_err(failed("subscribe to the answers"))?;
        client
            .publish_with_reply(subject, inbox, question)
            .await
            .map_err(failed("ask the workers"))?;
        Ok(Self { answers })
    }

    /// Returns the next answer that `read` understands; `None` if no worker listens, or none
    /// answers in time.
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
