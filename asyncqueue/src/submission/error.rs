//! Why what a client sent is not a call.

use http::StatusCode;

use crate::{
    batch::MAX_CALLS,
    call_id::CallIdError,
    delay::DelayRefused,
    duration::ParseDurationError,
    idempotency::{IdempotencyKeyError, MAX_KEY},
    invocation::{CallbackUrlError, MAX_TARGET},
    names::{NameError, QueueName},
};

/// The reason why a call, or a batch of calls, is refused before it is stored. Its text says what
/// is wrong, with which value, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum SubmissionError {
    /// The path ends where the function's name should follow.
    #[error("missing function name: use /async-function/NAME or /async-function/NAME.NAMESPACE")]
    NoFunction,
    /// The function's name is not valid.
    #[error(transparent)]
    FunctionName(#[from] NameError),
    /// A `%` in the path does not begin a valid escape.
    #[error(
        "path: `{escape}` is not a valid percent escape: write two hex digits after `%`, or `%25` \
         for a `%`"
    )]
    InvalidEscape {
        /// The `%` and what follows it.
        escape: String,
    },
    /// The path or the query contains white space that is not escaped.
    #[error(
        "path or query: white space (U+{:04X}) is not percent-encoded: write its bytes as %XX",
        u32::from(*.space)
    )]
    UnescapedWhitespace {
        /// The first white-space character.
        space: char,
    },
    /// The path or the query can't be those of a request.
    #[error(
        "path or query is not valid: begin the path with `/`, write other characters than those of \
         a URL as %XX, and leave out `?` and `#`"
    )]
    InvalidTarget,
    /// Path and query together are too long for an invocation.
    #[error("path and query are longer than {MAX_TARGET} bytes together: move data to the body")]
    TargetTooLong,
    /// A header that may occur once occurs twice.
    #[error("{0} is given more than once: send it once")]
    RepeatedHeader(&'static str),
    /// A header's value is not UTF-8.
    #[error("{0} is not valid UTF-8: send UTF-8 text")]
    HeaderNotText(&'static str),
    /// A call id is not valid.
    #[error("{field}: {error}")]
    CallId {
        /// The header or part of the path that holds it.
        field: &'static str,
        /// What is wrong with it.
        error: CallIdError,
    },
    /// An idempotency key is not valid.
    #[error(
        "Idempotency-Key `{value}` is not valid: {error}; \
         send 1 to {MAX_KEY} characters of ASCII, bare or as \"…\""
    )]
    IdempotencyKey {
        /// The value that was sent, shortened.
        value: String,
        /// What is wrong with it.
        error: IdempotencyKeyError,
    },
    /// The value of `X-Async-Depth` is not a number.
    #[error(
        "X-Async-Depth `{value}` is not valid: send the decimal number that the function \
         received"
    )]
    InvalidDepth {
        /// The value that was sent, shortened.
        value: String,
    },
    /// A chain of calls is too long.
    #[error(
        "{depth} calls came before this one in its chain (X-Async-Depth); max_chain_depth of the \
         gateway is {max}: check whether functions call each other in a loop"
    )]
    ChainTooDeep {
        /// How many calls came before.
        depth: u32,
        /// How many calls may come before.
        max: u32,
    },
    /// The value of `X-Delay` is not a duration.
    #[error("X-Delay: {0}")]
    InvalidDelay(ParseDurationError),
    /// The value of `X-Not-Before` is not a time.
    #[error(
        "X-Not-Before `{value}` is not valid: send a time with seconds and zone as RFC 3339 \
         writes it, such as 2026-12-24T18:00:00Z or 2026-12-24T18:00:00+01:00"
    )]
    InvalidNotBefore {
        /// The value that was sent, shortened.
        value: String,
    },
    /// A call has a delay in both forms.
    #[error("X-Delay and X-Not-Before are given: send one of them")]
    TwoDelays,
    /// The queue does not accept the delay of the call.
    #[error("queue `{queue}`: {error}")]
    Delay {
        /// The function's queue.
        queue: QueueName,
        /// Why it does not accept the delay.
        error: DelayRefused,
    },
    /// The callback URL is not valid.
    #[error("{error} (it is `{value}`)")]
    CallbackUrl {
        /// The value that was sent, shortened.
        value: String,
        /// What is wrong with it.
        error: CallbackUrlError,
    },
    /// The result of a call can't be kept for as long as its client asks.
    #[error("X-Keep-Result `{value}` is not valid: {rule}")]
    KeepResult {
        /// The value that was sent, shortened.
        value: String,
        /// The rule, and what to do.
        rule: String,
    },
    /// The call could never become a dead letter, even without its headers and its body.
    #[error(
        "path, query and X-Callback-Url are longer than {limit} bytes together, the maximum for a \
         dead letter: move data to the body"
    )]
    TooLargeForDeadLetter {
        /// The limit, in bytes.
        limit: usize,
    },
    /// A line of a batch is not a call.
    #[error("{reason}")]
    BatchLine {
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A batch has no line.
    #[error("the batch is empty: send one JSON object a line, 1 to {MAX_CALLS} lines")]
    BatchEmpty,
    /// A batch has too many lines.
    #[error("the batch has more than {MAX_CALLS} lines: send several batches")]
    BatchTooLong,
    /// The calls of a batch belong to several queues.
    #[error(
        "its function belongs to queue `{other}`, and that of line 1 to queue `{queue}`: send a \
         batch for each queue"
    )]
    BatchQueues {
        /// The queue of the first call.
        queue: QueueName,
        /// The queue of this call.
        other: QueueName,
    },
    /// A line of a batch is refused.
    #[error("line {line}: {error}")]
    InLine {
        /// Number of the line, from 1.
        line: usize,
        /// Why it is refused.
        error: Box<SubmissionError>,
    },
}

// === impl SubmissionError ===

impl SubmissionError {
    /// Adds the line of a batch to which the error belongs.
    #[must_use]
    pub fn in_line(self, line: usize) -> Self {
        Self::InLine { line, error: Box::new(self) }
    }

    /// Returns the status with which a gateway answers.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::InLine { error, .. } => error.status(),
            Self::FunctionName(_)
            | Self::BatchLine { .. }
            | Self::BatchEmpty
            | Self::BatchQueues { .. }
            | Self::InvalidTarget
            | Self::InvalidEscape { .. }
            | Self::UnescapedWhitespace { .. }
            | Self::RepeatedHeader(_)
            | Self::HeaderNotText(_)
            | Self::CallId { .. }
            | Self::CallbackUrl { .. }
            | Self::IdempotencyKey { .. }
            | Self::InvalidDepth { .. }
            | Self::InvalidDelay(_)
            | Self::InvalidNotBefore { .. }
            | Self::TwoDelays
            | Self::Delay { .. }
            | Self::KeepResult { .. } => StatusCode::BAD_REQUEST,
            Self::NoFunction => StatusCode::NOT_FOUND,
            Self::ChainTooDeep { .. } => StatusCode::LOOP_DETECTED,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::BatchTooLong | Self::TooLargeForDeadLetter { .. } => {
                StatusCode::PAYLOAD_TOO_LARGE
            }
        }
    }

    /// Returns the value of a metric label: one of a fixed set.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::InLine { error, .. } => error.category(),
            Self::BatchLine { .. } | Self::InvalidTarget | Self::BatchEmpty => "batch",
            Self::BatchTooLong => "batch_size",
            Self::BatchQueues { .. } => "batch_queues",
            Self::NoFunction => "no_function",
            Self::FunctionName(_) => "function_name",
            Self::InvalidEscape { .. } | Self::UnescapedWhitespace { .. } | Self::TargetTooLong => {
                "path"
            }
            Self::RepeatedHeader(_) => "repeated_header",
            Self::HeaderNotText(_) => "header_not_text",
            Self::CallId { .. } => "call_id",
            Self::CallbackUrl { .. } => "callback_url",
            Self::IdempotencyKey { .. } => "idempotency_key",
            Self::KeepResult { .. } => "keep_result",
            Self::InvalidDepth { .. } => "depth",
            Self::ChainTooDeep { .. } => "chain_depth",
            Self::InvalidDelay(_)
            | Self::InvalidNotBefore { .. }
            | Self::TwoDelays
            | Self::Delay { .. } => "delay",
            Self::TooLargeForDeadLetter { .. } => "too_large",
        }
    }
}
