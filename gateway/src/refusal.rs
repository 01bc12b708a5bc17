//! Why a request is refused: the one error of this program that a client sees.

use std::time::Duration;

use asyncqueue::{
    CallId, CallIdError, CallbackUrlError, FunctionName, GoDuration, IdempotencyKeyError,
    NameError, QueueName, buckets, function_namespaces::NamespaceRefused, idempotency::MAX_KEY,
    invocation::MAX_TARGET, jetstream::NatsError, submit::SubmitError,
};
use asyncqueue_runtime::{byte_size::ByteSize, error};
use http::{Method, StatusCode};

use crate::target::Receiver;

/// When to try again after NATS was unavailable: once NATS is back, a reconnect takes a few seconds
/// at most.
const RETRY_UNAVAILABLE: Duration = Duration::from_secs(5);

/// When to try again after a queue was full: one call that ends makes room, but many clients wait
/// for that.
const RETRY_QUEUE_FULL: Duration = Duration::from_secs(10);

/// When to try again after a limit of this program was reached: what holds the slots ends within
/// milliseconds.
const RETRY_BUSY: Duration = Duration::from_secs(1);

/// A request that is refused. Its text is for the client: what is wrong, with which value, and what
/// to do.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The path ends where the function's name should follow.
    #[error("no function is named: use /async-function/NAME or /async-function/NAME.NAMESPACE")]
    NoFunction,
    /// The function's name is not valid.
    #[error(transparent)]
    FunctionName(#[from] NameError),
    /// A `%` in the path does not begin a valid escape.
    #[error(
        "path: `{escape}` is not a percent escape: write two hex digits after `%`, or %25 for `%` itself"
    )]
    PathEscape {
        /// The `%` and what follows it.
        escape: String,
    },
    /// Another server may read the path as that of another function.
    #[error(
        "path: other servers may read it as another one: write /async-function/NAME or /function/NAME without `//`, `.`, `..` \
         and escapes before the name's end, and no `..` after it that leads above the function"
    )]
    PathNotPlain,
    /// The path or the query contains white space that is not escaped.
    #[error("path or query: white space (U+{:04X}) is not percent-encoded: write its bytes as %XX", u32::from(*.space))]
    WhiteSpace {
        /// The first white-space character.
        space: char,
    },
    /// Path and query together are too long for an invocation.
    #[error("path and query are longer than {MAX_TARGET} bytes together: send more in the body")]
    TargetTooLong,
    /// A header that may occur once occurs twice.
    #[error("{0} is given more than once: send it once")]
    RepeatedHeader(&'static str),
    /// A header's value is not UTF-8.
    #[error("{0} holds bytes that are not UTF-8 text")]
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
        "Idempotency-Key `{value}` is not valid: {error}; send 1 to {MAX_KEY} characters of ASCII, bare or as \"…\""
    )]
    IdempotencyKey {
        /// The value that was sent, shortened.
        value: String,
        /// What is wrong with it.
        error: IdempotencyKeyError,
    },
    /// The value of `X-Async-Depth` is not a number.
    #[error(
        "X-Async-Depth `{value}` is not valid: send back the decimal number that the function was sent"
    )]
    Depth {
        /// The value that was sent, shortened.
        value: String,
    },
    /// A chain of calls is too long.
    #[error(
        "{depth} calls came before this one in its chain, by X-Async-Depth; max_chain_depth of the gateway is {max}: \
         check whether functions call each other in a circle"
    )]
    ChainTooDeep {
        /// How many calls came before.
        depth: u32,
        /// How many calls may come before.
        max: u32,
    },
    /// The request has come through this gateway too often.
    #[error(
        "the request has come through this gateway {hops} times, by Via; max_hops of the gateway is {max}: check \
         whether upstream_url or a function leads back to the gateway"
    )]
    Loop {
        /// How often it has come through.
        hops: usize,
        /// How often it may come through.
        max: usize,
    },
    /// The path ends where a call's id should follow.
    #[error("no call is named: use /async-function/CALL-ID or /async-function/NAME/CALL-ID")]
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
    #[error("the body can't be read: {0}")]
    Body(String),
    /// The directory does not have the function, and such calls are rejected.
    #[error("function `{0}` is not known: check its name and namespace, or deploy it")]
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
    #[error("the body did not arrive within {}: send it faster, or a smaller one", GoDuration(*.0))]
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
        "the KV bucket {} was not read yet, so the function's queue is not known: try again; \
         it is there when NATS and the operator have been up",
        buckets::DIRECTORY.name
    )]
    NoDirectory,
    /// JetStream is not enabled in NATS. Without it, no call can be stored or found.
    #[error(
        "JetStream is not enabled on the NATS server of this gateway: start nats-server with -js"
    )]
    NoJetStream,
    /// The call could not be stored.
    #[error("queue `{queue}`: {error}{}", remedy(.error))]
    Submit {
        /// The function's queue.
        queue: QueueName,
        /// Why it could not be stored.
        error: SubmitError,
    },
    /// No call with this id is known.
    #[error(
        "no call `{call_id}` is known{}: it was never stored, or has ended and its result was delivered. \
         Check the id; name its function if the id is your own",
        .queue.as_ref().map_or(String::new(), |queue| format!(" on queue `{queue}`"))
    )]
    UnknownCall {
        /// The call's id.
        call_id: CallId,
        /// The queue that was searched, if it was only one.
        queue: Option<QueueName>,
    },
    /// A call can't be cancelled, because it has ended.
    #[error("call `{call_id}` can't be cancelled: it {how}")]
    Ended {
        /// The call's id.
        call_id: CallId,
        /// How it ended.
        how: &'static str,
    },
    /// The call has a tombstone, but a worker that does not answer may still start it.
    #[error(
        "the call `{call_id}` is not cancelled for certain yet: a worker that has it does not answer. It does not start \
         once that worker hears of it: try again"
    )]
    NotCancelledYet {
        /// The call's id.
        call_id: CallId,
    },
    /// The call could never become a dead letter, even without its headers and its body.
    #[error(
        "path, query and X-Callback-Url are longer than {limit} bytes together, which is what a dead letter has room for: \
         send more in the body"
    )]
    TooLargeForDeadLetter {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The NATS store is full, except for the reserve that ends calls.
    #[error(
        "the store of NATS is full, and the room that is left is kept for calls that end: try again later, or raise the \
         limits of JetStream"
    )]
    StoreFull,
    /// Looking up a call failed.
    #[error("the call can't be looked for: {}: try again", error::error_chain(.0))]
    LookUp(#[from] NatsError),
    /// Cancelling a call failed, or was not completed.
    #[error("the call is not cancelled for certain: {}: try again", error::error_chain(.0))]
    Cancel(#[source] NatsError),
    /// This program ends during the cancellation.
    #[error("the call is not cancelled for certain: the gateway shuts down: try again")]
    Interrupted,
    /// NATS is known to be unavailable.
    #[error("NATS is not available: not connected: try again")]
    NatsAway,
    /// This program has reached a limit on concurrent work.
    #[error("the gateway is busy with {most} {with}, the most at once: try again")]
    Busy {
        /// What the limit applies to.
        with: &'static str,
        /// The limit.
        most: usize,
    },
    /// There is not enough memory for the request.
    #[error("the gateway has no memory for this request now: memory_budget is {budget}: try again")]
    MemoryShort {
        /// The whole memory budget.
        budget: ByteSize,
    },
    /// A function, or the upstream gateway, can't be reached.
    #[error("can't reach {target}: {reason}: check that it is deployed and ready")]
    Unreachable {
        /// The receiver of the request.
        target: Receiver,
        /// Why it can't be reached.
        reason: String,
    },
    /// A function, or the upstream gateway, closed the connection before it answered.
    #[error("{target} ended the connection before it answered: {reason}")]
    NoAnswer {
        /// The receiver of the request.
        target: Receiver,
        /// The error.
        reason: String,
    },
    /// A function, or the upstream gateway, answered with something that is not HTTP.
    #[error("the answer of {target} can't be read as HTTP: {reason}")]
    UnreadableAnswer {
        /// The receiver of the request.
        target: Receiver,
        /// What is wrong with the answer.
        reason: String,
    },
}

fn remedy(error: &SubmitError) -> &'static str {
    match error {
        SubmitError::TooLarge { .. } | SubmitError::TooLargeForStream => ": send less",
        SubmitError::HeadersTooLarge => ": send more in the body",
        SubmitError::QueueFull { .. } => ": try again later, or raise the queue's limits",
        SubmitError::KeyReused { .. } => ": use another key for another call",
        // The error itself says what to do.
        SubmitError::NoStream => "",
        SubmitError::Unavailable { .. } => {
            ": try again, with the X-Call-Id of this answer so that the call is stored once"
        }
    }
}

// === impl Refusal ===

impl Refusal {
    /// Returns the status of the response.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::FunctionName(_)
            | Self::PathEscape { .. }
            | Self::PathNotPlain
            | Self::WhiteSpace { .. }
            | Self::RepeatedHeader(_)
            | Self::HeaderNotText(_)
            | Self::CallId { .. }
            | Self::CallbackUrl { .. }
            | Self::IdempotencyKey { .. }
            | Self::Depth { .. }
            | Self::Body(_) => StatusCode::BAD_REQUEST,
            Self::NoFunction
            | Self::NoCallId
            | Self::UnknownFunction(_)
            | Self::UnknownCall { .. }
            | Self::NotFound => StatusCode::NOT_FOUND,
            Self::Namespace(_) => StatusCode::FORBIDDEN,
            Self::Ended { .. } => StatusCode::CONFLICT,
            Self::Submit { error: SubmitError::KeyReused { .. }, .. } => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            Self::ChainTooDeep { .. } | Self::Loop { .. } => StatusCode::LOOP_DETECTED,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::BodyTimeout(_) => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge { .. }
            | Self::TooLargeForDeadLetter { .. }
            | Self::Submit {
                error:
                    SubmitError::TooLarge { .. }
                    | SubmitError::TooLargeForStream
                    | SubmitError::HeadersTooLarge,
                ..
            } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::StoreFull | Self::Submit { error: SubmitError::QueueFull { .. }, .. } => {
                StatusCode::TOO_MANY_REQUESTS
            }
            Self::NotCancelledYet { .. }
            | Self::NoDirectory
            | Self::NoJetStream
            | Self::LookUp(_)
            | Self::Cancel(_)
            | Self::Interrupted
            | Self::NatsAway
            | Self::Busy { .. }
            | Self::MemoryShort { .. }
            | Self::Submit {
                error: SubmitError::NoStream | SubmitError::Unavailable { .. }, ..
            } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unreachable { .. } | Self::NoAnswer { .. } | Self::UnreadableAnswer { .. } => {
                StatusCode::BAD_GATEWAY
            }
        }
    }

    /// Returns a word for the label of a metric.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::NoFunction => "no_function",
            Self::FunctionName(_) => "function_name",
            Self::PathEscape { .. }
            | Self::PathNotPlain
            | Self::WhiteSpace { .. }
            | Self::TargetTooLong => "path",
            Self::RepeatedHeader(_) => "repeated_header",
            Self::HeaderNotText(_) => "header_not_text",
            Self::CallId { .. } => "call_id",
            Self::CallbackUrl { .. } => "callback_url",
            Self::IdempotencyKey { .. } => "idempotency_key",
            Self::Depth { .. } => "depth",
            Self::ChainTooDeep { .. } => "chain_depth",
            Self::Loop { .. } => "loop",
            Self::Body(_) => "body",
            Self::UnknownFunction(_) => "unknown_function",
            Self::Namespace(_) => "namespace",
            Self::NoCallId => "no_call_id",
            Self::UnknownCall { .. } => "unknown_call",
            Self::Ended { .. } => "ended",
            Self::NotCancelledYet { .. } => "not_cancelled_yet",
            Self::StoreFull => "store_full",
            Self::LookUp(_) | Self::Cancel(_) | Self::Interrupted | Self::NatsAway => "unavailable",
            Self::Busy { .. } | Self::MemoryShort { .. } => "busy",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed { .. } => "method",
            Self::BodyTimeout(_) => "body_timeout",
            Self::BodyTooLarge { .. } | Self::TooLargeForDeadLetter { .. } => "too_large",
            Self::NoDirectory => "no_directory",
            Self::NoJetStream => "no_jetstream",
            Self::Submit { error, .. } => error.category(),
            Self::Unreachable { .. } => "unreachable",
            Self::NoAnswer { .. } => "no_answer",
            Self::UnreadableAnswer { .. } => "unreadable_answer",
        }
    }

    /// Returns when to try again, if that makes sense.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match (self, self.status()) {
            (Self::Busy { .. } | Self::MemoryShort { .. } | Self::NotCancelledYet { .. }, _) => {
                Some(RETRY_BUSY)
            }
            (_, StatusCode::SERVICE_UNAVAILABLE) => Some(RETRY_UNAVAILABLE),
            (_, StatusCode::TOO_MANY_REQUESTS) => Some(RETRY_QUEUE_FULL),
            _ => None,
        }
    }
}
