//! The result of a call, as it is kept for its client: the end of the call, and what the function
//! answered.
//!
//! The payload is the body of the function's response. NATS headers carry the rest, as in a
//! [`callback`](super::callback).

use std::time::Duration;

use async_nats::{HeaderMap as NatsHeaders, header::NATS_MARKER_REASON};
use bytes::Bytes;
use http::HeaderMap;

use super::{
    DecodeError,
    callback::{H_ATTEMPT, H_DURATION, H_END, H_MAX_ATTEMPTS, H_SEQUENCE, H_STATUS},
    function_name, http_headers, invalid,
    native::{H_CALL_ID, H_FUNCTION},
};
use crate::{
    call::CallRef, call_id::CallId, end_state::EndState, invocation::Invocation,
    names::FunctionName,
};

/// How many bytes of the body were left out.
const H_OMITTED: &str = "Async-Result-Omitted";

/// The result of a call, as it is kept for its client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptResult {
    /// The call id.
    pub call_id: CallId,
    /// The sequence of the call's message on the queue's stream.
    pub sequence: u64,
    /// How the call ended.
    pub end: EndState,
    /// The function that ran.
    pub function: FunctionName,
    /// The function's status, or the one that represents its failure.
    pub status: u16,
    /// How long the last attempt took, in whole microseconds.
    pub duration: Duration,
    /// Number of the attempt that ended the call, from 1. 0 if there was no attempt.
    pub attempt: u64,
    /// Maximum number of attempts.
    pub max_attempts: u64,
    /// How many bytes of the body were left out, because the result did not fit.
    pub omitted: Option<u64>,
    /// The headers of the function's response, without those of its connection.
    pub headers: HeaderMap,
    /// The body of the function's response.
    pub body: Bytes,
}

/// How much of a result is stored. A form that does not fit is followed by the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeptForm {
    Whole,
    WithoutBody,
    /// The headers are more than NATS stores.
    EndOnly,
}

/// Returns whether a message is no result, but says that the result of its subject is not kept any
/// more.
#[must_use]
pub(crate) fn is_marker(headers: &NatsHeaders) -> bool {
    headers.get(NATS_MARKER_REASON).is_some()
}

// === impl KeptForm ===

impl KeptForm {
    /// All forms, the most complete one first.
    pub(crate) const ALL: [Self; 3] = [Self::Whole, Self::WithoutBody, Self::EndOnly];

    /// Returns a result in this form.
    pub(crate) fn apply(self, result: &KeptResult) -> KeptResult {
        let mut form = result.clone();
        if self != Self::Whole {
            let length = u64::try_from(result.body.len()).unwrap_or(u64::MAX);
            form.omitted = Some(result.omitted.unwrap_or_default().saturating_add(length));
            form.body = Bytes::new();
        }
        if self == Self::EndOnly {
            form.headers = HeaderMap::new();
        }
        form
    }
}

// === impl KeptResult ===

impl KeptResult {
    /// Creates the result of a call that ended without a response of its function.
    #[must_use]
    pub fn new(call: &Invocation, sequence: u64, end: EndState, status: u16) -> Self {
        Self {
            call_id: call.call_id.clone(),
            sequence,
            end,
            function: call.function.clone(),
            status,
            duration: Duration::ZERO,
            attempt: 0,
            max_attempts: 0,
            omitted: None,
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }
    }

    /// Returns the call that ended so.
    #[must_use]
    pub fn call(&self) -> CallRef {
        CallRef { id: self.call_id.clone(), sequence: self.sequence }
    }

    /// Returns the NATS headers of a result; the payload is its body.
    #[must_use]
    pub fn encode(&self) -> NatsHeaders {
        let mut headers = NatsHeaders::new();
        headers.insert(H_CALL_ID, self.call_id.as_str());
        headers.insert(H_SEQUENCE, self.sequence.to_string());
        headers.insert(H_END, self.end.as_str());
        headers.insert(H_FUNCTION, self.function.to_string());
        headers.insert(H_STATUS, self.status.to_string());
        headers.insert(H_DURATION, self.duration.as_micros().to_string());
        headers.insert(H_ATTEMPT, self.attempt.to_string());
        headers.insert(H_MAX_ATTEMPTS, self.max_attempts.to_string());
        if let Some(bytes) = self.omitted {
            headers.insert(H_OMITTED, bytes.to_string());
        }
        http_headers::append(&mut headers, &self.headers);
        headers
    }

    /// Reads what [`KeptResult::encode`] wrote.
    pub fn decode(headers: &NatsHeaders, body: Bytes) -> Result<Self, DecodeError> {
        let get = |name: &'static str| headers.get(name).map(async_nats::HeaderValue::as_str);
        let require = |name: &'static str| get(name).ok_or(DecodeError::Missing(name));
        let parse = |name, text: &str| text.parse::<u64>().map_err(|e| invalid(name, text, e));
        let number = |name| parse(name, require(name)?);
        let (call_id, status, end) = (require(H_CALL_ID)?, require(H_STATUS)?, require(H_END)?);
        Ok(Self {
            call_id: call_id.parse().map_err(|e| invalid(H_CALL_ID, call_id, e))?,
            sequence: number(H_SEQUENCE)?,
            end: end.parse().map_err(|e| invalid(H_END, end, e))?,
            function: function_name(H_FUNCTION, require(H_FUNCTION)?)?,
            status: status.parse().map_err(|e| invalid(H_STATUS, status, e))?,
            duration: Duration::from_micros(number(H_DURATION)?),
            attempt: number(H_ATTEMPT)?,
            max_attempts: number(H_MAX_ATTEMPTS)?,
            omitted: get(H_OMITTED).map(|text| parse(H_OMITTED, text)).transpose()?,
            headers: http_headers::read(headers)?,
            body,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> KeptResult {
        let function = FunctionName::new("figlet", "openfaas-fn").unwrap();
        let call = Invocation::new("id-1".parse().unwrap(), function, "");
        let mut headers = HeaderMap::new();
        headers.append("set-cookie", "a=1".parse().unwrap());
        headers.append("set-cookie", "b=2".parse().unwrap());
        KeptResult {
            duration: Duration::from_micros(2_843),
            attempt: 2,
            max_attempts: 10,
            headers,
            body: Bytes::from_static(b"\x00\xffbody"),
            ..KeptResult::new(&call, 7, EndState::Done, 200)
        }
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        for form in KeptForm::ALL {
            let result = form.apply(&sample());
            let decoded = KeptResult::decode(&result.encode(), result.body.clone()).unwrap();
            assert_eq!(decoded, result, "{form:?}");
        }
    }

    #[test]
    fn omitted_body_is_counted() {
        assert_eq!(KeptForm::Whole.apply(&sample()), sample());
        let without_body = KeptForm::WithoutBody.apply(&sample());
        assert_eq!((without_body.omitted, without_body.headers.len()), (Some(6), 2));
        let end_only = KeptForm::EndOnly.apply(&sample());
        assert_eq!((end_only.omitted, end_only.headers.len()), (Some(6), 0));
        assert_eq!((end_only.end, end_only.status), (EndState::Done, 200));
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        assert_eq!(
            KeptResult::decode(&NatsHeaders::new(), Bytes::new()),
            Err(DecodeError::Missing(H_CALL_ID))
        );
        for name in [H_CALL_ID, H_SEQUENCE, H_END, H_FUNCTION, H_STATUS, H_DURATION, H_OMITTED] {
            let mut headers = sample().encode();
            headers.insert(name, "no such thing");
            let error = KeptResult::decode(&headers, Bytes::new()).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
