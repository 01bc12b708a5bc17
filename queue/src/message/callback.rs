//! A result on its way to the caller: a message of its own, so that a callback that fails is tried again
//! without running the function again.
//!
//! The payload is the function's answer; NATS headers carry the rest, as in the [native](super::native) form.

use std::time::Duration;

use async_nats::HeaderMap as NatsHeaders;
use bytes::Bytes;
use http::HeaderMap;

use super::{DecodeError, function_name, http_lines, invalid};
use crate::{call_id::CallId, invocation::CallbackUrl, name::FunctionName};

const H_CALL_ID: &str = "Async-Call-Id";
const H_FUNCTION: &str = "Async-Function";
const H_CALLBACK_URL: &str = "Async-Callback-Url";
const H_STATUS: &str = "Async-Status";
const H_DURATION: &str = "Async-Duration-Microseconds";
const H_ATTEMPT: &str = "Async-Attempt";
const H_MAX_ATTEMPTS: &str = "Async-Max-Attempts";

/// The end of a call, for its caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Callback {
    /// The call.
    pub call_id: CallId,
    /// The function that ran.
    pub function: FunctionName,
    /// Where the result goes.
    pub url: CallbackUrl,
    /// The function's status, or the one that stands for its failure: 504 for a timeout, 503 where it
    /// could not be reached.
    pub status: u16,
    /// How long the call took, in whole microseconds.
    pub duration: Duration,
    /// The attempt that ended it, from 1; 0 where none was made.
    pub attempt: u64,
    /// How many there could have been.
    pub max_attempts: u64,
    /// The headers of the function's answer, without those of its connection.
    pub headers: HeaderMap,
    /// The body of the function's answer.
    pub body: Bytes,
}

// === impl Callback ===

impl Callback {
    /// The NATS headers of a callback; the payload is its body.
    ///
    /// `Nats-Msg-Id` is the call id and `sequence`, at which the call's own message is on the queue's stream: of
    /// two workers that both ran a call, because one lost its lease, only one calls back, and a call id that
    /// is used again later is another call.
    #[must_use]
    pub fn encode(&self, sequence: u64) -> NatsHeaders {
        let mut headers = NatsHeaders::new();
        headers.insert(async_nats::header::NATS_MESSAGE_ID, format!("{}.{sequence}", self.call_id));
        headers.insert(H_CALL_ID, self.call_id.as_str());
        headers.insert(H_FUNCTION, self.function.to_string());
        headers.insert(H_CALLBACK_URL, self.url.as_url().as_str());
        headers.insert(H_STATUS, self.status.to_string());
        headers.insert(H_DURATION, self.duration.as_micros().to_string());
        headers.insert(H_ATTEMPT, self.attempt.to_string());
        headers.insert(H_MAX_ATTEMPTS, self.max_attempts.to_string());
        http_lines::append(&mut headers, &self.headers);
        headers
    }

    /// Reads what [`Callback::encode`] wrote.
    pub fn decode(headers: &NatsHeaders, body: Bytes) -> Result<Self, DecodeError> {
        let require = |name: &'static str| {
            headers.get(name).map(async_nats::HeaderValue::as_str).ok_or(DecodeError::Missing(name))
        };
        let number = |name| {
            let text = require(name)?;
            text.parse::<u64>().map_err(|e| invalid(name, text, e))
        };
        let (call_id, status) = (require(H_CALL_ID)?, require(H_STATUS)?);
        Ok(Self {
            call_id: call_id.parse().map_err(|e| invalid(H_CALL_ID, call_id, e))?,
            function: function_name(H_FUNCTION, require(H_FUNCTION)?)?,
            url: CallbackUrl::parse(require(H_CALLBACK_URL)?).map_err(|e| invalid(H_CALLBACK_URL, "…", e))?,
            status: status.parse().map_err(|e| invalid(H_STATUS, status, e))?,
            duration: Duration::from_micros(number(H_DURATION)?),
            attempt: number(H_ATTEMPT)?,
            max_attempts: number(H_MAX_ATTEMPTS)?,
            headers: http_lines::read(headers)?,
            body,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Callback {
        Callback {
            call_id: "id-1".parse().unwrap(),
            function: FunctionName::new("figlet", "openfaas-fn").unwrap(),
            url: CallbackUrl::parse("http://user:p%20s@h:1/cb?t=1").unwrap(),
            status: 200,
            duration: Duration::from_micros(2_843),
            attempt: 2,
            max_attempts: 10,
            headers: HeaderMap::from_iter([(http::header::CONTENT_TYPE, "text/plain".parse().unwrap())]),
            body: Bytes::from_static(b"\x00\xffbody"),
        }
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let callback = sample();
        assert_eq!(Callback::decode(&callback.encode(7), callback.body.clone()).unwrap(), callback);
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        assert_eq!(Callback::decode(&NatsHeaders::new(), Bytes::new()), Err(DecodeError::Missing(H_CALL_ID)));
        for name in [H_CALL_ID, H_FUNCTION, H_CALLBACK_URL, H_STATUS, H_DURATION, H_ATTEMPT, H_MAX_ATTEMPTS] {
            let mut headers = sample().encode(7);
            headers.insert(name, "no such thing");
            let error = Callback::decode(&headers, Bytes::new()).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
