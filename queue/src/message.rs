//! The message forms of an invocation, on a queue's stream.
//!
//! Two are read, message by message: the [native] one, which the gateway writes, and the
//! [`OpenFaaS`](openfaas) one, which existing gateways publish.

use async_nats::HeaderMap as NatsHeaders;
use bytes::Bytes;
use http::Method;
use jiff::Timestamp;

use crate::{
    call_id::CallId,
    invocation::{Invocation, MAX_TARGET},
    name::FunctionName,
};

pub mod callback;
pub mod dead_letter;
pub mod digest;
pub mod http_lines;
pub mod native;
pub mod openfaas;

/// Room that a message needs besides its body, for its headers, in bytes: as much as most servers take of them. A call with
/// more is refused too, though only when NATS does so.
pub const HEADER_ROOM: usize = 8 * 1024;

/// What a message of the `OpenFaaS` form may lack and the stream knows in its place.
#[derive(Clone, Debug)]
pub struct Fallback {
    /// The call id for a message that carries none, or one that is no subject token. Derived from the
    /// stream sequence, so that a redelivery has the same.
    pub call_id: CallId,
    /// When the stream stored the message.
    pub stored_at: Timestamp,
    /// The namespace of a function that is named without one.
    pub namespace: String,
}

/// Why a message is no invocation. Such a message becomes a dead letter; it is never tried again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A header that the native form requires is missing.
    #[error("header {0} is missing")]
    Missing(&'static str),
    /// A field holds what it must not.
    #[error("{field} `{value}` is not valid: {rule}")]
    Invalid {
        /// The header or key.
        field: &'static str,
        /// Its value, shortened.
        value: String,
        /// What it must be.
        rule: String,
    },
    /// The payload is not a JSON `QueueRequest`.
    #[error("payload is not an OpenFaaS QueueRequest: {0}")]
    NotQueueRequest(String),
    /// The message says that it is of a later form than this program knows.
    #[error("message version {0} is not known to this worker: upgrade it, then replay the dead letter")]
    UnknownVersion(String),
    /// The client of NATS can't read the message: its headers or its subject.
    #[error("its {0}")]
    Unreadable(String),
}

/// Reads an invocation from a message of either form. `fallback` is asked for where the form may lack something.
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

/// An error about `field`, whose value is cut to what fits into a log line.
fn invalid(field: &'static str, value: &str, rule: impl std::fmt::Display) -> DecodeError {
    const SHOWN: usize = 64;
    DecodeError::Invalid { field, value: value.chars().take(SHOWN).collect(), rule: rule.to_string() }
}

/// Refuses a path and query that are no URL together with that of a function: nobody could make the call.
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
        Ok(Method::CONNECT) => Err(invalid(field, text, "it asks for a tunnel and is no call")),
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
