//! Why a request is rejected: the only error of this program that a client sees.

use std::time::Duration;

use asyncqueue::{
    CallId, CallIdError, CallbackUrlError, FunctionName, GoDuration, IdempotencyKeyError,
    NameError, ParseDurationError, QueueName,
    batch::MAX_CALLS,
    buckets,
    delay::DelayRefused,
    function_namespaces::NamespaceRefused,
    idempotency::MAX_KEY,
    invocation::MAX_TARGET,
    jetstream::NatsError,
    submit::{BatchError, SubmitError},
};
use asyncqueue_runtime::{byte_size::ByteSize, error};
use http::{Method, StatusCode};

use crate::base_url::ProxyTarget;

/// Delay for a retry after NATS was unavailable: once NATS is back, a reconnect takes at most a few
/// seconds.
const RETRY_AFTER_UNAVAILABLE: Duration = Duration::from_secs(5);

/// Delay for a retry after a queue was full: one call that ends makes room, but many clients wait
/// for that.
const RETRY_AFTER_QUEUE_FULL: Duration = Duration::from_secs(10);

/// Delay for a retry after a limit of this program was reached: the operations under the limit end
/// within milliseconds.
const RETRY_AFTER_OVERLOAD: Duration = Duration::from_secs(1);

/// All values of [`Rejection::category`], besides those of a `SubmitError`.
pub(crate) const CATEGORIES: [&str; 42] = [
    "no_function",
    "function_name",
    "path",
    "repeated_header",
    "header_not_text",
    "call_id",
    "callback_url",
    "idempotency_key",
    "keep_result",
    "wait",
    "depth",
    "chain_depth",
    "delay",
    "loop",
    "body",
    "unknown_function",
    "namespace",
    "no_call_id",
    "unknown_call",
    "ended",
    "result_not_kept",
    "result_forbidden",
    "not_cancelled_yet",
    "store_full",
    "unavailable",
    "busy",
    "not_found",
    "method",
    "body_timeout",
    "too_large",
    "no_directory",
    "no_jetstream",
    "unreachable",
    "no_answer",
    "unreadable_answer",
    "batch",
    "batch_size",
    "batch_queues",
    "batch_id_in_use",
    "unknown_batch",
    "call_id_in_use",
    "no_batches",
];

/// The reason why a request is rejected. Its text is for the client: what is wrong, with which
/// value, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Rejection {
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
    /// Another server may interpret the path as that of another function.
    #[error(
        "path: other servers may interpret it differently: use /async-function/NAME or \
         /function/NAME without `//`, `.`, `..` and escapes up to the end of the name, and no `..` \
         after the name that leads above the function"
    )]
    AmbiguousPath,
    /// The path or the query contains white space that is not escaped.
    #[error(
        "path or query: white space (U+{:04X}) is not percent-encoded: write its bytes as %XX",
        u32::from(*.space)
    )]
    UnescapedWhitespace {
        /// The first white-space character.
        space: char,
    },
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
    /// The request has passed through this gateway too often.
    #[error(
        "the request has passed through this gateway {hops} times (Via); max_hops of the gateway \
         is {max}: check whether upstream_url or a function leads back to the gateway"
    )]
    TooManyHops {
        /// How often it has passed through.
        hops: usize,
        /// How often it may pass through.
        max: usize,
    },
    /// The path ends where a call's id should follow.
    #[error("missing call id: use /async-function/CALL-ID or /async-function/NAME/CALL-ID")]
    NoCallId,
    /// The callback URL is not valid.
    #[error("{error} (it is `{value}`)")]
    CallbackUrl {
        /// The value that was sent, shortened.
        value: String,
        /// What is wrong with it.
        error: CallbackUrlError,
    },
    /// The body ended early, or its transfer coding is not valid.
    #[error("failed to read the body: {0}")]
    InvalidBody(String),
    /// The directory does not have the function, and such calls are rejected.
    #[error("function `{0}` not found: check its name and namespace, or deploy it")]
    UnknownFunction(FunctionName),
    /// Functions of this namespace may not be called.
    #[error(transparent)]
    Namespace(#[from] NamespaceRefused),
    /// Nothing is served at the path.
    #[error(
        "nothing is served at this path: call functions at /async-function/NAME or /function/NAME"
    )]
    NotFound,
    /// The path does not support the method.
    #[error("method {method} is not allowed here: use {allow}")]
    MethodNotAllowed {
        /// The method of the request.
        method: Method,
        /// The supported methods, as `Allow` lists them.
        allow: &'static str,
    },
    /// The body took too long to arrive.
    #[error("the body did not arrive within {}: send it faster, or send less", GoDuration(*.0))]
    BodyTimeout(Duration),
    /// The body is larger than the limit.
    #[error("the body is larger than the limit of {limit} bytes, set by {set_by}")]
    BodyTooLarge {
        /// The limit, in bytes.
        limit: usize,
        /// Where the limit comes from.
        set_by: &'static str,
    },
    /// The directory has not been read since the program started.
    #[error(
        "the KV bucket {} was not read yet, so the function's queue is unknown: retry, and check \
         that NATS and the operator are running",
        buckets::DIRECTORY.name
    )]
    DirectoryPending,
    /// JetStream is not enabled in NATS. Without it, no call can be stored or found.
    #[error(
        "JetStream is not enabled on the NATS server of this gateway: start nats-server with -js"
    )]
    JetStreamDisabled,
    /// The call could not be stored.
    #[error("queue `{queue}`: {error}{}", hint(.error))]
    Submit {
        /// The function's queue.
        queue: QueueName,
        /// Why it could not be stored.
        error: SubmitError,
    },
    /// A line of a batch is rejected.
    #[error("line {line}: {rejection}")]
    InLine {
        /// Number of the line, from 1.
        line: usize,
        /// Why it is rejected.
        rejection: Box<Rejection>,
    },
    /// A line of a batch is not a call.
    #[error("{reason}")]
    BatchLine {
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The head of a call of a batch is too large.
    #[error(
        "headers, path and query are larger than {limit} bytes together, max_header_bytes of the \
         gateway: move data to the body"
    )]
    BatchHeadTooLarge {
        /// The limit, in bytes.
        limit: usize,
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
    /// The parameter `onFailure` is not valid.
    #[error("onFailure `{value}` is not valid: use cancel or continue")]
    OnFailure {
        /// The value that was sent, shortened.
        value: String,
    },
    /// The batch could not be stored.
    #[error("queue `{queue}`: {error}{}", batch_hint(.error))]
    Batch {
        /// The queue.
        queue: QueueName,
        /// Why it could not be stored.
        error: BatchError,
    },
    /// No batch with this id is known.
    #[error("batch `{0}` not found: unknown id, or it ended more than a day ago")]
    UnknownBatch(CallId),
    /// A batch can't be cancelled, because it has ended.
    #[error("batch `{0}` can't be cancelled: all of its calls have ended")]
    BatchEnded(CallId),
    /// Some calls of a batch may still start.
    #[error(
        "cancellation of batch `{0}` not confirmed: a worker that has calls of it does not respond \
         yet; retry"
    )]
    BatchUnconfirmed(CallId),
    /// No call with this id is known.
    #[error(
        "call `{call_id}` not found{}: unknown id, or the call ended and its result was delivered. \
         Check the id. If it is not a generated id, add the function's name",
        .queue.as_ref().map_or(String::new(), |queue| format!(" on queue `{queue}`"))
    )]
    UnknownCall {
        /// The call's id.
        call_id: CallId,
        /// The queue that was searched, if it was only one.
        queue: Option<QueueName>,
    },
    /// The result of a call can't be kept for as long as its client asks.
    #[error("X-Keep-Result `{value}` is not valid: {rule}")]
    KeepResult {
        /// The value that was sent, shortened.
        value: String,
        /// The rule, and what to do.
        rule: String,
    },
    /// The time for which a client waits is not valid.
    #[error("wait `{value}` is not valid: write a duration as 500ms, 30s or 1m30s")]
    Wait {
        /// The value that was sent, shortened.
        value: String,
    },
    /// The call has ended, and its result is not kept.
    #[error(
        "the result of call `{call_id}` is not kept, or not any more: submit the call with \
         X-Keep-Result, or raise spec.results.retention of its queue"
    )]
    ResultNotKept {
        /// The call's id.
        call_id: CallId,
    },
    /// Results can't be read by an id that a client chose.
    #[error(
        "the result of call `{call_id}` can't be read: its queue has results only for ids that the \
         gateway generated (spec.results.requireGeneratedId). Submit the call without X-Call-Id \
         and Idempotency-Key"
    )]
    ResultForbidden {
        /// The call's id.
        call_id: CallId,
    },
    /// A call can't be cancelled, because it has ended.
    #[error("call `{call_id}` can't be cancelled: it {how}")]
    CallEnded {
        /// The call's id.
        call_id: CallId,
        /// How it ended.
        how: &'static str,
    },
    /// The call has a tombstone, but a worker that does not respond may still start it.
    #[error(
        "cancellation of call `{call_id}` not confirmed: a worker that has the call does not \
         respond. The call does not start after that worker received the cancellation; retry"
    )]
    CancellationUnconfirmed {
        /// The call's id.
        call_id: CallId,
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
    /// The NATS store is full, except for the reserve that ends calls.
    #[error(
        "the NATS store is full, and the remaining space is reserved for calls that end: retry \
         later, or raise the limits of JetStream"
    )]
    StoreFull,
    /// Looking up a call failed.
    #[error("failed to look up the call: {}; retry", error::error_chain(.0))]
    LookupFailed(#[from] NatsError),
    /// Cancelling a call failed, or was not completed.
    #[error("cancellation not confirmed: {}; retry", error::error_chain(.0))]
    CancelFailed(#[source] NatsError),
    /// This program ends during the cancellation.
    #[error("cancellation not confirmed: the gateway is shutting down; retry")]
    ShuttingDown,
    /// NATS is known to be unavailable.
    #[error("NATS is not available: not connected; retry")]
    NatsUnavailable,
    /// This program has reached a limit on concurrent work.
    #[error("gateway overloaded: limit of {limit} {what} reached; retry")]
    Overloaded {
        /// What the limit applies to.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// There is not enough memory for the request.
    #[error(
        "gateway overloaded: no memory left for this request, memory_budget is {budget}; retry"
    )]
    MemoryExhausted {
        /// The whole memory budget.
        budget: ByteSize,
    },
    /// A function, or the upstream gateway, can't be reached.
    #[error("can't reach {target}: {reason}: check that it is deployed and ready")]
    Unreachable {
        /// The receiver of the request.
        target: ProxyTarget,
        /// Why it can't be reached.
        reason: String,
    },
    /// A function, or the upstream gateway, closed the connection before it responded.
    #[error("{target} closed the connection before it responded: {reason}")]
    UpstreamClosed {
        /// The receiver of the request.
        target: ProxyTarget,
        /// The error.
        reason: String,
    },
    /// A function, or the upstream gateway, sent a response that is not valid HTTP.
    #[error("invalid HTTP response from {target}: {reason}")]
    InvalidUpstreamResponse {
        /// The receiver of the request.
        target: ProxyTarget,
        /// What is wrong with the response.
        reason: String,
    },
}

fn hint(error: &SubmitError) -> &'static str {
    match error {
        SubmitError::TooLarge { .. } | SubmitError::TooLargeForStream => ": send a smaller body",
        SubmitError::HeadersTooLarge => ": move data to the body",
        SubmitError::QueueFull { .. } => ": retry later, or raise the queue's limits",
        SubmitError::KeyReused { .. } => ": use another key for another call",
        // The error itself says what to do.
        SubmitError::NoStream => "",
        SubmitError::Unavailable { .. } => {
            ": retry with the X-Call-Id of this response, so that the call is stored once"
        }
    }
}

fn submit_status(error: &SubmitError) -> StatusCode {
    match error {
        SubmitError::KeyReused { .. } => StatusCode::UNPROCESSABLE_ENTITY,
        SubmitError::TooLarge { .. }
        | SubmitError::TooLargeForStream
        | SubmitError::HeadersTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        SubmitError::QueueFull { .. } => StatusCode::TOO_MANY_REQUESTS,
        SubmitError::NoStream | SubmitError::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
    }
}

fn batch_status(error: &BatchError) -> StatusCode {
    match error {
        BatchError::Submit(error) | BatchError::Call { error, .. } => submit_status(error),
        BatchError::CallIdInUse { .. } => StatusCode::CONFLICT,
        BatchError::IdReused(_) => StatusCode::UNPROCESSABLE_ENTITY,
        BatchError::TooMany => StatusCode::TOO_MANY_REQUESTS,
        BatchError::InProgress(_) | BatchError::NotAllowed => StatusCode::SERVICE_UNAVAILABLE,
    }
}

fn batch_category(error: &BatchError) -> &'static str {
    match error {
        BatchError::Submit(error) | BatchError::Call { error, .. } => error.category(),
        BatchError::CallIdInUse { .. } => "call_id_in_use",
        BatchError::IdReused(_) | BatchError::InProgress(_) => "batch_id_in_use",
        BatchError::NotAllowed => "no_batches",
        BatchError::TooMany => "busy",
    }
}

fn batch_hint(error: &BatchError) -> &'static str {
    match error {
        BatchError::Submit(SubmitError::Unavailable { .. }) => {
            ": retry with the X-Batch-Id of this response, so that the batch is stored once"
        }
        BatchError::Submit(error) | BatchError::Call { error, .. } => hint(error),
        // The error itself says what to do.
        _ => "",
    }
}

// === impl Rejection ===

impl Rejection {
    /// Adds the line of a batch to which the rejection belongs.
    #[must_use]
    pub(crate) fn in_line(self, line: usize) -> Self {
        match self {
            // These say nothing of the line.
            Self::DirectoryPending | Self::JetStreamDisabled | Self::NatsUnavailable => self,
            rejection => Self::InLine { line, rejection: Box::new(rejection) },
        }
    }

    /// Returns the status of the response.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::InLine { rejection, .. } => rejection.status(),
            Self::Batch { error, .. } => batch_status(error),
            Self::FunctionName(_)
            | Self::BatchLine { .. }
            | Self::BatchEmpty
            | Self::BatchQueues { .. }
            | Self::OnFailure { .. }
            | Self::InvalidEscape { .. }
            | Self::AmbiguousPath
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
            | Self::KeepResult { .. }
            | Self::Wait { .. }
            | Self::InvalidBody(_) => StatusCode::BAD_REQUEST,
            Self::NoFunction
            | Self::NoCallId
            | Self::UnknownFunction(_)
            | Self::UnknownCall { .. }
            | Self::UnknownBatch(_)
            | Self::NotFound => StatusCode::NOT_FOUND,
            Self::Namespace(_) | Self::ResultForbidden { .. } => StatusCode::FORBIDDEN,
            Self::ResultNotKept { .. } => StatusCode::GONE,
            Self::CallEnded { .. } | Self::BatchEnded(_) => StatusCode::CONFLICT,
            Self::Submit { error, .. } => submit_status(error),
            Self::ChainTooDeep { .. } | Self::TooManyHops { .. } => StatusCode::LOOP_DETECTED,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::BodyTimeout(_) => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge { .. }
            | Self::BatchTooLong
            | Self::BatchHeadTooLarge { .. }
            | Self::TooLargeForDeadLetter { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::StoreFull => StatusCode::TOO_MANY_REQUESTS,
            Self::BatchUnconfirmed(_)
            | Self::CancellationUnconfirmed { .. }
            | Self::DirectoryPending
            | Self::JetStreamDisabled
            | Self::LookupFailed(_)
            | Self::CancelFailed(_)
            | Self::ShuttingDown
            | Self::NatsUnavailable
            | Self::Overloaded { .. }
            | Self::MemoryExhausted { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unreachable { .. }
            | Self::UpstreamClosed { .. }
            | Self::InvalidUpstreamResponse { .. } => StatusCode::BAD_GATEWAY,
        }
    }

    /// Returns the value of a metric label: one of a fixed set.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::InLine { rejection, .. } => rejection.category(),
            Self::Batch { error, .. } => batch_category(error),
            Self::BatchLine { .. } | Self::BatchEmpty | Self::OnFailure { .. } => "batch",
            Self::BatchTooLong => "batch_size",
            Self::BatchQueues { .. } => "batch_queues",
            Self::UnknownBatch(_) => "unknown_batch",
            Self::NoFunction => "no_function",
            Self::FunctionName(_) => "function_name",
            Self::InvalidEscape { .. }
            | Self::AmbiguousPath
            | Self::UnescapedWhitespace { .. }
            | Self::TargetTooLong => "path",
            Self::RepeatedHeader(_) => "repeated_header",
            Self::HeaderNotText(_) => "header_not_text",
            Self::CallId { .. } => "call_id",
            Self::CallbackUrl { .. } => "callback_url",
            Self::IdempotencyKey { .. } => "idempotency_key",
            Self::KeepResult { .. } => "keep_result",
            Self::Wait { .. } => "wait",
            Self::InvalidDepth { .. } => "depth",
            Self::ChainTooDeep { .. } => "chain_depth",
            Self::InvalidDelay(_)
            | Self::InvalidNotBefore { .. }
            | Self::TwoDelays
            | Self::Delay { .. } => "delay",
            Self::TooManyHops { .. } => "loop",
            Self::InvalidBody(_) => "body",
            Self::UnknownFunction(_) => "unknown_function",
            Self::Namespace(_) => "namespace",
            Self::NoCallId => "no_call_id",
            Self::UnknownCall { .. } => "unknown_call",
            Self::CallEnded { .. } | Self::BatchEnded(_) => "ended",
            Self::ResultNotKept { .. } => "result_not_kept",
            Self::ResultForbidden { .. } => "result_forbidden",
            Self::CancellationUnconfirmed { .. } | Self::BatchUnconfirmed(_) => "not_cancelled_yet",
            Self::StoreFull => "store_full",
            Self::LookupFailed(_)
            | Self::CancelFailed(_)
            | Self::ShuttingDown
            | Self::NatsUnavailable => "unavailable",
            Self::Overloaded { .. } | Self::MemoryExhausted { .. } => "busy",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed { .. } => "method",
            Self::BodyTimeout(_) => "body_timeout",
            Self::BodyTooLarge { .. }
            | Self::BatchHeadTooLarge { .. }
            | Self::TooLargeForDeadLetter { .. } => "too_large",
            Self::DirectoryPending => "no_directory",
            Self::JetStreamDisabled => "no_jetstream",
            Self::Submit { error, .. } => error.category(),
            Self::Unreachable { .. } => "unreachable",
            Self::UpstreamClosed { .. } => "no_answer",
            Self::InvalidUpstreamResponse { .. } => "unreadable_answer",
        }
    }

    /// Returns the delay after which a retry makes sense, if it does.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match (self, self.status()) {
            (
                Self::Overloaded { .. }
                | Self::MemoryExhausted { .. }
                | Self::BatchUnconfirmed(_)
                | Self::CancellationUnconfirmed { .. },
                _,
            ) => Some(RETRY_AFTER_OVERLOAD),
            (_, StatusCode::SERVICE_UNAVAILABLE) => Some(RETRY_AFTER_UNAVAILABLE),
            (_, StatusCode::TOO_MANY_REQUESTS) => Some(RETRY_AFTER_QUEUE_FULL),
            _ => None,
        }
    }
}
