//! Reads messages that the NATS client of this program can't read.
//!
//! For nats-server, subjects and headers are bytes. If the client can't read those of a message, it
//! closes the connection. Over the JSON API, such a message does no harm.

use async_nats::{HeaderMap, HeaderName, jetstream::Context};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::jetstream::NatsError;

/// The server's code if a stream has no (more) message.
const NO_MESSAGE: u64 = 10037;

/// The server's code if there is no stream of that name.
const NO_STREAM: u64 = 10059;

/// A message as the JSON API returns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawMessage {
    /// Its sequence on its stream.
    pub sequence: u64,
    /// When the stream stored it.
    pub stored_at: Timestamp,
    /// Its subject, with U+FFFD for bytes that are not UTF-8.
    pub subject: String,
    /// Its headers, with the line that begins them. Empty if it has none.
    pub headers: Vec<u8>,
    /// Its payload.
    pub payload: Bytes,
}

/// Returns the first message of a stream at or after a sequence whose subject matches a filter;
/// `None` if no message does.
pub async fn next_raw_message(
    js: &Context,
    stream: &str,
    filter: &str,
    sequence: u64,
) -> Result<Option<RawMessage>, NatsError> {
    let request = json!({ "seq": sequence, "next_by_subj": filter });
    read_message(js, stream, &request, &[NO_MESSAGE]).await
}

/// Returns the last message of a stream whose subject matches a filter; `None` if no message does,
/// or if there is no stream.
pub async fn last_raw_message(
    js: &Context,
    stream: &str,
    filter: &str,
) -> Result<Option<RawMessage>, NatsError> {
    read_message(js, stream, &json!({ "last_by_subj": filter }), &[NO_MESSAGE, NO_STREAM]).await
}

/// Reads a message. `absent` are the codes of the server that say that it does not exist.
async fn read_message(
    js: &Context,
    stream: &str,
    request: &Value,
    absent: &[u64],
) -> Result<Option<RawMessage>, NatsError> {
    const ACTION: &str = "read a message";
    let answer: Value = js
        .request(format!("STREAM.MSG.GET.{stream}"), request)
        .await
        .map_err(NatsError::during(ACTION))?;
    if answer["error"]["err_code"].as_u64().is_some_and(|code| absent.contains(&code)) {
        return Ok(None);
    }
    let message = &answer["message"];
    match message["seq"].as_u64() {
        Some(sequence) => Ok(Some(RawMessage {
            sequence,
            stored_at: message["time"]
                .as_str()
                .and_then(|time| time.parse().ok())
                .unwrap_or_default(),
            subject: message["subject"].as_str().unwrap_or_default().to_owned(),
            headers: bytes(&message["hdrs"]),
            payload: bytes(&message["data"]).into(),
        })),
        None => Err(NatsError::during(ACTION)(
            answer["error"]["description"].as_str().unwrap_or("no message").to_owned(),
        )),
    }
}

// === impl RawMessage ===

impl RawMessage {
    /// Returns the headers, if the client can read them and the subject.
    ///
    /// # Errors
    ///
    /// What can't be read, and why.
    pub fn read_headers(&self) -> Result<HeaderMap, String> {
        check_subject(&self.subject, &self.headers).and_then(|()| read(&self.headers))
    }
}

/// Decodes a base64 field of the API, which is absent if it would be empty.
fn bytes(base64: &Value) -> Vec<u8> {
    base64.as_str().and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default()
}

/// Checks that the client can read a subject, as `async-nats` does in `connection.rs`. The API
/// writes U+FFFD for bytes that are not UTF-8. If there are headers, Unicode whitespace ends a
/// subject too.
fn check_subject(subject: &str, headers: &[u8]) -> Result<(), String> {
    if subject.contains(char::REPLACEMENT_CHARACTER) {
        return Err("subject can't be read: it is not UTF-8".to_owned());
    }
    if !headers.is_empty() && subject.contains(char::is_whitespace) {
        return Err("subject can't be read: it holds white space".to_owned());
    }
    Ok(())
}

/// Reads headers as the client does. Refuses those that the client can't read or takes for a status
/// of the server: see `async-nats`, `connection.rs`.
fn read(headers: &[u8]) -> Result<HeaderMap, String> {
    read_lines(headers).map_err(|why| format!("headers can't be read: {why}"))
}

fn read_lines(headers: &[u8]) -> Result<HeaderMap, String> {
    let mut read = HeaderMap::new();
    if headers.is_empty() {
        return Ok(read);
    }
    let text = str::from_utf8(headers).map_err(|_| "they are not UTF-8".to_owned())?;
    let mut lines = text.lines();
    match lines.next().and_then(|line| line.strip_prefix("NATS/1.0")).map(str::trim) {
        Some("") => {}
        Some(_) => return Err("they hold a status".to_owned()),
        None => return Err("they do not begin with NATS/1.0".to_owned()),
    }
    let mut last: Option<(HeaderName, String)> = None;
    for line in lines.filter(|line| !line.is_empty()) {
        if line.contains('\r') {
            return Err("a line holds a carriage return".to_owned());
        }
        if let Some((_, value)) = last.as_mut().filter(|_| line.starts_with(char::is_whitespace)) {
            value.push_str(line);
            continue;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| "a line has no colon".to_owned())?;
        let name = name.parse::<HeaderName>().map_err(|_| "a name is not valid".to_owned())?;
        if let Some((name, value)) = last.replace((name, value.trim_start().to_owned())) {
            read.append(name, value.trim_end());
        }
    }
    if let Some((name, value)) = last {
        read.append(name, value.trim_end());
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_subject_that_breaks_the_client_is_named() {
        let headers = b"NATS/1.0\r\n\r\n";
        for good in ["jobs", "jobs.openfaas-fn.figlet.id-1", "jobs.caf\u{e9}"] {
            assert_eq!(check_subject(good, headers), Ok(()), "{good}");
        }
        // Without headers, the client splits only at spaces.
        assert_eq!(check_subject("jobs.a\u{a0}b", b""), Ok(()));
        for (bad, why) in
            [("jobs.\u{fffd}", "UTF-8"), ("jobs.a\u{a0}b", "white space"), ("jobs.\u{b}", "white")]
        {
            let error = check_subject(bad, headers).unwrap_err();
            assert!(error.starts_with("subject can't be read") && error.contains(why), "{error}");
        }
    }

    proptest! {
        #[test]
        fn written_headers_read_back_and_any_bytes_are_safe(
            values in proptest::collection::vec(("[A-Za-z-]{1,8}", "[!-~]{0,8}"), 0..4),
            bytes in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            let lines: String = values
                .iter()
                .flat_map(|(name, value)| [name, ": ", value, "\r\n"])
                .collect();
            let headers = read(format!("NATS/1.0\r\n{lines}\r\n").as_bytes()).unwrap();
            for (name, value) in &values {
                prop_assert!(headers.get_all(name.as_str()).any(|read| read.as_str() == value));
            }
            let _ = read(&bytes);
            let _ = read(&[b"NATS/1.0\r\n", &bytes[..]].concat());
        }
    }

    #[test]
    fn headers_are_read_as_the_client_does() {
        let headers = read(b"NATS/1.0\r\nA:  b \r\nA: c\r\nD: e\r\n f \r\n\r\n").unwrap();
        let values = |name: &str| {
            headers.get_all(name).map(|value| value.as_str().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(
            (values("A"), values("D")),
            (vec!["b".to_owned(), "c".to_owned()], vec!["e f".to_owned()])
        );
    }

    #[test]
    fn only_headers_that_the_client_writes_can_be_read() {
        for good in [
            "",
            "NATS/1.0\r\n\r\n",
            "NATS/1.0\r\nA: b\r\nC:\r\n\r\n",
            "NATS/1.0\r\nA: b\r\n c\r\n\r\n",
        ] {
            assert!(read(good.as_bytes()).is_ok(), "{good:?}");
        }
        for (bad, why) in [
            (&b"NATS/1.0\r\nA: \xff\r\n\r\n"[..], "UTF-8"),
            (b"garbage", "NATS/1.0"),
            (b"NATS/9.9\r\nA: b\r\n\r\n", "NATS/1.0"),
            (b"NATS/1.0 503\r\n\r\n", "status"),
            (b"NATS/1.0\r\nno colon\r\n\r\n", "colon"),
            (b"NATS/1.0\r\n c: d\r\n\r\n", "name"),
            (b"NATS/1.0\r\na b: c\r\n\r\n", "name"),
            (b"NATS/1.0\r\nA: b\rc\r\n\r\n", "carriage return"),
        ] {
            let error = read(bad).unwrap_err();
            assert!(error.contains(why), "{}: {error}", bad.escape_ascii());
        }
    }
}
