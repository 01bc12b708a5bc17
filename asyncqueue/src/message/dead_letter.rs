//! A dead letter: the message as it was, with headers that say why and when the call died.

use async_nats::{HeaderMap as NatsHeaders, header::NATS_MESSAGE_ID};
use bytes::Bytes;
use jiff::Timestamp;

use super::{DecodeError, Fallback, callback::Callback, http_headers, native};
use crate::{
    call_id::CallId,
    invocation::Invocation,
    names::{FunctionName, QueueName},
    publish_failure::MAX_HEADERS,
};

/// Header: what ended the call, in words.
pub const H_REASON: &str = "Async-Dead-Reason";
/// Header: number of attempts.
pub const H_ATTEMPTS: &str = "Async-Dead-Attempts";
/// Header: the last status, if there was one.
pub(crate) const H_STATUS: &str = "Async-Dead-Status";
/// Header: when the call died, RFC 3339.
pub const H_AT: &str = "Async-Dead-At";
/// Header: the worker that stored the dead letter.
pub(crate) const H_WORKER: &str = "Async-Dead-Worker";
/// Header: the subject that the message had.
pub const H_SUBJECT: &str = "Async-Dead-Subject";

/// Header: how many bytes of HTTP headers were left out, because the dead letter would not fit with
/// them.
pub const H_OMITTED_HEADERS: &str = "Async-Dead-Omitted-Headers";
/// Header: how many bytes of body were left out, because the dead letter would not fit with them.
pub const H_OMITTED_BODY: &str = "Async-Dead-Omitted-Body";

/// The headers that a dead letter has in addition to those of its message.
const DEAD_LETTER_HEADERS: [&str; 8] =
    [H_REASON, H_ATTEMPTS, H_STATUS, H_AT, H_WORKER, H_SUBJECT, H_OMITTED_HEADERS, H_OMITTED_BODY];

/// Maximum length of the reason, in characters. The reason may contain the response of a function
/// or a server.
const MAX_REASON: usize = 500;

/// Room for the headers that a dead letter has in addition to those of its message, in bytes.
pub(crate) const RESERVED_BYTES: usize = 4 * 1024;

/// Header of a message that is delivered without its payload: the size of the payload.
const H_SIZE: &str = "Nats-Msg-Size";

/// Namespace and function in the subject of a dead letter whose message named none in its subject.
pub const UNKNOWN_TOKEN: &str = "unknown";

/// Room for the identity of a call in its message: id, function, method and time, in bytes.
const IDENTITY_BYTES: usize = 1024;

/// Returns the maximum number of bytes of path, query and callback URL, if the server accepts
/// messages of `max_payload` bytes. A message within it can become a dead letter without its HTTP
/// headers and its body.
#[must_use]
pub fn max_target(max_payload: usize) -> usize {
    MAX_HEADERS.min(max_payload).saturating_sub(RESERVED_BYTES + IDENTITY_BYTES)
}

/// Why a call is dead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeathInfo {
    /// What ended the call, in words, without any of the call's content.
    pub reason: String,
    /// Number of attempts.
    pub attempts: u64,
    /// The last status, if there was one.
    pub status: Option<u16>,
}

/// What a dead letter was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DeadLetterKind {
    /// A call of the queue.
    Call,
    /// The result of a call, on its way to the client.
    Callback,
}

/// Where the message of a dead letter was before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Subject of the message.
    pub subject: String,
    /// Sequence of the message on its stream.
    pub sequence: u64,
}

/// Number of bytes of the message that a dead letter lacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Omitted {
    /// Bytes of HTTP headers.
    pub headers: u64,
    /// Bytes of the body.
    pub body: u64,
}

/// A dead letter, without its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its sequence on the stream of dead letters. This identifies it, because a call may have
    /// several.
    pub sequence: u64,
    /// What it was before.
    pub kind: DeadLetterKind,
    /// The call id.
    pub call_id: CallId,
    /// The function; `None` if the message does not name it.
    pub function: Option<FunctionName>,
    /// Why the call died.
    pub death: DeathInfo,
    /// When the call died.
    pub died_at: Timestamp,
    /// The worker that stored it.
    pub worker: String,
    /// Size of its payload in bytes.
    pub size: usize,
    /// Where its message was before; `None` if that is not recorded.
    pub origin: Option<Origin>,
    /// What it lacks of its message.
    pub omitted: Omitted,
    /// Why the NATS client can't read it, if it can't. Then only its subject is known.
    pub unreadable: Option<String>,
}

// === impl DeadLetter ===

impl DeadLetter {
    /// Returns the sequence of the call on the stream of its queue, which distinguishes calls that
    /// share an id; `None` if it is not recorded.
    #[must_use]
    pub fn call_sequence(&self) -> Option<u64> {
        let origin = self.origin.as_ref()?;
        match self.kind {
            DeadLetterKind::Call => Some(origin.sequence),
            // The last token of the subject of a result.
            DeadLetterKind::Callback => origin.subject.rsplit('.').next()?.parse().ok(),
        }
    }
}

/// The content of a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeadLetterContent {
    /// A call.
    Call(Box<Invocation>),
    /// The result of a call.
    Callback(Box<Callback>),
    /// Neither of them, which may be why it is a dead letter.
    Unreadable {
        /// Why it can't be read.
        error: DecodeError,
        /// The payload.
        payload: Bytes,
    },
}

/// A message on the stream of dead letters, as it is stored there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawDeadLetter<'a> {
    /// The queue.
    pub(crate) queue: &'a QueueName,
    /// Its subject on the stream of dead letters.
    pub(crate) subject: &'a str,
    /// Its sequence on that stream.
    pub(crate) sequence: u64,
    /// When the stream stored it.
    pub(crate) stored_at: Timestamp,
    /// Its headers.
    pub(crate) headers: &'a NatsHeaders,
    /// Its payload; empty if only headers were requested.
    pub(crate) payload: &'a Bytes,
}

/// Returns the headers of a dead letter: why it died, and those of the message, except the ones
/// with which it was stored before. The message id is kept, for a replay.
#[must_use]
pub fn headers(
    original: Option<&NatsHeaders>,
    subject: &str,
    death: &DeathInfo,
    worker: &str,
    at: Timestamp,
) -> NatsHeaders {
    let mut headers = NatsHeaders::new();
    for (name, values) in original.into_iter().flat_map(NatsHeaders::iter) {
        // They were meant for the stream of the message, and would affect this stream too.
        if name.to_string().to_ascii_lowercase().starts_with("nats-") {
            continue;
        }
        for value in values {
            headers.append(name.clone(), value.clone());
        }
    }
    if let Some(id) = original.and_then(native::message_id) {
        headers.insert(native::H_MESSAGE_ID, id);
    }
    let reason: String = death.reason.chars().take(MAX_REASON).collect();
    headers.insert(H_REASON, reason.replace(['\r', '\n'], " "));
    headers.insert(H_ATTEMPTS, death.attempts.to_string());
    if let Some(status) = death.status {
        headers.insert(H_STATUS, status.to_string());
    }
    headers.insert(H_AT, at.to_string());
    headers.insert(H_WORKER, worker);
    headers.insert(H_SUBJECT, subject);
    headers
}

/// How much of its message a dead letter contains. If it does not fit into one message, the least
/// important part is left out first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadLetterForm {
    /// The whole message.
    Whole,
    /// Everything but the HTTP headers.
    WithoutHeaders,
    /// Neither the HTTP headers nor the payload: only the identity of the call, and why it died.
    WithoutBody,
}

impl DeadLetterForm {
    /// All forms, from the most to the least content.
    pub const ALL: [Self; 3] = [Self::Whole, Self::WithoutHeaders, Self::WithoutBody];

    /// Returns the headers and the payload of a dead letter in this form.
    #[must_use]
    pub fn apply(self, whole: &NatsHeaders, payload: &Bytes) -> (NatsHeaders, Bytes) {
        if self == Self::Whole {
            return (whole.clone(), payload.clone());
        }
        let (mut headers, mut omitted) = (NatsHeaders::new(), 0);
        for (name, values) in whole.iter() {
            let is_http = name.to_string() == http_headers::H_HEADER;
            for value in values {
                if is_http {
                    omitted += value.as_str().len();
                } else {
                    headers.append(name.clone(), value.clone());
                }
            }
        }
        if omitted > 0 {
            headers.insert(H_OMITTED_HEADERS, omitted.to_string());
        }
        if self == Self::WithoutHeaders {
            return (headers, payload.clone());
        }
        headers.insert(H_OMITTED_BODY, payload.len().to_string());
        (headers, Bytes::new())
    }
}

/// Returns the message id of a dead letter: the subject and the sequence of its message. One call
/// becomes one dead letter.
#[must_use]
pub fn message_id(subject: &str, sequence: u64) -> String {
    format!("{subject}.{sequence}")
}

/// Returns the sequence of the message of a dead letter, from its message id.
#[must_use]
pub(crate) fn original_sequence(dead: &NatsHeaders) -> Option<u64> {
    let id = dead.get(async_nats::header::NATS_MESSAGE_ID)?.as_str();
    id.strip_prefix(dead.get(H_SUBJECT)?.as_str())?.strip_prefix('.')?.parse().ok()
}

/// Returns the headers of the message as it was: those of the dead letter, without the reason and
/// without those for a stream. Its message id is in [`native::H_MESSAGE_ID`].
#[must_use]
pub(crate) fn original_headers(dead: &NatsHeaders) -> NatsHeaders {
    let mut headers = NatsHeaders::new();
    for (name, values) in dead.iter() {
        let text = name.to_string();
        if DEAD_LETTER_HEADERS.contains(&text.as_str())
            || text.to_ascii_lowercase().starts_with("nats-")
        {
            continue;
        }
        for value in values {
            headers.append(name.clone(), value.clone());
        }
    }
    headers
}

// === impl RawDeadLetter ===

impl RawDeadLetter<'_> {
    /// Returns what it was before it died.
    #[must_use]
    pub(crate) fn kind(&self) -> DeadLetterKind {
        let callbacks = self.queue.callback_stream();
        let is_callback =
            self.header(H_SUBJECT).and_then(|subject| subject.strip_prefix(&callbacks));
        if is_callback.is_some_and(|rest| rest.starts_with('.')) {
            DeadLetterKind::Callback
        } else {
            DeadLetterKind::Call
        }
    }

    /// Returns whether the headers alone identify the call. In the `OpenFaaS` form, the payload
    /// does.
    #[must_use]
    pub(crate) fn identified_by_headers(&self) -> bool {
        self.kind() == DeadLetterKind::Callback || native::is_native(self.headers)
    }

    /// Reads the message. `namespace` is that of a function that is named without one.
    #[must_use]
    pub(crate) fn read(&self, namespace: &str) -> (DeadLetter, DeadLetterContent) {
        let kind = self.kind();
        let (function, call_id) = self.identity_from_subject();
        let content = self.content(kind, || Fallback {
            call_id: call_id.clone(),
            stored_at: self.stored_at,
            namespace: namespace.to_owned(),
        });
        let (call_id, function) = match &content {
            DeadLetterContent::Call(call) => (call.call_id.clone(), Some(call.function.clone())),
            DeadLetterContent::Callback(callback) => {
                (callback.call_id.clone(), Some(callback.function.clone()))
            }
            DeadLetterContent::Unreadable { .. } => (call_id, function),
        };
        let letter = DeadLetter {
            sequence: self.sequence,
            kind,
            call_id,
            function,
            death: DeathInfo {
                reason: self.header(H_REASON).unwrap_or_default().to_owned(),
                attempts: self.number(H_ATTEMPTS).unwrap_or_default(),
                status: self.header(H_STATUS).and_then(|text| text.parse().ok()),
            },
            died_at: self.header(H_AT).and_then(|at| at.parse().ok()).unwrap_or(self.stored_at),
            worker: self.header(H_WORKER).unwrap_or_default().to_owned(),
            size: self
                .header(H_SIZE)
                .and_then(|size| size.parse().ok())
                .unwrap_or(self.payload.len()),
            origin: self.origin(),
            omitted: Omitted {
                headers: self.number(H_OMITTED_HEADERS).unwrap_or_default(),
                body: self.number(H_OMITTED_BODY).unwrap_or_default(),
            },
            unreadable: None,
        };
        (letter, content)
    }

    /// Returns what is known of a message on the stream of dead letters that the NATS client can't
    /// read for the reason `why`.
    #[must_use]
    pub(crate) fn unreadable(&self, why: &str) -> DeadLetter {
        let (function, call_id) = self.identity_from_subject();
        DeadLetter {
            sequence: self.sequence,
            kind: DeadLetterKind::Call,
            call_id,
            function,
            death: DeathInfo { reason: format!("its {why}"), attempts: 0, status: None },
            died_at: self.stored_at,
            worker: String::new(),
            size: self.payload.len(),
            origin: None,
            omitted: Omitted::default(),
            unreadable: Some(why.to_owned()),
        }
    }

    fn content(
        &self,
        kind: DeadLetterKind,
        fallback: impl FnOnce() -> Fallback,
    ) -> DeadLetterContent {
        let read = match kind {
            DeadLetterKind::Call => super::decode(self.headers, self.payload, fallback)
                .map(|invocation| DeadLetterContent::Call(Box::new(invocation))),
            DeadLetterKind::Callback => Callback::decode(self.headers, self.payload.clone())
                .map(|callback| DeadLetterContent::Callback(Box::new(callback))),
        };
        read.unwrap_or_else(|error| DeadLetterContent::Unreadable {
            error,
            payload: self.payload.clone(),
        })
    }

    /// Returns function and call id from the subject, `<stream>.<namespace>.<function>.<call-id>`.
    /// A message that was stored on its queue's own subject has no function there, and its id is
    /// derived from where it was stored.
    fn identity_from_subject(&self) -> (Option<FunctionName>, CallId) {
        let mut tokens = self.subject.rsplitn(4, '.');
        let (id, name, namespace) = (tokens.next(), tokens.next(), tokens.next());
        let function = name
            .zip(namespace)
            .filter(|tokens| *tokens != (UNKNOWN_TOKEN, UNKNOWN_TOKEN))
            .and_then(|(name, namespace)| FunctionName::new(name, namespace).ok());
        let id = id
            .and_then(|id| id.parse().ok())
            .unwrap_or_else(|| CallId::from_sequence(self.sequence));
        (function, id)
    }

    /// Returns where its message was, from the message id: `<subject>.<sequence>`.
    fn origin(&self) -> Option<Origin> {
        let subject = self.header(H_SUBJECT)?;
        let id = self.headers.get(NATS_MESSAGE_ID)?.as_str();
        let sequence = id.strip_prefix(subject)?.strip_prefix('.')?.parse().ok()?;
        Some(Origin { subject: subject.to_owned(), sequence })
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(async_nats::HeaderValue::as_str)
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.header(name)?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_is_kept_and_what_spoke_to_its_stream_is_not() {
        let mut original = NatsHeaders::new();
        original.append("Async-Header", "a: 1");
        original.append("Async-Header", "b: 2");
        original.insert("Nats-Msg-Id", "id-1");
        original.insert("nats-expected-last-subject-sequence", "0");
        let death = DeathInfo { reason: "two\nlines".into(), attempts: 3, status: Some(500) };
        let headers = headers(Some(&original), "q.ns.f.id-1", &death, "w", Timestamp::UNIX_EPOCH);
        assert_eq!(headers.get_all("Async-Header").count(), 2);
        assert!(headers.get("Nats-Msg-Id").is_none());
        assert_eq!(headers.get("Async-Message-Id").unwrap().as_str(), "id-1");
        assert!(headers.get("nats-expected-last-subject-sequence").is_none());
        assert_eq!(headers.get(H_REASON).unwrap().as_str(), "two lines");
        assert_eq!(headers.get(H_ATTEMPTS).unwrap().as_str(), "3");
        assert_eq!(headers.get(H_STATUS).unwrap().as_str(), "500");
        assert_eq!(headers.get(H_SUBJECT).unwrap().as_str(), "q.ns.f.id-1");
    }

    #[test]
    fn omitted_parts_of_a_dead_letter_are_named() {
        let mut original = NatsHeaders::new();
        original.append("Async-Header", "a: 1");
        original.append("Async-Header", "b: 22");
        original.insert("Async-Function", "f.ns");
        let death = DeathInfo { reason: "why".into(), attempts: 3, status: None };
        let whole = headers(Some(&original), "q.ns.f.id-1", &death, "w", Timestamp::UNIX_EPOCH);
        let body = Bytes::from_static(b"body");
        assert_eq!(DeadLetterForm::Whole.apply(&whole, &body), (whole.clone(), body.clone()));
        let (headers, payload) = DeadLetterForm::WithoutHeaders.apply(&whole, &body);
        assert_eq!((headers.get(H_OMITTED_HEADERS).unwrap().as_str(), &payload), ("9", &body));
        assert!(headers.get("Async-Header").is_none() && headers.get("Async-Function").is_some());
        let (headers, payload) = DeadLetterForm::WithoutBody.apply(&whole, &body);
        assert_eq!((headers.get(H_OMITTED_BODY).unwrap().as_str(), payload.len()), ("4", 0));
    }

    /// Returns a dead letter of `message`, as it is on the stream and as it reads.
    fn dead_letter_of(
        message: &NatsHeaders,
        payload: &'static [u8],
        subject: &str,
        dead_subject: &str,
    ) -> (NatsHeaders, DeadLetter, DeadLetterContent) {
        let death = DeathInfo { reason: "why".into(), attempts: 3, status: Some(500) };
        let headers =
            headers(Some(message), subject, &death, "w", "2026-11-24T10:00:00Z".parse().unwrap());
        let (queue, payload) = ("jobs".parse().unwrap(), Bytes::from_static(payload));
        let stored = RawDeadLetter {
            queue: &queue,
            subject: dead_subject,
            sequence: 7,
            stored_at: Timestamp::UNIX_EPOCH,
            headers: &headers,
            payload: &payload,
        };
        let (letter, content) = stored.read("openfaas-fn");
        (headers, letter, content)
    }

    fn native_headers() -> NatsHeaders {
        let mut headers = NatsHeaders::new();
        headers.insert("Async-Call-Id", "id-1");
        headers.insert("Async-Function", "figlet.dev");
        headers.insert("Async-Submitted-At", "2026-11-24T09:00:00Z");
        headers.append("Async-Header", "a: 1");
        headers.append("Async-Header", "a: 2");
        headers
    }

    #[test]
    fn message_of_a_dead_letter_is_restored_unchanged() {
        let message = native_headers();
        let (dead, letter, content) =
            dead_letter_of(&message, b"hi", "jobs.dev.figlet.id-1", "jobs-dead.dev.figlet.id-1");
        assert_eq!(original_headers(&dead), message);
        assert_eq!((letter.kind, letter.sequence, letter.size), (DeadLetterKind::Call, 7, 2));
        assert_eq!((letter.call_id.as_str(), letter.worker.as_str()), ("id-1", "w"));
        assert_eq!(letter.function.unwrap().to_string(), "figlet.dev");
        assert_eq!(
            letter.death,
            DeathInfo { reason: "why".into(), attempts: 3, status: Some(500) }
        );
        assert_eq!(letter.died_at.to_string(), "2026-11-24T10:00:00Z");
        let DeadLetterContent::Call(call) = content else { panic!("{content:?}") };
        assert_eq!(call.body, "hi");
    }

    #[test]
    fn a_message_that_dies_again_keeps_its_first_message_id() {
        let mut replay = native_headers();
        replay.insert("Nats-Msg-Id", "id-1.replay.7");
        replay.insert("Async-Message-Id", "id-1.digest");
        let (dead, _, _) =
            dead_letter_of(&replay, b"", "jobs.dev.figlet.id-1", "jobs-dead.dev.figlet.id-1");
        let original = original_headers(&dead);
        assert!(original.get("Nats-Msg-Id").is_none());
        assert_eq!(original.get_all("Async-Message-Id").count(), 1);
        assert_eq!(native::message_id(&original), Some("id-1.digest"));
    }

    #[test]
    fn a_letter_says_where_its_message_was_and_what_it_lacks() {
        let subject = "jobs.dev.figlet.id-1";
        let (mut headers, letter, _) =
            dead_letter_of(&native_headers(), b"", subject, "jobs-dead.dev.figlet.id-1");
        assert_eq!((letter.origin, letter.omitted), (None, Omitted::default()));
        headers.insert("Nats-Msg-Id", "jobs.dev.figlet.id-1.42");
        headers.insert(H_OMITTED_HEADERS, "70000");
        headers.insert(H_OMITTED_BODY, "1048000");
        let (queue, payload) = ("jobs".parse().unwrap(), Bytes::new());
        let stored = RawDeadLetter {
            queue: &queue,
            subject: "jobs-dead.dev.figlet.id-1",
            sequence: 7,
            stored_at: Timestamp::UNIX_EPOCH,
            headers: &headers,
            payload: &payload,
        };
        let (letter, _) = stored.read("openfaas-fn");
        assert_eq!(letter.origin, Some(Origin { subject: subject.to_owned(), sequence: 42 }));
        assert_eq!(letter.omitted, Omitted { headers: 70_000, body: 1_048_000 });
        assert_eq!(original_headers(&headers), native_headers());
    }

    #[test]
    fn a_message_of_an_existing_gateway_names_its_call_in_its_payload() {
        let json = br#"{"Function":"figlet","Header":{"X-Call-Id":["id-2"]},"Body":"aGk="}"#;
        let (_, letter, content) =
            dead_letter_of(&NatsHeaders::new(), json, "jobs", "jobs-dead.unknown.unknown.seq-3");
        assert_eq!(letter.call_id.as_str(), "id-2");
        assert_eq!(letter.function.unwrap().to_string(), "figlet.openfaas-fn");
        let DeadLetterContent::Call(call) = content else { panic!("{content:?}") };
        assert_eq!(call.body, "hi");
    }

    #[test]
    fn unreadable_message_is_identified_by_its_subject() {
        let (_, letter, content) = dead_letter_of(
            &NatsHeaders::new(),
            b"garbage",
            "jobs",
            "jobs-dead.unknown.unknown.seq-3",
        );
        assert_eq!((letter.call_id.as_str(), letter.function), ("seq-3", None));
        assert!(
            matches!(content, DeadLetterContent::Unreadable { payload, .. } if payload == "garbage")
        );

        let mut later = native_headers();
        later.insert("Async-Version", "99");
        let (_, letter, _) =
            dead_letter_of(&later, b"", "jobs.dev.figlet.id-1", "jobs-dead.dev.figlet.id-1");
        assert_eq!(letter.call_id.as_str(), "id-1");
        assert_eq!(letter.function.unwrap().to_string(), "figlet.dev");
    }

    #[test]
    fn result_is_distinguished_from_a_call_by_its_subject() {
        for (subject, kind) in [
            ("jobs-callbacks.dev.figlet.id-1", DeadLetterKind::Callback),
            ("jobs-callbacks-x.dev.figlet.id-1", DeadLetterKind::Call),
            ("jobs.dev.figlet.id-1", DeadLetterKind::Call),
        ] {
            let (_, letter, _) =
                dead_letter_of(&native_headers(), b"", subject, "jobs-dead.dev.figlet.id-1");
            assert_eq!(letter.kind, kind, "{subject}");
        }
    }
}
