//! A result on its way to the client. It is a separate message, so that a callback that fails is
//! retried without running the function again.
//!
//! The payload is the body of the function's response. NATS headers carry the rest, as in the
//! [native] form.

use std::time::Duration;

use async_nats::HeaderMap as NatsHeaders;
use bytes::Bytes;
use http::HeaderMap;

use super::{
    DecodeError, function_name, http_headers, invalid,
    native::{self, H_CALL_ID, H_CALLBACK_URL, H_DEPTH, H_FUNCTION, H_FUNCTION_NAME, written_name},
};
use crate::{
    EndState,
    call_id::CallId,
    invocation::{CallbackUrl, Invocation},
    names::FunctionName,
};

pub(super) const H_STATUS: &str = "Async-Status";
pub(super) const H_DURATION: &str = "Async-Duration-Microseconds";
pub(super) const H_ATTEMPT: &str = "Async-Attempt";
pub(super) const H_MAX_ATTEMPTS: &str = "Async-Max-Attempts";
/// The sequence of the call's message on the queue's stream.
pub(super) const H_SEQUENCE: &str = "Async-Sequence";
/// How the call ended.
pub(super) const H_END: &str = "Async-End";

/// [`crate::call::CANCELLED_STATUS`] as text. In results of earlier versions, only this shows that
/// the call was cancelled.
const CANCELLED_TEXT: &str = "499";

/// The end of a call, for its client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Callback {
    /// The call id.
    pub call_id: CallId,
    /// The sequence of the call's message on the queue's stream, which distinguishes calls with one
    /// id. 0 if the message is from an earlier version and does not contain it.
    pub sequence: u64,
    /// How the call ended.
    pub end: EndState,
    /// How many calls precede the call in its chain.
    pub depth: u32,
    /// The function that ran.
    pub function: FunctionName,
    /// The function's name as the client wrote it, if that differs.
    pub written_name: Option<String>,
    /// Where the result goes.
    pub url: CallbackUrl,
    /// The function's status, or the one that represents its failure: 504 for a timeout, 503 if it
    /// could not be reached.
    pub status: u16,
    /// How long the call took, in whole microseconds.
    pub duration: Duration,
    /// Number of the attempt that ended the call, from 1. 0 if there was no attempt.
    pub attempt: u64,
    /// Maximum number of attempts.
    pub max_attempts: u64,
    /// The headers of the function's response, without those of its connection.
    pub headers: HeaderMap,
    /// The body of the function's response.
    pub body: Bytes,
}

// === impl Callback ===

impl Callback {
    /// Creates the result of a call that ended without a response of its function: no attempt, no
    /// headers, no body.
    #[doc(hidden)]
    #[must_use]
    pub fn new(
        call: &Invocation,
        url: CallbackUrl,
        sequence: u64,
        end: EndState,
        status: u16,
    ) -> Self {
        Self {
            call_id: call.call_id.clone(),
            sequence,
            end,
            depth: call.depth,
            function: call.function.clone(),
            written_name: call.written_name.clone(),
            url,
            status,
            duration: Duration::ZERO,
            attempt: 0,
            max_attempts: 0,
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }
    }

    /// Returns the message id of the result of a call: the call id, and the sequence of the call on
    /// the queue's stream.
    #[doc(hidden)]
    #[must_use]
    pub fn message_id(call_id: &CallId, sequence: u64) -> String {
        format!("{call_id}.{sequence}")
    }

    /// Returns the id of the event that the receiver gets. It is the same for repeats of the
    /// callback. It differs for another call with the id and for another end of the call.
    #[must_use]
    pub fn event_id(&self) -> String {
        format!("{}_{}_{}", self.call_id, self.sequence, self.end)
    }

    /// Returns the function's name as the client wrote it.
    #[must_use]
    pub fn function_as_written(&self) -> String {
        self.written_name.clone().unwrap_or_else(|| self.function.to_string())
    }

    /// Returns the NATS headers of a callback; the payload is its body.
    ///
    /// Two workers may both run a call, because one lost its lease. Because of `Nats-Msg-Id`, only
    /// one of them calls back. A call id that is used again later belongs to another call.
    #[doc(hidden)]
    #[must_use]
    pub fn encode(&self) -> NatsHeaders {
        let mut headers = NatsHeaders::new();
        let message_id = Self::message_id(&self.call_id, self.sequence);
        headers.insert(async_nats::header::NATS_MESSAGE_ID, message_id);
        headers.insert(H_CALL_ID, self.call_id.as_str());
        headers.insert(H_SEQUENCE, self.sequence.to_string());
        headers.insert(H_END, self.end.as_str());
        if self.depth > 0 {
            headers.insert(H_DEPTH, self.depth.to_string());
        }
        headers.insert(H_FUNCTION, self.function.to_string());
        if let Some(name) = &self.written_name {
            headers.insert(H_FUNCTION_NAME, name.as_str());
        }
        headers.insert(H_CALLBACK_URL, self.url.as_url().as_str());
        headers.insert(H_STATUS, self.status.to_string());
        headers.insert(H_DURATION, self.duration.as_micros().to_string());
        headers.insert(H_ATTEMPT, self.attempt.to_string());
        headers.insert(H_MAX_ATTEMPTS, self.max_attempts.to_string());
        http_headers::append(&mut headers, &self.headers);
        headers
    }

    /// Reads what [`Callback::encode`] wrote, in this version or an earlier one.
    #[doc(hidden)]
    pub fn decode(headers: &NatsHeaders, body: Bytes) -> Result<Self, DecodeError> {
        let get = |name: &'static str| headers.get(name).map(async_nats::HeaderValue::as_str);
        let require = |name: &'static str| get(name).ok_or(DecodeError::Missing(name));
        let number = |name| {
            let text = require(name)?;
            text.parse::<u64>().map_err(|e| invalid(name, text, e))
        };
        let (call_id, status) = (require(H_CALL_ID)?, require(H_STATUS)?);
        let sequence = match get(H_SEQUENCE) {
            Some(_) => number(H_SEQUENCE)?,
            None => sequence_in_message_id(headers, call_id).unwrap_or_default(),
        };
        let end = match get(H_END) {
            Some(text) => text.parse().map_err(|e| invalid(H_END, text, e))?,
            None if status == CANCELLED_TEXT => EndState::Cancelled,
            None => EndState::Done,
        };
        let depth = match get(H_DEPTH) {
            Some(text) => text.parse().map_err(|e| invalid(H_DEPTH, text, e))?,
            None => 0,
        };
        Ok(Self {
            call_id: call_id.parse().map_err(|e| invalid(H_CALL_ID, call_id, e))?,
            sequence,
            end,
            depth,
            function: function_name(H_FUNCTION, require(H_FUNCTION)?)?,
            written_name: get(H_FUNCTION_NAME).and_then(written_name),
            url: CallbackUrl::parse(require(H_CALLBACK_URL)?)
                .map_err(|e| invalid(H_CALLBACK_URL, "…", e))?,
            status: status.parse().map_err(|e| invalid(H_STATUS, status, e))?,
            duration: Duration::from_micros(number(H_DURATION)?),
            attempt: number(H_ATTEMPT)?,
            max_attempts: number(H_MAX_ATTEMPTS)?,
            headers: http_headers::read(headers)?,
            body,
        })
    }
}

/// Returns the sequence of the call from the message id: results of earlier versions have it only
/// there.
fn sequence_in_message_id(headers: &NatsHeaders, call_id: &str) -> Option<u64> {
    // Not the number of a dead letter, with which the id of a replay ends.
    native::message_id(headers)?.strip_prefix(call_id)?.strip_prefix('.')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Callback {
        Callback {
            call_id: "id-1".parse().unwrap(),
            sequence: 7,
            end: EndState::Done,
            depth: 2,
            function: FunctionName::new("figlet", "openfaas-fn").unwrap(),
            written_name: Some("figlet".to_owned()),
            url: CallbackUrl::parse("http://user:p%20s@h:1/cb?t=1").unwrap(),
            status: 200,
            duration: Duration::from_micros(2_843),
            attempt: 2,
            max_attempts: 10,
            headers: HeaderMap::from_iter([(
                http::header::CONTENT_TYPE,
                "text/plain".parse().unwrap(),
            )]),
            body: Bytes::from_static(b"\x00\xffbody"),
        }
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let callback = sample();
        assert_eq!(Callback::decode(&callback.encode(), callback.body.clone()).unwrap(), callback);
    }

    #[test]
    fn results_of_version_1_have_their_sequence_in_the_message_id() {
        let mut headers = NatsHeaders::new();
        for (name, values) in sample().encode().iter() {
            if ![H_SEQUENCE, H_END, H_DEPTH].contains(&name.to_string().as_str()) {
                for value in values {
                    headers.append(name.clone(), value.clone());
                }
            }
        }
        let decoded = |headers: &NatsHeaders| Callback::decode(headers, Bytes::new()).unwrap();
        assert_eq!((decoded(&headers).sequence, decoded(&headers).end), (7, EndState::Done));
        headers.insert(H_STATUS, "499");
        assert_eq!(decoded(&headers).end, EndState::Cancelled);
        for other in ["something", "id-1.replay.3"] {
            headers.insert(async_nats::header::NATS_MESSAGE_ID, other);
            assert_eq!((decoded(&headers).sequence, decoded(&headers).depth), (0, 0), "{other}");
        }
        headers.insert(native::H_MESSAGE_ID, "id-1.7");
        assert_eq!(decoded(&headers).sequence, 7);
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        assert_eq!(
            Callback::decode(&NatsHeaders::new(), Bytes::new()),
            Err(DecodeError::Missing(H_CALL_ID))
        );
        for name in [
            H_CALL_ID,
            H_FUNCTION,
            H_CALLBACK_URL,
            H_STATUS,
            H_DURATION,
            H_ATTEMPT,
            H_MAX_ATTEMPTS,
            H_SEQUENCE,
            H_END,
            H_DEPTH,
        ] {
            let mut headers = sample().encode();
            headers.insert(name, "no such thing");
            let error = Callback::decode(&headers, Bytes::new()).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
