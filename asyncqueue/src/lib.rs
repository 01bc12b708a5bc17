//! The client library of `AsyncQueue`: submits calls to named queues of functions on NATS
//! `JetStream`, and reads, cancels and replays them.
//!
//! The gateway, the worker and the operator depend on this crate, and it depends on none of them.
//! It contains no Kubernetes and no HTTP server. What only these programs use, such as the
//! configuration of streams and the messages between programs, is not documented here and changes
//! without notice.
//!
//! # Calls from other programs
//!
//! A program that speaks NATS needs no gateway: it stores calls as the gateway does, and workers
//! run them in the same way.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use asyncqueue::{
//!     CallId, CallbackUrl, FunctionName, Invocation, async_nats,
//!     directory::QueueRoute,
//!     submit::{SubmitOutcome, Submitter},
//! };
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = async_nats::connect("nats://127.0.0.1:4222").await?;
//! let submitter = Submitter::new(async_nats::jetstream::new(client), Duration::from_secs(5));
//!
//! // The stream and the subject of a queue have its name, unless its AsyncQueue says otherwise.
//! let route = QueueRoute::with_default_names("slow-queue".parse()?);
//! let function = FunctionName::parse("figlet", "openfaas-fn")?;
//! let mut call = Invocation::new(CallId::generate(&route.queue), function, "hi");
//! call.headers.insert("content-type", "text/plain".parse()?);
//! call.callback_url = Some(CallbackUrl::parse("https://example.com/results")?);
//!
//! let submitted = submitter.submit_generated(call, &route).await?;
//! assert_eq!(submitted, SubmitOutcome::Stored); // on the stream: it is not lost from here on
//! submitter.wait_for_lanes().await; // only before the program ends
//! # Ok(())
//! # }
//! ```
//!
//! - With an id that it chose (`"order-7".parse()`), a program can repeat a submission safely:
//!   [`Submitter::submit`] stores a call once, however often it is repeated. Calls with other
//!   content may share the id. Ids from [`CallId::generate`] are unique, so
//!   [`Submitter::submit_generated`] does not search for them.
//! - With an [`IdempotencyKey`], [`Submitter::submit_with_key`] stores one call of a function, and
//!   refuses another call with the key.
//! - The operator records in the directory which queue a function belongs to:
//!   [`directory::watch::watch`] follows it, and [`Directory::route`] reads it.
//! - [`lookup::find_call`] finds a call by its id, and [`status::status_of_pending`] returns the
//!   state of a stored one.
//! - [`cancel::cancel_calls`] cancels calls.
//! - [`DeadLetters`] lists, replays and deletes dead letters.
//!
//! `examples/` has a complete program for each: `submit`, `status`, `cancel` and `replay`.
//! `docs/wire.md` describes the protocol, for programs in other languages.
//!
//! [`Submitter::submit`]: submit::Submitter::submit
//! [`Submitter::submit_generated`]: submit::Submitter::submit_generated
//! [`Submitter::submit_with_key`]: submit::Submitter::submit_with_key
//! [`Directory::route`]: directory::Directory::route
//! [`DeadLetters`]: dead_letters::DeadLetters

// Types in this crate's functions, in the versions that it uses.
pub use {async_nats, bytes, http, jiff};

pub mod call;
pub mod cancel;
pub mod dead_letters;
pub mod delay;
pub mod directory;
pub mod headers;
pub mod lookup;
pub mod status;
pub mod submit;

pub use call_id::{CallId, CallIdError};
pub use duration::{GoDuration, ParseDurationError, Rounded};
pub use end_state::{EndState, EndStateError};
pub use idempotency::{IdempotencyKey, IdempotencyKeyError};
pub use invocation::{CallbackUrl, CallbackUrlError, Invocation};
pub use jetstream::NatsError;
pub use names::{FunctionName, NameError, QueueName};
pub use retry::RetryOverrides;

// For the programs of this workspace only: these modules change without notice.
#[doc(hidden)]
pub mod attempt_offset;
#[doc(hidden)]
pub mod batch;
#[doc(hidden)]
pub mod batch_member;
#[doc(hidden)]
pub mod buckets;
#[doc(hidden)]
pub mod call_id;
#[doc(hidden)]
pub mod connection;
#[doc(hidden)]
pub mod consumer_progress;
#[doc(hidden)]
pub mod depth;
#[doc(hidden)]
pub mod duration;
#[doc(hidden)]
pub mod error;
#[doc(hidden)]
pub mod fairness;
#[doc(hidden)]
pub mod fairness_change;
#[doc(hidden)]
pub mod function_namespaces;
#[doc(hidden)]
pub mod hop_by_hop;
#[doc(hidden)]
pub mod idempotency;
#[doc(hidden)]
pub mod inventory;
#[doc(hidden)]
pub mod invocation;
#[doc(hidden)]
pub mod jetstream;
#[doc(hidden)]
pub mod kept_results;
#[doc(hidden)]
pub mod kv;
#[doc(hidden)]
pub mod lanes;
#[doc(hidden)]
pub mod message;
#[doc(hidden)]
pub mod names;
#[doc(hidden)]
pub mod publish_failure;
#[doc(hidden)]
pub mod raw_message;
#[doc(hidden)]
pub mod reserve;
#[doc(hidden)]
pub mod reserved_names;
#[doc(hidden)]
pub mod retry;
#[doc(hidden)]
pub mod shares;
#[doc(hidden)]
pub mod stats;
#[doc(hidden)]
pub mod stored_result;
#[doc(hidden)]
pub mod stream;
#[doc(hidden)]
pub mod subject;
#[doc(hidden)]
pub mod tombstone;
#[doc(hidden)]
pub mod unknown_functions;
#[doc(hidden)]
pub mod waiting_calls;
#[doc(hidden)]
pub mod worker_requests;

mod end_state;
mod lane_filters;
