//! Requests to JetStream that several modules have in common: they read and delete messages, and
//! find streams.

use std::collections::HashMap;

use async_nats::{
    datetime::DateTime,
    jetstream::{
        Context, ErrorCode, consumer,
        context::{ConsumerInfoError, ConsumerInfoErrorKind, GetStreamError, GetStreamErrorKind},
        message::StreamMessage,
        response::Response,
        stream::{DeleteStatus, Info, RawMessageError, RawMessageErrorKind, Stream},
    },
};
use futures::TryStreamExt;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

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

/// Some or all messages of a stream at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MessageTotals {
    /// Their number.
    pub(crate) messages: u64,
    /// The last sequence of the stream.
    pub(crate) last_sequence: u64,
}

/// The server's answer about a stream.
#[derive(Debug, Deserialize)]
struct StreamInfo {
    /// Number of subjects that match the filter, of which the state has some.
    #[serde(default)]
    total: usize,
    state: StreamState,
}

#[derive(Debug, Deserialize)]
struct StreamState {
    messages: u64,
    #[serde(rename = "last_seq")]
    last_sequence: u64,
    /// How many messages each subject has.
    #[serde(default)]
    subjects: HashMap<String, u64>,
}

// === impl NatsError ===

impl NatsError {
    /// Returns a function that turns the cause of a failed action into an error.
    pub(crate) fn during<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
        action: &'static str,
    ) -> impl Fn(E) -> Self {
        move |error| Self { action, source: error.into() }
    }
}

/// Returns whether an error says that the stream does not exist.
#[must_use]
pub fn is_stream_not_found(error: &GetStreamError) -> bool {
    match error.kind() {
        GetStreamErrorKind::JetStream(error) => error.error_code() == ErrorCode::STREAM_NOT_FOUND,
        _ => false,
    }
}

/// Opens a stream; `None` if it does not exist.
pub async fn find_stream(js: &Context, name: &str) -> Result<Option<Stream<Info>>, GetStreamError> {
    match js.get_stream(name).await {
        Ok(stream) => Ok(Some(stream)),
        Err(error) if is_stream_not_found(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns a consumer by its name; `None` if it does not exist.
pub(crate) async fn find_consumer(
    stream: &Stream<()>,
    name: &str,
) -> Result<Option<consumer::Info>, ConsumerInfoError> {
    match stream.consumer_info(name).await {
        Ok(info) => Ok(Some(info)),
        Err(error) if error.kind() == ConsumerInfoErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns the consumers of a stream: one request for each 256 of them. None if the stream does not
/// exist, as one that was listed may be gone now.
///
/// # Errors
///
/// Fails if NATS does not answer.
pub async fn list_consumers(
    js: &Context,
    stream_name: &str,
) -> Result<Vec<consumer::Info>, NatsError> {
    let listed = stream(js, stream_name).await?.consumers().try_collect().await;
    match listed {
        Err(error) if is_caused_by_missing_stream(&error) => Ok(Vec::new()),
        listed => listed.map_err(NatsError::during("list the consumers")),
    }
}

fn is_caused_by_missing_stream(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source())
        .filter_map(|cause| cause.downcast_ref::<async_nats::jetstream::Error>())
        .any(|cause| cause.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

/// Returns a handle of a stream, whether the stream exists or not.
pub(crate) async fn stream(js: &Context, name: &str) -> Result<Stream<()>, NatsError> {
    js.get_stream_no_info(name).await.map_err(NatsError::during("open the stream"))
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
    not_found_as_none(
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
    not_found_as_none(
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
    not_found_as_none(request.sequence(from).next_by_subject(subject.to_owned()).send().await)
}

/// Returns how many messages of a stream have a subject, which may hold wildcards. 0 if the stream
/// does not exist.
pub(crate) async fn count_messages(
    js: &Context,
    stream_name: &str,
    subject: &str,
) -> Result<u64, NatsError> {
    Ok(message_totals(js, stream_name, Some(subject)).await?.messages)
}

/// Returns how many messages of a stream have a subject, which may hold wildcards, or how many it
/// has in all. One request for each 100,000 subjects. 0 if the stream does not exist.
///
/// If there are several requests, messages that are stored before the last one are counted, too.
pub(crate) async fn message_totals(
    js: &Context,
    stream_name: &str,
    subject: Option<&str>,
) -> Result<MessageTotals, NatsError> {
    const ACTION: &str = "count the messages of a stream";
    let (mut totals, mut read) = (None, 0);
    loop {
        let request = match subject {
            Some(subject) => json!({ "subjects_filter": subject, "offset": read }),
            None => json!({}),
        };
        let answer = js.request(format!("STREAM.INFO.{stream_name}"), &request).await;
        let StreamInfo { total, state } = match answer.map_err(NatsError::during(ACTION))? {
            Response::Ok(info) => info,
            Response::Err { error } if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                return Ok(totals.unwrap_or_default());
            }
            Response::Err { error } => return Err(NatsError::during(ACTION)(error)),
        };
        let StreamState { messages, last_sequence, subjects } = state;
        let totals = totals.get_or_insert(MessageTotals { messages: 0, last_sequence });
        totals.messages += subject.map_or(messages, |_| subjects.values().sum());
        read += subjects.len();
        if subjects.is_empty() || read >= total {
            return Ok(*totals);
        }
    }
}

/// Returns the subjects of a stream that match a filter, at most those of the server's first
/// answer (100,000), and how many messages each has. Empty if the stream does not exist.
pub(crate) async fn list_subjects(
    js: &Context,
    stream_name: &str,
    filter: &str,
) -> Result<HashMap<String, u64>, NatsError> {
    let request = json!({ "subjects_filter": filter });
    let mut answer: serde_json::Value = js
        .request(format!("STREAM.INFO.{stream_name}"), &request)
        .await
        .map_err(NatsError::during("list the subjects of a stream"))?;
    let subjects = answer["state"]["subjects"].take();
    Ok(serde_json::from_value(subjects).unwrap_or_default())
}

/// Returns the message of a stream at a sequence, as [`last_message`] does.
pub(crate) async fn message_at(
    js: &Context,
    stream_name: &str,
    sequence: u64,
) -> Result<Option<StreamMessage>, NatsError> {
    not_found_as_none(
        stream(js, stream_name).await?.raw_message_builder().sequence(sequence).send().await,
    )
}

fn not_found_as_none(
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
            _ => Err(NatsError::during("find the call")(error)),
        },
    }
}

/// Removes the message at a sequence, and returns whether it was there. `action` names the purpose
/// in an error.
///
/// A purge of the subject is not used. After it, nats-server counts the messages that a consumer
/// received before that message as acknowledged, and never redelivers them (nats-server#5727, seen
/// in 2.15.1).
pub async fn delete_message(
    js: &Context,
    stream: &str,
    sequence: u64,
    action: &'static str,
) -> Result<bool, NatsError> {
    // Without `no_erase`, as in the client's `delete_message`, the server overwrites the message on
    // disk. That takes fifty times as long, and is not done for a call that ends normally either.
    let request = json!({ "seq": sequence, "no_erase": true });
    match js
        .request(format!("STREAM.MSG.DELETE.{stream}"), &request)
        .await
        .map_err(NatsError::during(action))?
    {
        Response::Ok(DeleteStatus { success }) => Ok(success),
        // The server has one code for a missing message and for any other failure.
        Response::Err { .. } if !is_stored(js, stream, sequence).await? => Ok(false),
        Response::Err { error } => Err(NatsError::during(action)(error)),
    }
}

/// Converts a time of the NATS client to ours. It is before the year 9999, as the server writes it.
#[must_use]
pub fn timestamp_from_server(at: DateTime) -> Timestamp {
    Timestamp::from_nanosecond(at.unix_timestamp_nanos()).unwrap_or_default()
}

/// Returns when a message was stored, by the server's clock.
#[must_use]
pub(crate) fn stored_at(message: &StreamMessage) -> Timestamp {
    timestamp_from_server(message.time)
}
