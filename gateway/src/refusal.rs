//! Why a request is refused: the one error of this program that a client sees.

use std::time::Duration;

use asyncqueue::{
    CallId, FunctionName, GoDuration, QueueName,
    call_id::CallIdError,
    directory,
    function_namespaces::NamespaceRefused,
    idempotency::{IdempotencyKeyError, MAX_KEY},
    invocation::{CallbackUrlError, MAX_TARGET},
    name::NameError,
    peek::NatsError,
    submit::SubmitError,
};
use asyncqueue_runtime::{byte_size::ByteSize, error};
use http::{Method, StatusCode};

use crate::target::Receiver;

/// When to try again after NATS was away: a reconnect takes a few seconds at most once NATS is back.
const RETRY_UNAVAILABLE: Duration = Duration::from_secs(5);

/// When to try again after a queue was full: it has room as soon as one call ends, but many wait for that.
const RETRY_QUEUE_FULL: Duration = Duration::from_secs(10);

/// When to try again after this program had as much to do as it may have at once, each a matter of milliseconds.
const RETRY_BUSY: Duration = Duration::from_secs(1);

/// A request that is not done. Its text is for the client: what, with which value, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The path ends where the function's name should follow.
    #[error("no function is named: use /async-function/NAME or /async-function/NAME.NAMESPACE")]
    NoFunction,
    /// The function's name is none.
    #[error(transparent)]
    FunctionName(#[from] NameError),
    /// A `%` in the path that is no escape.
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
    /// White space in the path or the query that is not escaped.
    #[error("path or query: white space (U+{:04X}) is not percent-encoded: write its bytes as %XX", u32::from(*.space))]
    WhiteSpace {
        /// The first of it.
        space: char,
    },
    /// Path and query are too long to be called.
    #[error("path and query are longer than {MAX_TARGET} bytes together: send more in the body")]
    TargetTooLong,
    /// A header that means one thing is there twice.
    #[error("{0} is given more than once: send it once")]
    RepeatedHeader(&'static str),
    /// A header's value is not UTF-8.
    #[error("{0} holds bytes that are not UTF-8 text")]
    HeaderNotText(&'static str),
    /// A call id is none.
    #[error("{field}: {error}")]
    CallId {
        /// Where it stands.
        field: &'static str,
        /// What is wrong with it.
        error: CallIdError,
    },
    /// An idempotency key is not valid.
    #[error(
        "Idempotency-Key `{value}` is not valid: {error}; send 1 to {MAX_KEY} characters of ASCII, bare or as \"…\""
    )]
    IdempotencyKey {
        /// What was sent, shortened.
        value: String,
        /// What is wrong with it.
        error: IdempotencyKeyError,
    },
    /// The depth of a chain is not a number.
    #[error("X-Async-Depth `{value}` is not valid: send back the decimal number that the function was sent")]
    Depth {
        /// What was sent, shortened.
        value: String,
    },
    /// A chain of calls is too long.
    #[error(
        "{depth} calls came before this one in its chain, by X-Async-Depth; max_chain_depth of the gateway is {max}: \
         check whether functions call each other in a circle"
    )]
    ChainTooDeep {
        /// How many came before.
        depth: u32,
        /// How many may.
        max: u32,
    },
    /// A request comes through this gateway again and again.
    #[error(
        "the request has come through this gateway {hops} times, by Via; max_hops of the gateway is {max}: check \
         whether upstream_url or a function leads back to the gateway"
    )]
    Loop {
        /// How often it has come.
        hops: usize,
        /// How often it may.
        max: usize,
    },
    /// The path ends where a call's id should follow.
    #[error("no call is named: use /async-function/CALL-ID or /async-function/NAME/CALL-ID")]
    NoCallId,
    /// The callback URL is none.
    #[error("{error} (it is `{value}`)")]
    CallbackUrl {
        /// What was sent, shortened.
        value: String,
        /// What is wrong with it.
        error: CallbackUrlError,
    },
    /// The body ended early, or its coding is broken.
    #[error("the body can't be read: {0}")]
    Body(String),
    /// The directory does not have the function, and such calls are rejected.
    #[error("function `{0}` is not known: check its name and namespace, or deploy it")]
    UnknownFunction(FunctionName),
    /// The functions of this namespace are not called.
    #[error(transparent)]
    Namespace(#[from] NamespaceRefused),
    /// Nothing is served at the path.
    #[error("nothing is served at this path: call functions at /async-function/NAME or /function/NAME")]
    NotFound,
    /// The path does not take the method.
    #[error("method {method} is not allowed here: use {allow}")]
    MethodNotAllowed {
        /// The client's.
        method: Method,
        /// Those that are taken, as `Allow` lists them.
        allow: &'static str,
    },
    /// The body took too long to arrive.
    #[error("the body did not arrive within {}: send it faster, or a smaller one", GoDuration(*.0))]
    BodyTimeout(Duration),
    /// The body is over the limit.
    #[error("the body is larger than the limit of {limit} bytes, set by {set_by}")]
    BodyTooLarge {
        /// The most that is taken, in bytes.
        limit: usize,
        /// What the limit comes from.
        set_by: &'static str,
    },
    /// The directory has not been read since the program started.
    #[error(
        "the KV bucket {} was not read yet, so the function's queue is not known: try again; \
         it is there when NATS and the operator have been up",
        directory::BUCKET.name
    )]
    NoDirectory,
    /// NATS has no JetStream, without which no call can be stored or found.
    #[error("JetStream is not enabled on the NATS server of this gateway: start nats-server with -js")]
    NoJetStream,
    /// The call could not be stored.
    #[error("queue `{queue}`: {error}{}", remedy(.error))]
    Submit {
        /// The function's queue.
        queue: QueueName,
        /// What went wrong.
        error: SubmitError,
    },
    /// Nothing is known of a call.
    #[error(
        "no call `{call_id}` is known{}: it was never stored, or has ended and its result was delivered. \
         Check the id; name its function if the id is your own",
        .queue.as_ref().map_or(String::new(), |queue| format!(" on queue `{queue}`"))
    )]
    UnknownCall {
        /// Its id.
        call_id: CallId,
        /// The queue that was asked, if it was one.
        queue: Option<QueueName>,
    },
    /// A call can't be cancelled, because it has ended.
    #[error("call `{call_id}` can't be cancelled: it {how}")]
    Ended {
        /// Its id.
        call_id: CallId,
        /// How it ended.
        how: &'static str,
    },
    /// A call has a tombstone, and a worker that does not answer may still start it.
    #[error(
        "the call `{call_id}` is not cancelled for certain yet: a worker that has it does not answer. It does not start \
         once that worker hears of it: try again"
    )]
    NotCancelledYet {
        /// Its id.
        call_id: CallId,
    },
    /// The call could never become a dead letter, however much of it is left out.
    #[error(
        "path, query and X-Callback-Url are longer than {limit} bytes together, which is what a dead letter has room for: \
         send more in the body"
    )]
    TooLargeForDeadLetter {
        /// The most that is taken, in bytes.
        limit: usize,
    },
    /// The store of NATS is full but for what ends calls.
    #[error(
        "the store of NATS is full, and the room that is left is kept for calls that end: try again later, or raise the \
         limits of JetStream"
    )]
    StoreFull,
    /// A call could not be looked for.
    #[error("the call can't be looked for: {}: try again", error::describe(.0))]
    LookUp(#[from] NatsError),
    /// A call could not be cancelled, or not to the end.
    #[error("the call is not cancelled for certain: {}: try again", error::describe(.0))]
    Cancel(#[source] NatsError),
    /// This program ends while it cancels.
    #[error("the call is not cancelled for certain: the gateway shuts down: try again")]
    Interrupted,
    /// NATS is known to be away.
    #[error("NATS is not available: not connected: try again")]
    NatsAway,
    /// This program has as much to do as it may have at once.
    #[error("the gateway is busy with {most} {with}, the most at once: try again")]
    Busy {
        /// What it does.
        with: &'static str,
        /// How much of that it may do at once.
        most: usize,
    },
    /// There is no memory for the request.
    #[error("the gateway has no memory for this request now: memory_budget is {budget}: try again")]
    MemoryShort {
        /// The whole budget.
        budget: ByteSize,
    },
    /// A function, or the gateway upstream, can't be reached.
    #[error("can't reach {target}: {reason}: check that it is deployed and ready")]
    Unreachable {
        /// What was to be called.
        target: Receiver,
        /// Why it can't.
        reason: String,
    },
    /// A function, or the gateway upstream, broke off before it answered.
    #[error("{target} ended the connection before it answered: {reason}")]
    NoAnswer {
        /// What was called.
        target: Receiver,
        /// What was seen.
        reason: String,
    },
    /// A function, or the gateway upstream, answered with something that is not HTTP.
    #[error("the answer of {target} can't be read as HTTP: {reason}")]
    UnreadableAnswer {
        /// What was called.
        target: Receiver,
        /// What is wrong with it.
        reason: String,
    },
}

fn remedy(error: &SubmitError) -> &'static str {
    match error {
        SubmitError::TooLarge { .. } | SubmitError::TooLargeForStream => ": send less",
        SubmitError::HeadersTooLarge => ": send more in the body",
        SubmitError::QueueFull { .. } => ": try again later, or raise the queue's limits",
        SubmitError::KeyReused { .. } => ": use another key for another call",
        // It says so itself.
        SubmitError::NoStream => "",
        SubmitError::Unavailable { .. } => {
            ": try again, with the X-Call-Id of this answer so that the call is stored once"
        }
    }
}

// === impl Refusal ===

impl Refusal {
    /// The status of the answer.
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
            Self::Submit { error: SubmitError::KeyReused { .. }, .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Self::ChainTooDeep { .. } | Self::Loop { .. } => StatusCode::LOOP_DETECTED,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::BodyTimeout(_) => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge { .. }
            | Self::TooLargeForDeadLetter { .. }
            | Self::Submit {
                error:
                    SubmitError::TooLarge { .. } | SubmitError::TooLargeForStream | SubmitError::HeadersTooLarge,
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
            | Self::Submit { error: SubmitError::NoStream | SubmitError::Unavailable { .. }, .. } => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Unreachable { .. } | Self::NoAnswer { .. } | Self::UnreadableAnswer { .. } => {
                StatusCode::BAD_GATEWAY
            }
        }
    }

    /// A word for the label of a metric.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::NoFunction => "no_function",
            Self::FunctionName(_) => "function_name",
            Self::PathEscape { .. } | Self::PathNotPlain | Self::WhiteSpace { .. } | Self::TargetTooLong => {
                "path"
            }
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

    /// When it makes sense to try again, if it does.
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
