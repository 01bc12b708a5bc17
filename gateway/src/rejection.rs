//! Why a request is rejected: the only error of this program that a client sees.

use std::time::Duration;

use asyncqueue::{
    CallId, FunctionName, GoDuration, QueueName, buckets,
    function_namespaces::NamespaceRefused,
    jetstream::NatsError,
    submission::SubmissionError,
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
    /// The head of a call, or the body of a batch, is not valid.
    #[error(transparent)]
    Submission(#[from] SubmissionError),
    /// Another server may interpret the path as that of another function.
    #[error(
        "path: other servers may interpret it differently: use /async-function/NAME or \
         /function/NAME without `//`, `.`, `..` and escapes up to the end of the name, and no `..` \
         after the name that leads above the function"
    )]
    AmbiguousPath,
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
    /// The head of a call of a batch is too large.
    #[error(
        "headers, path and query are larger than {limit} bytes together, max_header_bytes of the \
         gateway: move data to the body"
    )]
    BatchHeadTooLarge {
        /// The limit, in bytes.
        limit: usize,
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
            Self::Submission(error) => error.status(),
            Self::OnFailure { .. }
            | Self::AmbiguousPath
            | Self::Wait { .. }
            | Self::InvalidBody(_) => StatusCode::BAD_REQUEST,
            Self::NoCallId
            | Self::UnknownFunction(_)
            | Self::UnknownCall { .. }
            | Self::UnknownBatch(_)
            | Self::NotFound => StatusCode::NOT_FOUND,
            Self::Namespace(_) | Self::ResultForbidden { .. } => StatusCode::FORBIDDEN,
            Self::ResultNotKept { .. } => StatusCode::GONE,
            Self::CallEnded { .. } | Self::BatchEnded(_) => StatusCode::CONFLICT,
            Self::Submit { error, .. } => submit_status(error),
            Self::TooManyHops { .. } => StatusCode::LOOP_DETECTED,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTimeout(_) => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge { .. } | Self::BatchHeadTooLarge { .. } => {
                StatusCode::PAYLOAD_TOO_LARGE
            }
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
            Self::Submission(error) => error.category(),
            Self::OnFailure { .. } => "batch",
            Self::UnknownBatch(_) => "unknown_batch",
            Self::AmbiguousPath => "path",
            Self::Wait { .. } => "wait",
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
            Self::BodyTooLarge { .. } | Self::BatchHeadTooLarge { .. } => "too_large",
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
