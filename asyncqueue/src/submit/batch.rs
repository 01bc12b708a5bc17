//! Stores the calls of a batch together, or none of them.
//!
//! The record of the batch is stored first, so that the first end of a call finds it. If the calls
//! are refused, it is removed again. If the program dies before it knows, a repeat publishes the
//! same calls again, and the guards of the calls say whether they were stored.

use std::{collections::HashSet, time::Duration};

use async_nats::{
    Client, HeaderMap as NatsHeaders,
    header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE,
    jetstream::{self, response::Response},
};
use bytes::Bytes;
use futures::StreamExt;
use http::HeaderValue;
use jiff::Timestamp;
use serde::Deserialize;
use tokio::time::timeout;
use tracing::warn;

use super::{SubmitError, Submitter, unavailable};
use crate::{
    batch::{
        BatchId, BatchMember, BatchRecord, MemberCall, OnFailure,
        storage::{self, Written},
    },
    call_id::CallId,
    directory::QueueRoute,
    error::find_cause,
    headers::X_CALL_ID,
    invocation::{CallbackUrl, Invocation},
    jetstream::{NatsError, find_stream, last_message},
    message::{
        digest::{digest, sha256, shorten},
        native,
    },
    publish_failure::{MAX_HEADERS, PublishFailure},
    subject::call_subject,
};

/// How often the time for an answer may pass before a batch without a known outcome counts as
/// abandoned. Until then, another program may be storing it.
const IN_PROGRESS_TIMEOUTS: u32 = 2;

/// Error codes of nats-server: the stream does not allow atomic publishes.
const ATOMIC_DISABLED: u64 = 10174;
/// A message id occurs twice in the batch, or was stored before.
const REPEATED_MESSAGE_ID: u64 = 10201;
/// Too many batches are being stored at this moment.
const TOO_MANY_BATCHES: u64 = 10210;
/// The last message on the subject is not the expected one.
const WRONG_LAST_SEQUENCE: [u64; 2] = [10071, 10164];

/// A batch to be stored.
#[derive(Clone, Debug)]
pub struct NewBatch {
    /// Id of the batch.
    pub id: BatchId,
    /// Whether the client named it: a repeat is then recognised.
    pub is_named: bool,
    /// The calls. Those of the client's own ids have different ids.
    pub calls: Vec<Invocation>,
    /// The URL that gets the report after the last call has ended.
    pub callback_url: Option<CallbackUrl>,
    /// What happens to the rest when a call fails.
    pub on_failure: OnFailure,
    /// When the gateway accepted the batch.
    pub submitted_at: Timestamp,
    /// How many calls precede those of the batch in their chain.
    pub depth: u32,
    /// The calls, by their index, whose ids the client chose.
    pub own_ids: HashSet<usize>,
}

/// The outcome of the submission of a batch that is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchOutcome {
    /// Whether it was stored before: nothing was stored now.
    pub is_duplicate: bool,
    /// The ids of its calls.
    pub calls: Vec<String>,
}

/// A batch is not stored. After [`SubmitError::Unavailable`] it may be stored: a repeat with the
/// same batch id is safe.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// As for a single call.
    #[error(transparent)]
    Submit(SubmitError),
    /// A call of the batch can't be stored.
    #[error("line {line}: {error}; nothing of the batch is stored")]
    Call {
        /// Number of the line, from 1.
        line: usize,
        /// Why it can't be stored.
        error: SubmitError,
    },
    /// A call with the id is pending, or was stored a moment ago.
    #[error(
        "{}a call of the function with this callId is pending, or was stored within the duplicate \
         window: use another callId; nothing of the batch is stored",
        .line.map_or(String::new(), |line| format!("line {line}: "))
    )]
    CallIdInUse {
        /// Number of the line, from 1, if it is known.
        line: Option<usize>,
    },
    /// Another batch has the id.
    #[error(
        "X-Batch-Id `{0}` belongs to another batch: its calls, X-Callback-Url or onFailure differ; \
         use another id for another batch"
    )]
    IdReused(BatchId),
    /// A batch with the id is being stored.
    #[error("batch `{0}` is being stored by another request: retry")]
    InProgress(BatchId),
    /// The stream of the queue does not accept batches.
    #[error(
        "the queue's stream does not accept batches yet (allow_atomic is not set): upgrade the \
         operator, or the program with ensure_stream; nothing is stored"
    )]
    NotAllowed,
    /// NATS stores too many batches at this moment.
    #[error("NATS is storing too many batches at this moment: retry; nothing is stored")]
    TooMany,
}

/// Why the calls of a batch were not stored.
#[derive(Debug)]
enum Refusal {
    /// A call of the batch is stored.
    Repeated,
    /// The stream does not accept batches.
    NotAllowed,
    /// The server refused the call at this index, or all if it is `None`.
    Refused(Option<usize>, jetstream::Error),
    /// It is not known whether they are stored.
    Unknown(SubmitError),
    /// A call is too large for the server's connection.
    TooLarge(usize, SubmitError),
}

/// The server's answer to the last message of a batch, or to a message alone.
#[derive(Debug, Deserialize)]
struct StoreAck {
    /// Number of messages of the batch. A message alone has none.
    count: Option<usize>,
    /// Whether a message alone was stored before.
    #[serde(default)]
    duplicate: bool,
}

impl From<NatsError> for BatchError {
    fn from(error: NatsError) -> Self {
        let reason = find_cause::<jetstream::Error>(&error)
            .map_or_else(|| error.to_string(), ToString::to_string);
        Self::Submit(match PublishFailure::from_error(&error) {
            PublishFailure::NoSpace | PublishFailure::StreamFull => {
                SubmitError::QueueFull { reason }
            }
            PublishFailure::TooLarge(_) => SubmitError::TooLargeForStream,
            _ => SubmitError::Unavailable { reason },
        })
    }
}

// === impl Submitter ===

impl Submitter {
    /// Stores the calls of a batch, all of them or none, and returns when they are stored. A repeat
    /// with the same id and content stores nothing while what is known of the batch is kept: until
    /// a day after its end.
    pub async fn submit_batch(
        &self,
        mut batch: NewBatch,
        route: &QueueRoute,
    ) -> Result<BatchOutcome, BatchError> {
        self.check_connected().map_err(BatchError::Submit)?;
        let record = self.record(&batch, route).await?;
        storage::ensure(&self.js).await?;
        if batch.is_named
            && let Some((report, digest)) = storage::read_ended(&self.js, &batch.id).await?
        {
            let calls = report.calls.into_iter().flatten().map(|call| call.call.call_id);
            return repeated(&batch.id, digest == record.digest, calls.collect());
        }
        let is_first = storage::create_record(&self.js, &batch.id, &record).await? == Written::Now;
        if !is_first && let Some(outcome) = self.resume(&mut batch, &record).await? {
            return Ok(outcome);
        }
        let calls: Vec<_> = batch.calls.iter().map(|call| call.call_id.to_string()).collect();
        let functions: HashSet<_> = batch.calls.iter().map(|call| call.function.clone()).collect();
        let is_duplicate = match self.publish_calls(&batch, &route.subject, &record.stream).await {
            Ok(()) => false,
            Err(Refusal::Repeated) if !is_first => true,
            Err(refusal) => return Err(self.refuse(&batch, route, refusal, is_first).await),
        };
        if let Err(error) = storage::mark_stored(&self.js, &batch.id).await {
            // A repeat publishes the calls again, which are then refused as stored.
            warn!(batch = %batch.id, "failed to record that the batch is stored: {error}");
        }
        for function in &functions {
            self.lanes.ensure_in_background(route, function);
        }
        Ok(BatchOutcome { is_duplicate, calls })
    }

    async fn record(
        &self,
        batch: &NewBatch,
        route: &QueueRoute,
    ) -> Result<BatchRecord, BatchError> {
        let stream = self.js.stream_by_subject(format!("{}.x.x.x", route.subject)).await;
        Ok(BatchRecord {
            queue: route.queue.clone(),
            stream: stream.map_err(|_| BatchError::Submit(SubmitError::NoStream))?,
            subject: route.subject.clone(),
            digest: batch_digest(batch),
            callback_url: batch.callback_url.as_ref().map(|url| url.as_url().to_string()),
            on_failure: batch.on_failure,
            depth: batch.depth,
            submitted_at: batch.submitted_at,
            calls: batch
                .calls
                .iter()
                .map(|call| MemberCall {
                    call_id: call.call_id.to_string(),
                    function: call.function.clone(),
                })
                .collect(),
        })
    }

    /// Continues with a batch whose record was stored before. Returns its outcome if that is known;
    /// else its calls are to be published again, with the ids that they had.
    async fn resume(
        &self,
        batch: &mut NewBatch,
        record: &BatchRecord,
    ) -> Result<Option<BatchOutcome>, BatchError> {
        let Some((before, _, stored_at)) = storage::read_record(&self.js, &batch.id).await? else {
            // It has just ended, or was refused.
            return Err(BatchError::InProgress(batch.id.clone()));
        };
        let ids: Vec<_> = before.calls.iter().map(|call| call.call_id.clone()).collect();
        if before.digest != record.digest || storage::is_stored(&self.js, &batch.id).await? {
            return repeated(&batch.id, before.digest == record.digest, ids).map(Some);
        }
        let age = Duration::try_from(Timestamp::now().duration_since(stored_at));
        if age.unwrap_or_default() < self.timeout * IN_PROGRESS_TIMEOUTS {
            return Err(BatchError::InProgress(batch.id.clone()));
        }
        let ends = storage::read_ends(&self.js, &batch.id, &before.calls).await?;
        if ends.iter().any(Option::is_some) {
            return repeated(&batch.id, true, ids).map(Some);
        }
        for (call, before) in batch.calls.iter_mut().zip(&before.calls) {
            if let Ok(id) = before.call_id.parse() {
                set_call_id(call, id);
            }
        }
        Ok(None)
    }

    /// Publishes the calls, all of them or none. `stream` is that of the queue.
    async fn publish_calls(
        &self,
        batch: &NewBatch,
        subject: &str,
        stream: &str,
    ) -> Result<(), Refusal> {
        let client = self.js.client();
        let publish = async {
            if is_alone(batch) {
                self.check_allowed(stream).await?;
            }
            publish_together(&client, batch, subject).await
        };
        match timeout(self.timeout, publish).await {
            Ok(published) => published,
            Err(_) => Err(Refusal::Unknown(self.no_reply())),
        }
    }

    /// Fails if the stream does not accept batches. The server accepts a message alone in any case,
    /// but a program that does not set `allow_atomic` does not end the batch either.
    async fn check_allowed(&self, stream: &str) -> Result<(), Refusal> {
        let stream = find_stream(&self.js, stream).await;
        let stream = stream.map_err(|error| Refusal::Unknown(unavailable(&error)))?;
        match stream {
            Some(stream) if stream.cached_info().config.allow_atomic_publish => Ok(()),
            Some(_) => Err(Refusal::NotAllowed),
            None => Err(Refusal::Unknown(SubmitError::NoStream)),
        }
    }

    /// Returns why a batch is not stored. Removes its record if it is certain that it is not.
    async fn refuse(
        &self,
        batch: &NewBatch,
        route: &QueueRoute,
        refusal: Refusal,
        is_first: bool,
    ) -> BatchError {
        let is_certain = !matches!(refusal, Refusal::Unknown(_));
        if is_first
            && is_certain
            && let Err(error) = storage::remove_open(&self.js, &batch.id).await
        {
            // The sweep removes it.
            warn!(batch = %batch.id, "failed to remove the record of a refused batch: {error}");
        }
        let (line, error) = match refusal {
            Refusal::Unknown(error) => return BatchError::Submit(error),
            Refusal::NotAllowed => return BatchError::NotAllowed,
            Refusal::Repeated => {
                let line = self.used_id(batch, route).await.ok().flatten();
                return BatchError::CallIdInUse { line };
            }
            Refusal::TooLarge(index, error) => {
                return BatchError::Call { line: index + 1, error };
            }
            Refusal::Refused(index, error) => (index.map(|index| index + 1), error),
        };
        if error.error_code().0 == TOO_MANY_BATCHES {
            return BatchError::TooMany;
        }
        let failure = PublishFailure::from_error(&error);
        if failure == PublishFailure::NoSpace {
            self.release_reserve();
        }
        match (failure, line) {
            (PublishFailure::TooLarge(limit), Some(line)) => {
                BatchError::Call { line, error: self.too_large(limit) }
            }
            (PublishFailure::TooLarge(limit), None) => BatchError::Submit(self.too_large(limit)),
            (PublishFailure::StreamFull | PublishFailure::NoSpace, _) => {
                BatchError::Submit(SubmitError::QueueFull { reason: error.to_string() })
            }
            _ => BatchError::Submit(SubmitError::Unavailable { reason: error.to_string() }),
        }
    }

    /// Returns the first line whose own call id a pending call has.
    async fn used_id(
        &self,
        batch: &NewBatch,
        route: &QueueRoute,
    ) -> Result<Option<usize>, NatsError> {
        let mut own: Vec<_> = batch.own_ids.iter().copied().collect();
        own.sort_unstable();
        let to_error = NatsError::during("find the stream of the queue");
        let stream = self.js.stream_by_subject(format!("{}.x.x.x", route.subject)).await;
        let stream = stream.map_err(to_error)?;
        for index in own {
            let Some(call) = batch.calls.get(index) else { continue };
            let subject = call_subject(&route.subject, &call.function, &call.call_id);
            if last_message(&self.js, &stream, &subject).await?.is_some() {
                return Ok(Some(index + 1));
            }
        }
        Ok(None)
    }
}

/// Returns the outcome of a repeat, or the error of another batch with the id.
fn repeated(id: &BatchId, is_same: bool, calls: Vec<String>) -> Result<BatchOutcome, BatchError> {
    if is_same {
        Ok(BatchOutcome { is_duplicate: true, calls })
    } else {
        Err(BatchError::IdReused(id.clone()))
    }
}

/// Returns what the server's error about the call at this index means, or about all calls.
fn refusal(index: Option<usize>, error: jetstream::Error) -> Refusal {
    match error.error_code().0 {
        ATOMIC_DISABLED => Refusal::NotAllowed,
        REPEATED_MESSAGE_ID => Refusal::Repeated,
        code if WRONG_LAST_SEQUENCE.contains(&code) => Refusal::Repeated,
        _ => Refusal::Refused(index, error),
    }
}

/// Returns whether a batch has one call. It is published without the headers of a batch, with
/// which nats-server takes up to 0.2 s for it.
fn is_alone(batch: &NewBatch) -> bool {
    batch.calls.len() == 1
}

/// Gives a call another id, also in the header that its function gets.
fn set_call_id(call: &mut Invocation, id: CallId) {
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        call.headers.insert(X_CALL_ID, value);
    }
    call.call_id = id;
}

/// Returns the digest of what the client submitted: of each call, of the ids that the client chose,
/// of the callback URL and of `onFailure`.
fn batch_digest(batch: &NewBatch) -> String {
    let mut parts = vec![
        batch.callback_url.as_ref().map(|url| url.as_url().to_string()).unwrap_or_default(),
        match batch.on_failure {
            OnFailure::Continue => String::new(),
            OnFailure::Cancel => "cancel".to_owned(),
        },
    ];
    for (index, call) in batch.calls.iter().enumerate() {
        let own_id = if batch.own_ids.contains(&index) { call.call_id.as_str() } else { "" };
        parts.extend([own_id.to_owned(), digest(call)]);
    }
    shorten(&sha256(parts.iter().map(String::as_bytes)))
}

/// Returns the headers of a call of a batch; the payload is its body.
fn headers_of(batch: &NewBatch, atomic_id: &str, index: usize, call: &Invocation) -> NatsHeaders {
    let size = batch.calls.len();
    let member = BatchMember { id: batch.id.clone(), size };
    let mut headers = native::encode_member(call, &member);
    // The guard, as for a single call with an id of its client.
    headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, "0");
    if is_alone(batch) {
        return headers;
    }
    headers.insert("Nats-Batch-Id", atomic_id);
    headers.insert("Nats-Batch-Sequence", (index + 1).to_string());
    if index + 1 == size {
        headers.insert("Nats-Batch-Commit", "1");
    }
    headers
}

/// Publishes the calls with the headers of ADR-50 of NATS, and waits for the answer to the last
/// one. Each message has a reply subject, by which a refusal names its call.
async fn publish_together(client: &Client, batch: &NewBatch, subject: &str) -> Result<(), Refusal> {
    let unknown = |error: &dyn std::error::Error| Refusal::Unknown(unavailable(error));
    let inbox = client.new_inbox();
    let replies = client.subscribe(format!("{inbox}.*")).await;
    let mut replies = replies.map_err(|error| unknown(&error))?;
    let (atomic_id, last) = (client.new_inbox().replace('.', "-"), batch.calls.len());
    let limit = client.max_payload();
    let messages: Vec<_> = batch
        .calls
        .iter()
        .enumerate()
        .map(|(index, call)| (headers_of(batch, &atomic_id, index, call), call))
        .collect();
    // Checked before the first is sent: the server would close the connection.
    for (index, (headers, call)) in messages.iter().enumerate() {
        let bytes = header_bytes(headers);
        if bytes > MAX_HEADERS {
            return Err(Refusal::TooLarge(index, SubmitError::HeadersTooLarge));
        }
        if bytes + call.body.len() > limit {
            return Err(Refusal::TooLarge(index, SubmitError::TooLarge { limit }));
        }
    }
    for (index, (headers, call)) in messages.into_iter().enumerate() {
        let subject = call_subject(subject, &call.function, &call.call_id);
        let reply = format!("{inbox}.{}", index + 1);
        client
            .publish_with_reply_and_headers(subject, reply, headers, call.body.clone())
            .await
            .map_err(|error| unknown(&error))?;
    }
    client.flush().await.map_err(|error| unknown(&error))?;
    while let Some(reply) = replies.next().await {
        let number = reply.subject.rsplit('.').next().and_then(|n| n.parse::<usize>().ok());
        if reply.status == Some(async_nats::StatusCode::NO_RESPONDERS) {
            return Err(Refusal::Unknown(SubmitError::NoStream));
        }
        // The server acknowledges all but the last message with an empty reply.
        if reply.payload.is_empty() {
            continue;
        }
        return match read_reply(&reply.payload) {
            Ok(ack) if ack.duplicate => Err(Refusal::Repeated),
            Ok(ack) if ack.count.unwrap_or(1) == last => Ok(()),
            Ok(_) => Err(Refusal::Unknown(SubmitError::Unavailable {
                reason: "the server stored another number of calls".to_owned(),
            })),
            Err(Some(error)) => {
                // A refusal with the last message may be about any of them.
                let index = number.filter(|number| *number < last).map(|number| number - 1);
                Err(refusal(index, error))
            }
            Err(None) => Err(Refusal::Unknown(SubmitError::Unavailable {
                reason: "the answer of the server can't be read".to_owned(),
            })),
        };
    }
    Err(Refusal::Unknown(SubmitError::Unavailable { reason: "connection closed".to_owned() }))
}

/// Reads the server's answer: what it stored, or its error, if it can be read.
fn read_reply(payload: &Bytes) -> Result<StoreAck, Option<jetstream::Error>> {
    match serde_json::from_slice::<Response<StoreAck>>(payload) {
        Ok(Response::Ok(ack)) => Ok(ack),
        Ok(Response::Err { error }) => Err(Some(error)),
        Err(_) => Err(None),
    }
}

/// Returns the size of headers on the wire.
fn header_bytes(headers: &NatsHeaders) -> usize {
    let lines = headers.iter().flat_map(|(name, values)| {
        let name = AsRef::<[u8]>::as_ref(name).len();
        values.iter().map(move |value| name + value.as_str().len() + ": \r\n".len())
    });
    "NATS/1.0\r\n\r\n".len() + lines.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::FunctionName;

    fn batch(bodies: &[&'static str]) -> NewBatch {
        let function = FunctionName::new("figlet", "openfaas-fn").unwrap();
        let queue = "jobs".parse().unwrap();
        let calls = bodies
            .iter()
            .map(|body| Invocation::new(CallId::generate(&queue), function.clone(), *body));
        NewBatch {
            id: "b-1".parse().unwrap(),
            is_named: true,
            calls: calls.collect(),
            callback_url: None,
            on_failure: OnFailure::Continue,
            submitted_at: Timestamp::UNIX_EPOCH,
            depth: 0,
            own_ids: HashSet::new(),
        }
    }

    #[test]
    fn repeat_has_the_digest_of_what_the_client_sent() {
        // The gateway generates other ids each time.
        assert_eq!(batch_digest(&batch(&["a", "b"])), batch_digest(&batch(&["a", "b"])));
        let first = batch_digest(&batch(&["a", "b"]));
        assert_ne!(first, batch_digest(&batch(&["b", "a"])));
        assert_ne!(first, batch_digest(&batch(&["a"])));
        let cancelling = NewBatch { on_failure: OnFailure::Cancel, ..batch(&["a", "b"]) };
        assert_ne!(first, batch_digest(&cancelling));
        let named = NewBatch { own_ids: HashSet::from([1]), ..batch(&["a", "b"]) };
        assert_ne!(first, batch_digest(&named));
    }

    #[test]
    fn last_message_commits_the_batch() {
        let batch = batch(&["a", "b"]);
        let headers = |index: usize| headers_of(&batch, "atomic", index, &batch.calls[index]);
        let value = |headers: &NatsHeaders, name: &str| {
            headers.get(name).map(|value| value.as_str().to_owned())
        };
        assert_eq!(value(&headers(0), "Nats-Batch-Sequence").as_deref(), Some("1"));
        assert_eq!(value(&headers(0), "Nats-Batch-Commit"), None);
        assert_eq!(value(&headers(1), "Nats-Batch-Commit").as_deref(), Some("1"));
        assert_eq!(value(&headers(1), native::H_BATCH_ID).as_deref(), Some("b-1"));
        let member = native::decode(&headers(1), Bytes::new()).unwrap().batch;
        assert_eq!(member, Some(BatchMember { id: "b-1".parse().unwrap(), size: 2 }));
    }

    #[test]
    fn call_alone_is_published_as_a_single_call_with_its_batch() {
        let batch = batch(&["a"]);
        let headers = headers_of(&batch, "atomic", 0, &batch.calls[0]);
        assert!(headers.iter().all(|(name, _)| !name.to_string().starts_with("Nats-Batch")));
        let mut single = native::encode(&batch.calls[0]);
        single.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, "0");
        for (name, values) in single.iter() {
            assert_eq!(
                headers.get_all(name.clone()).collect::<Vec<_>>(),
                values.iter().collect::<Vec<_>>()
            );
        }
        let member = native::decode(&headers, Bytes::new()).unwrap().batch;
        assert_eq!(member, Some(BatchMember { id: batch.id, size: 1 }));
    }

    #[test]
    fn answer_of_the_server_is_read() {
        let read = |text: &'static str| read_reply(&Bytes::from_static(text.as_bytes()));
        let stored = read(r#"{"stream":"j","seq":3,"batch":"b1","count":3}"#);
        assert_eq!(stored.ok().and_then(|ack| ack.count), Some(3));
        let alone = read(r#"{"stream":"j","seq":3}"#).unwrap();
        assert_eq!((alone.count, alone.duplicate), (None, false));
        assert!(read(r#"{"stream":"j","seq":3,"duplicate":true}"#).unwrap().duplicate);
        let refused = read(
            r#"{"error":{"code":400,"err_code":10201,"description":"d"},"stream":"j","seq":0}"#,
        );
        let refused = refusal(None, refused.unwrap_err().unwrap());
        assert!(matches!(refused, Refusal::Repeated), "{refused:?}");
        assert!(read("?").unwrap_err().is_none());
    }

    #[test]
    fn size_of_headers_is_that_on_the_wire() {
        let mut headers = NatsHeaders::new();
        headers.insert("A", "b");
        assert_eq!(header_bytes(&headers), b"NATS/1.0\r\nA: b\r\n\r\n".len());
    }
}
