//! Decides what the failure of a publish means for the message. No other module decides this.
//!
//! A refusal of this message is final, because a repeat gets the same answer. A stream or server
//! without room may have room later. Every other failure says nothing about the message: it may be
//! stored or not, and a repeat under the same message id is safe. The error codes are those of
//! nats-server (`server/errors.json`).

use std::{error::Error, time::Duration};

use async_nats::jetstream::{
    self, ErrorCode,
    context::{PublishError, PublishErrorKind},
};

use crate::error::find_cause;

/// Maximum size of the headers of a JetStream message, in bytes: nats-server counts them in 16
/// bits.
pub(crate) const MAX_HEADERS: usize = 64 * 1024 - 1;

/// Delay before a message that a cluster of servers is just storing is published again.
pub(crate) const CONFLICT_RETRY_DELAY: Duration = Duration::from_millis(20);

/// Why it is not certain that a message is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PublishFailure {
    /// This message is refused. Final.
    TooLarge(SizeLimit),
    /// The last message on the subject is not the expected one.
    Conflict,
    /// A cluster of servers is just storing a message under the same message id. Shortly afterwards
    /// it is stored or not: a repeat shows which.
    InProcess,
    /// The stream has reached its own limits.
    StreamFull,
    /// The account, the server or its disk has no room.
    NoSpace,
    /// No stream listens on the subject, or no server leads the stream now.
    NoStream,
    /// NATS is unavailable, or answered something else.
    Unavailable,
}

/// The limit that a message exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SizeLimit {
    /// `max_payload` of the server: headers and payload.
    MaxPayload,
    /// `max_msg_size` of the stream: headers and payload.
    MaxMsgSize,
    /// 64 KiB of headers alone, escapes included.
    Headers,
}

// === impl PublishFailure ===

impl PublishFailure {
    /// Returns what an error of a publish means, or an error that it caused.
    #[must_use]
    pub fn from_error(error: &(dyn Error + 'static)) -> Self {
        match find_cause::<PublishError>(error).map(PublishError::kind) {
            Some(PublishErrorKind::StreamNotFound) => return Self::NoStream,
            Some(PublishErrorKind::MaxPayloadExceeded) => {
                return Self::TooLarge(SizeLimit::MaxPayload);
            }
            Some(PublishErrorKind::WrongLastSequence) => return Self::Conflict,
            _ => {}
        }
        find_cause::<jetstream::Error>(error).map_or(Self::Unavailable, Self::from_server_error)
    }

    /// Returns what the server's error means.
    fn from_server_error(error: &jetstream::Error) -> Self {
        match error.error_code() {
            ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM => Self::TooLarge(SizeLimit::MaxMsgSize),
            ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM => Self::TooLarge(SizeLimit::Headers),
            ErrorCode::STREAM_WRONG_LAST_SEQUENCE
            | ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT => Self::Conflict,
            ErrorCode::STREAM_DUPLICATE_MESSAGE_CONFLICT => Self::InProcess,
            // One code stands for the stream's own limits ("maximum messages exceeded") and for a
            // store that fails.
            ErrorCode::STREAM_STORE_FAILED if error.to_string().contains("maximum ") => {
                Self::StreamFull
            }
            ErrorCode::STREAM_STORE_FAILED
            | ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
            | ErrorCode::INSUFFICIENT_RESOURCES
            | ErrorCode::MEMORY_RESOURCES_EXCEEDED
            | ErrorCode::STORAGE_RESOURCES_EXCEEDED => Self::NoSpace,
            _ => Self::Unavailable,
        }
    }

    /// Returns whether another message has the place of this one, or is about to have it: reading
    /// the stored message shows more.
    #[must_use]
    pub(crate) fn is_conflict_or_in_process(self) -> bool {
        matches!(self, Self::Conflict | Self::InProcess)
    }

    /// Returns the label value for metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooLarge(_) => "too_large",
            Self::Conflict => "conflict",
            Self::InProcess => "in_process",
            Self::StreamFull => "stream_full",
            Self::NoSpace => "no_space",
            Self::NoStream => "no_stream",
            Self::Unavailable => "unavailable",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(code: u64, description: &str) -> PublishFailure {
        let error =
            serde_json::json!({ "code": 400, "err_code": code, "description": description });
        PublishFailure::from_error(&serde_json::from_value::<jetstream::Error>(error).unwrap())
    }

    #[test]
    fn an_answer_about_the_message_is_final() {
        assert_eq!(
            answered(10054, "message size exceeds"),
            PublishFailure::TooLarge(SizeLimit::MaxMsgSize)
        );
        assert_eq!(
            answered(10097, "header size exceeds"),
            PublishFailure::TooLarge(SizeLimit::Headers)
        );
    }

    #[test]
    fn a_message_that_another_is_just_storing_is_no_refusal() {
        assert_eq!(answered(10071, "wrong last sequence: 1"), PublishFailure::Conflict);
        assert_eq!(
            answered(10158, "duplicate message id is in process"),
            PublishFailure::InProcess
        );
    }

    #[test]
    fn full_stream_is_distinguished_from_a_full_server() {
        assert_eq!(answered(10077, "maximum messages exceeded"), PublishFailure::StreamFull);
        assert_eq!(answered(10077, "no space left on device"), PublishFailure::NoSpace);
        for code in [10002, 10023, 10028, 10047] {
            assert_eq!(answered(code, "insufficient resources"), PublishFailure::NoSpace, "{code}");
        }
    }

    #[test]
    fn an_unknown_answer_says_nothing_about_the_message() {
        assert_eq!(answered(10999, "something new"), PublishFailure::Unavailable);
        assert_eq!(
            PublishFailure::from_error(&std::io::Error::other("broken")),
            PublishFailure::Unavailable
        );
        let error = PublishError::new(PublishErrorKind::MaxPayloadExceeded);
        assert_eq!(
            PublishFailure::from_error(&error),
            PublishFailure::TooLarge(SizeLimit::MaxPayload)
        );
    }
}
