//! Reads the message forms of an invocation, on a queue's stream.
//!
//! There are two forms, and each message has its own: the [native] one, which the gateway writes,
//! and the [`OpenFaaS`](openfaas) one, which existing gateways publish.

use async_nats::HeaderMap as NatsHeaders;
use bytes::Bytes;
use http::Method;
use jiff::Timestamp;

use crate::{
    call_id::CallId,
    invocation::{Invocation, MAX_TARGET},
    names::FunctionName,
};

pub mod callback;
pub mod dead_letter;
pub mod digest;
pub mod http_headers;
pub mod kept_result;
pub mod native;
pub mod openfaas;

/// Room for the headers of a message, in addition to its body, in bytes: as much as most servers
/// accept of them. A call with larger headers is refused too, but only by NATS.
pub const RESERVED_HEADER_BYTES: usize = 8 * 1024;

/// Values that the stream provides if a message of the `OpenFaaS` form lacks them.
#[derive(Clone, Debug)]
pub struct Fallback {
    /// The call id of a message that carries none, or one that is not a subject token. It is
    /// derived from the stream sequence, so that a redelivery has the same id.
    pub call_id: CallId,
    /// When the stream stored the message.
    pub stored_at: Timestamp,
    /// The namespace of a function that is named without one.
    pub namespace: String,
}

/// A message is not an invocation. Such a message becomes a dead letter and is never retried.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A header that the native form requires is missing.
    #[error("header {0} is missing")]
    Missing(&'static str),
    /// A field has a value that is not valid.
    #[error("{field} `{value}` is not valid: {rule}")]
    Invalid {
        /// Name of the header or key.
        field: &'static str,
        /// Value of the field, shortened.
        value: String,
        /// The rule for the value.
        rule: String,
    },
    /// The payload is not a JSON `QueueRequest`.
    #[error("payload is not an OpenFaaS QueueRequest: {0}")]
    NotQueueRequest(String),
    /// The form of the message has a later version than this program supports.
    #[error(
        "message version {0} is not known to this worker: upgrade it, then replay the dead letter"
    )]
    UnknownVersion(String),
    /// The NATS client can't read the headers or the subject of the message.
    #[error("its {0}")]
    Unreadable(String),
}

/// Reads an invocation from a message of either form. `fallback` is called if the form may lack
/// something.
pub fn decode(
    headers: &NatsHeaders,
    payload: &Bytes,
    fallback: impl FnOnce() -> Fallback,
) -> Result<Invocation, DecodeError> {
    if native::is_native(headers) {
        native::decode(headers, payload.clone())
    } else {
        openfaas::decode(payload, &fallback())
    }
}

/// Returns an error about `field`, whose value is shortened to fit into a log line.
fn invalid(field: &'static str, value: &str, rule: impl std::fmt::Display) -> DecodeError {
    const SHOWN: usize = 64;
    DecodeError::Invalid {
        field,
        value: value.chars().take(SHOWN).collect(),
        rule: rule.to_string(),
    }
}

/// Refuses a path and query that are too long for one URL with that of a function: no worker could
/// run the call.
fn check_target(path: &str, query: Option<&str>) -> Result<(), DecodeError> {
    match path.len() + query.map_or(0, str::len) {
        0..=MAX_TARGET => Ok(()),
        length => Err(invalid(
            "length of path and query",
            &length.to_string(),
            format_args!("at most {MAX_TARGET} bytes together"),
        )),
    }
}

/// Reads a method.
fn method(field: &'static str, text: &str) -> Result<Method, DecodeError> {
    match text.parse() {
        Ok(Method::CONNECT) => Err(invalid(field, text, "it asks for a tunnel")),
        Ok(method) => Ok(method),
        Err(error) => Err(invalid(field, text, error)),
    }
}

/// Reads `name.namespace`.
fn function_name(field: &'static str, text: &str) -> Result<FunctionName, DecodeError> {
    let (name, namespace) =
        text.rsplit_once('.').ok_or_else(|| invalid(field, text, "write it as name.namespace"))?;
    FunctionName::new(name, namespace).map_err(|e| invalid(field, text, e))
}
