//! The native form: the payload is the HTTP body, unchanged; NATS headers carry the rest.
//!
//! | NATS header | |
//! |---|---|
//! | `Async-Version` | `1`; absent means 1 |
//! | `Async-Call-Id` | 1 to 128 of `A-Z a-z 0-9 _ -` |
//! | `Async-Function` | `name.namespace` |
//! | `Async-Function-Name` | the function's name as the client wrote it; may be absent, see below |
//! | `Async-Method` | an HTTP method; absent means `POST` |
//! | `Async-Path` | the rest of the path, see below; may be absent |
//! | `Async-Query` | the text after the `?`; may be absent |
//! | `Async-Callback-Url` | may be absent |
//! | `Async-Keep-Result` | how long the result is kept, as Go writes a duration; may be absent |
//! | `Async-Depth` | how many calls precede this one in its chain, decimal; absent means 0 |
//! | `Async-Batch-Id`, `Async-Batch-Size` | the batch and its number of calls; may be absent |
//! | `Async-Submitted-At` | RFC 3339 |
//! | `Async-Not-Before` | RFC 3339: the call does not run before this time; may be absent |
//! | `Async-Header` | `name: value`, once for each HTTP header; see [`super::http_headers`] |
//! | `Nats-Msg-Id` | the message id, see below |
//! | `Async-Message-Id` | of a call that was replayed: the `Nats-Msg-Id` that it had before |
//!
//! - `Async-Function-Name` has at most 127 characters of printable ASCII. It is absent if it equals
//!   `Async-Function`.
//! - `Async-Path` is the percent-encoded text after the function's name: empty, or with a leading
//!   `/`.
//! - By `Nats-Msg-Id`, the server recognises a repeat. It is `<call-id>.<digest>`, see
//!   [`super::digest`], or the message id of a key, see [`crate::idempotency`].

use std::time::Duration;

use async_nats::{HeaderMap as NatsHeaders, HeaderName, header::NATS_MESSAGE_ID};
use bytes::Bytes;
use jiff::Timestamp;

use super::{DecodeError, check_target, digest, function_name, http_headers, invalid, method};
use crate::{
    batch_member::BatchMember,
    call_id::CallId,
    duration::GoDuration,
    invocation::{CallbackUrl, Invocation, read_depth, take_depth},
    retry::RetryOverrides,
};

/// The version of the form that [`encode`] writes.
pub(crate) const VERSION: &str = "1";

const H_VERSION: &str = "Async-Version";
/// Header with the call's id. Results have it too, as well as the function and the callback URL.
pub(super) const H_CALL_ID: &str = "Async-Call-Id";
pub(super) const H_FUNCTION: &str = "Async-Function";
/// Header with the function's name as the client wrote it. Results have it too.
pub(super) const H_FUNCTION_NAME: &str = "Async-Function-Name";
const H_METHOD: &str = "Async-Method";
const H_PATH: &str = "Async-Path";
const H_QUERY: &str = "Async-Query";
pub(super) const H_CALLBACK_URL: &str = "Async-Callback-Url";
/// Header with how long the result of the call is kept.
const H_KEEP_RESULT: &str = "Async-Keep-Result";
const H_SUBMITTED_AT: &str = "Async-Submitted-At";
/// Header with the time before which the call does not run. Absent before version 0.2.
const H_NOT_BEFORE: &str = "Async-Not-Before";
/// Header with the number of calls that precede the call in its chain; absent means 0. Results have
/// it too.
pub(super) const H_DEPTH: &str = "Async-Depth";

/// Header with the id of the batch that the call belongs to.
pub(crate) const H_BATCH_ID: &str = "Async-Batch-Id";
/// Header with the number of calls in that batch.
const H_BATCH_SIZE: &str = "Async-Batch-Size";

/// Maximum length of a function's name as written: both parts, and the dot.
const MAX_WRITTEN_NAME: usize = 127;

/// Header of a replay: the message id of the call before it became a dead letter.
pub const H_MESSAGE_ID: &str = "Async-Message-Id";

/// Returns whether a message has the native form. Otherwise it has the `OpenFaaS` form.
#[must_use]
pub(crate) fn is_native(headers: &NatsHeaders) -> bool {
    let has = |name| headers.get(HeaderName::from_static(name)).is_some();
    has(H_FUNCTION) || has(H_VERSION)
}

/// Returns the message id of a call. It is the same for its attempts and replays, and differs for
/// another call. `None` if the program that stored the call set none.
#[must_use]
pub fn message_id(headers: &NatsHeaders) -> Option<&str> {
    let before = headers.get(HeaderName::from_static(H_MESSAGE_ID));
    before.or_else(|| headers.get(NATS_MESSAGE_ID)).map(async_nats::HeaderValue::as_str)
}

/// Returns the NATS headers of an invocation whose client sent no key; the payload is its body.
#[must_use]
pub fn encode(invocation: &Invocation) -> NatsHeaders {
    encode_as(invocation, digest::message_id(invocation))
}

/// Returns the NATS headers of an invocation that belongs to a batch; the payload is its body.
#[must_use]
pub(crate) fn encode_member(invocation: &Invocation, member: &BatchMember) -> NatsHeaders {
    let mut headers = encode(invocation);
    set_batch(&mut headers, member);
    headers
}

fn set_batch(headers: &mut NatsHeaders, member: &BatchMember) {
    headers.insert(HeaderName::from_static(H_BATCH_ID), member.id.as_str());
    headers.insert(HeaderName::from_static(H_BATCH_SIZE), member.size.to_string());
}

/// Returns the NATS headers of an invocation with this message id; the payload is its body.
#[must_use]
pub(crate) fn encode_as(invocation: &Invocation, message_id: String) -> NatsHeaders {
    let mut headers = NatsHeaders::new();
    headers.insert(NATS_MESSAGE_ID, message_id);
    // Static names are not copied for each call.
    let mut set = |name, value: String| headers.insert(HeaderName::from_static(name), value);
    set(H_VERSION, VERSION.to_owned());
    set(H_CALL_ID, invocation.call_id.as_str().to_owned());
    set(H_FUNCTION, invocation.function.to_string());
    if let Some(name) = &invocation.written_name {
        set(H_FUNCTION_NAME, name.clone());
    }
    set(H_METHOD, invocation.method.as_str().to_owned());
    set(H_SUBMITTED_AT, invocation.submitted_at.to_string());
    if let Some(not_before) = invocation.not_before {
        set(H_NOT_BEFORE, not_before.to_string());
    }
    if !invocation.path.is_empty() {
        set(H_PATH, invocation.path.clone());
    }
    if let Some(query) = &invocation.query {
        set(H_QUERY, query.clone());
    }
    if let Some(url) = &invocation.callback_url {
        set(H_CALLBACK_URL, url.as_url().to_string());
    }
    if let Some(retention) = invocation.keep_result {
        set(H_KEEP_RESULT, GoDuration(retention).to_string());
    }
    if invocation.depth > 0 {
        set(H_DEPTH, invocation.depth.to_string());
    }
    if let Some(batch) = &invocation.batch {
        set_batch(&mut headers, batch);
    }
    http_headers::append(&mut headers, &invocation.headers);
    headers
}

/// Reads what [`encode`] wrote.
pub fn decode(headers: &NatsHeaders, body: Bytes) -> Result<Invocation, DecodeError> {
    // Static names are not copied for the lookup.
    let get = |name: &'static str| {
        headers.get(HeaderName::from_static(name)).map(async_nats::HeaderValue::as_str)
    };
    let require = |name: &'static str| get(name).ok_or(DecodeError::Missing(name));
    if let Some(version) = get(H_VERSION).filter(|version| *version != VERSION) {
        return Err(DecodeError::UnknownVersion(version.chars().take(16).collect()));
    }
    let call_id = require(H_CALL_ID)?;
    let function = require(H_FUNCTION)?;
    let submitted_at = require(H_SUBMITTED_AT)?;
    let path = get(H_PATH).map(path).transpose()?.unwrap_or_default();
    let query = get(H_QUERY).map(query).transpose()?;
    check_target(&path, query.as_deref())?;
    let mut http_headers = http_headers::read(headers)?;
    let depth = match get(H_DEPTH) {
        Some(text) => depth(text)?,
        // Gateways of version 0.1 store it with the other headers of the request.
        None => take_depth(&mut http_headers),
    };
    Ok(Invocation {
        call_id: call_id.parse::<CallId>().map_err(|e| invalid(H_CALL_ID, call_id, e))?,
        function: function_name(H_FUNCTION, function)?,
        written_name: get(H_FUNCTION_NAME).and_then(written_name),
        method: method(H_METHOD, get(H_METHOD).unwrap_or("POST"))?,
        path,
        query,
        headers: http_headers,
        callback_url: get(H_CALLBACK_URL)
            .map(|url| CallbackUrl::parse(url).map_err(|e| invalid(H_CALLBACK_URL, "…", e)))
            .transpose()?,
        keep_result: get(H_KEEP_RESULT).map(keep_result).transpose()?,
        depth,
        batch: get(H_BATCH_ID).map(|id| batch(id, get(H_BATCH_SIZE))).transpose()?,
        retry: RetryOverrides::default(),
        submitted_at: submitted_at
            .parse::<Timestamp>()
            .map_err(|e| invalid(H_SUBMITTED_AT, submitted_at, e))?,
        not_before: not_before(headers)?,
        body,
    })
}

/// Returns the time before which a call does not run, if it is delayed.
pub(crate) fn not_before(headers: &NatsHeaders) -> Result<Option<Timestamp>, DecodeError> {
    let Some(time) = headers.get(HeaderName::from_static(H_NOT_BEFORE)) else { return Ok(None) };
    let time = time.as_str();
    time.parse().map(Some).map_err(|e| invalid(H_NOT_BEFORE, time, e))
}

/// Returns the name as the client wrote it; `None` if it can't be a header's value. The name is
/// only passed on.
pub(super) fn written_name(text: &str) -> Option<String> {
    let is_name =
        (1..=MAX_WRITTEN_NAME).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    is_name.then(|| text.to_owned())
}

fn path(text: &str) -> Result<String, DecodeError> {
    // A `?` in the path is sent as it is, and then begins the query.
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    if text.is_empty() || (path.starts_with('/') && is_path(path) && is_query(query)) {
        Ok(text.to_owned())
    } else {
        Err(invalid(H_PATH, text, "it must be percent-encoded and begin with /"))
    }
}

fn batch(id: &str, size: Option<&str>) -> Result<BatchMember, DecodeError> {
    let size = size.ok_or(DecodeError::Missing(H_BATCH_SIZE))?;
    Ok(BatchMember {
        id: id.parse::<CallId>().map_err(|e| invalid(H_BATCH_ID, id, e))?,
        size: size.parse::<usize>().map_err(|e| invalid(H_BATCH_SIZE, size, e))?,
    })
}

fn keep_result(text: &str) -> Result<Duration, DecodeError> {
    let retention = text.parse::<GoDuration>();
    retention.map(|retention| retention.0).map_err(|e| invalid(H_KEEP_RESULT, text, e))
}

fn depth(text: &str) -> Result<u32, DecodeError> {
    read_depth(text).ok_or_else(|| invalid(H_DEPTH, text, "it must be a decimal number"))
}

fn query(text: &str) -> Result<String, DecodeError> {
    if is_query(text) {
        Ok(text.to_owned())
    } else {
        Err(invalid(H_QUERY, "…", "it must be percent-encoded"))
    }
}

fn is_path(text: &str) -> bool {
    is_uri_text(text, b"#<>`")
}

fn is_query(text: &str) -> bool {
    is_uri_text(text, b"#<>\"")
}

/// Returns whether a text is valid in a request line. Whitespace would end the line too early, and
/// `#` the URI. The URI parser rejects `others`, so the call could never be sent.
fn is_uri_text(text: &str, others: &[u8]) -> bool {
    text.bytes().all(|b| b > b' ' && b != 0x7f && !others.contains(&b))
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, Method};
    use proptest::prelude::*;

    use super::*;
    use crate::{invocation::MAX_TARGET, names::FunctionName};

    fn sample() -> Invocation {
        let mut headers = HeaderMap::new();
        headers.append("x-multi", "a".parse().unwrap());
        headers.append("x-multi", "100% b".parse().unwrap());
        headers.append("x-bytes", HeaderValue::from_bytes(b"\xff\xfe caf\xc3\xa9").unwrap());
        headers.append("nats-rollup", "all".parse().unwrap());
        headers.append("async-not-before", "2036-01-01T00:00:00Z".parse().unwrap());
        Invocation {
            call_id: "id-1".parse().unwrap(),
            function: FunctionName::new("figlet", "openfaas-fn").unwrap(),
            written_name: Some("figlet".to_owned()),
            method: Method::POST,
            path: "/a%2Fb/c%3Fd//%25".to_owned(),
            query: Some("x=1&y=%2F".to_owned()),
            headers,
            callback_url: Some(CallbackUrl::parse("http://user:p%20s@h:1/cb?t=1").unwrap()),
            keep_result: Some(Duration::from_secs(90)),
            depth: 3,
            batch: None,
            retry: RetryOverrides::default(),
            submitted_at: "2026-11-24T10:11:12.123456789Z".parse().unwrap(),
            not_before: Some("2026-11-25T00:00:00.25Z".parse().unwrap()),
            body: Bytes::from_static(b"\x00\xffbody"),
        }
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let invocation = sample();
        assert_eq!(decode(&encode(&invocation), invocation.body.clone()).unwrap(), invocation);
    }

    #[test]
    fn the_form_on_the_wire_is_a_contract() {
        let headers = encode(&sample());
        let get = |name| headers.get(name).unwrap().as_str();
        assert!(get("Nats-Msg-Id").starts_with("id-1."));
        assert_eq!(get("Async-Version"), "1");
        assert_eq!(get("Async-Function"), "figlet.openfaas-fn");
        assert_eq!(get("Async-Function-Name"), "figlet");
        assert_eq!(get("Async-Path"), "/a%2Fb/c%3Fd//%25");
        assert_eq!(get("Async-Keep-Result"), "1m30s");
        assert_eq!(get("Async-Depth"), "3");
        assert_eq!(get("Async-Not-Before"), "2026-11-25T00:00:00.25Z");
        let lines: Vec<_> =
            headers.get_all("Async-Header").map(async_nats::HeaderValue::as_str).collect();
        assert!(lines.contains(&"x-multi: 100%25 b"), "{lines:?}");
        assert!(lines.contains(&"x-bytes: %FF%FE caf%C3%A9"), "{lines:?}");
    }

    #[test]
    fn a_call_without_depth_has_no_header_for_it() {
        let headers = encode(&Invocation { depth: 0, ..sample() });
        assert!(headers.get("Async-Depth").is_none());
        assert_eq!(decode(&headers, Bytes::new()).unwrap().depth, 0);
    }

    #[test]
    fn a_depth_among_the_http_headers_is_read_as_the_calls() {
        let mut call = Invocation { depth: 0, ..sample() };
        call.headers.insert("x-async-depth", "7".parse().unwrap());
        let read = decode(&encode(&call), Bytes::new()).unwrap();
        assert_eq!((read.depth, read.headers.contains_key("x-async-depth")), (7, false));
        call.depth = 3;
        assert_eq!(decode(&encode(&call), Bytes::new()).unwrap().depth, 3);
    }

    #[test]
    fn a_replay_keeps_the_message_id_of_its_call() {
        let mut headers = encode(&sample());
        let before = message_id(&headers).unwrap().to_owned();
        assert!(before.starts_with("id-1."));
        headers.insert(H_MESSAGE_ID, before.as_str());
        headers.insert(NATS_MESSAGE_ID, "id-1.replay.7");
        assert_eq!(message_id(&headers), Some(before.as_str()));
        assert_eq!(message_id(&NatsHeaders::new()), None);
    }

    #[test]
    fn written_name_that_cannot_be_passed_on_is_dropped() {
        for bad in ["", "a b", "caf\u{e9}", &*"a".repeat(128)] {
            let mut headers = encode(&sample());
            headers.insert("Async-Function-Name", bad);
            assert_eq!(decode(&headers, Bytes::new()).unwrap().written_name, None, "{bad}");
        }
    }

    #[test]
    fn a_clients_header_never_becomes_a_header_of_nats() {
        let headers = encode(&Invocation { not_before: None, ..sample() });
        assert!(headers.get("Nats-Rollup").is_none() && headers.get("Async-Not-Before").is_none());
        assert_eq!(decode(&headers, Bytes::new()).unwrap().not_before, None);
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        for (change, expected) in [
            (("Async-Version", "9"), "message version 9"),
            (("Async-Call-Id", "a.b"), "Async-Call-Id `a.b`"),
            (("Async-Function", "nons"), "Async-Function `nons`"),
            (("Async-Path", "a b"), "Async-Path `a b`"),
            (("Async-Path", "/a#b"), "Async-Path"),
            (("Async-Path", "/a<b"), "Async-Path"),
            (("Async-Path", "/a`b"), "Async-Path"),
            (("Async-Path", "/a?b=\"c\""), "Async-Path"),
            (("Async-Query", "a b"), "Async-Query"),
            (("Async-Query", "a=\"b\""), "Async-Query"),
            (("Async-Query", &*"a".repeat(MAX_TARGET)), "at most 61440 bytes"),
            (("Async-Method", "a b"), "Async-Method `a b`"),
            (("Async-Method", "CONNECT"), "Async-Method `CONNECT`"),
            (("Async-Callback-Url", "ftp://h"), "Async-Callback-Url"),
            (("Async-Keep-Result", "1"), "Async-Keep-Result `1`"),
            (("Async-Depth", "-1"), "Async-Depth `-1`"),
            (("Async-Submitted-At", "today"), "Async-Submitted-At `today`"),
            (("Async-Not-Before", "later"), "Async-Not-Before `later`"),
            (("Async-Header", "no colon"), "Async-Header"),
            (("Async-Header", "x: a%0Ab"), "Async-Header"),
        ] {
            let mut headers = encode(&sample());
            headers.insert(change.0, change.1);
            let error = decode(&headers, Bytes::new()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert_eq!(decode(&NatsHeaders::new(), Bytes::new()), Err(DecodeError::Missing(H_CALL_ID)));
    }

    #[test]
    fn white_space_around_a_header_is_trimmed() {
        let mut headers = encode(&sample());
        headers.append("Async-Header", "x-space: %20 a%20b\t%09");
        let call = decode(&headers, Bytes::new()).unwrap();
        assert_eq!(call.headers["x-space"], "a b");
        assert_eq!(decode(&encode(&call), Bytes::new()), Ok(call));
    }

    #[test]
    fn more_headers_than_can_be_kept_are_refused() {
        let mut headers = encode(&sample());
        for number in 0..40_000 {
            headers.append("Async-Header", format!("h{number}: 1"));
        }
        let error = decode(&headers, Bytes::new()).unwrap_err().to_string();
        assert!(error.contains("Async-Header"), "{error}");
    }

    proptest! {
        #[test]
        fn decoding_never_panics(
            name in "Async-(Version|Call-Id|Function|Path|Query|Header|Method)",
            value in "[^\r\n]*",
        ) {
            let mut headers = encode(&sample());
            headers.insert(name.as_str(), value.as_str());
            let _ = decode(&headers, Bytes::new());
        }
    }
}
