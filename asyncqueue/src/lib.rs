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
//! # Results, delayed calls and batches
//!
//! A call whose result is kept is waited for without polling, or its result is read later by
//! [`lookup::find_result`]:
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use asyncqueue::{
//!     CallId, FunctionName, Invocation, async_nats,
//!     directory::QueueRoute,
//!     lookup::ResultWait,
//!     submit::{ClientNaming, Submitter},
//! };
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! # let client = async_nats::connect("nats://127.0.0.1:4222").await?;
//! # let submitter =
//! #     Submitter::new(async_nats::jetstream::new(client.clone()), Duration::from_secs(5));
//! let route = QueueRoute::with_default_names("slow-queue".parse()?);
//! let function = FunctionName::parse("figlet", "openfaas-fn")?;
//! let mut call = Invocation::new(CallId::generate(&route.queue), function, "hi");
//! call.keep_result = Some(Duration::from_secs(3600)); // at most spec.results.maxRetention
//!
//! let mut wait =
//!     ResultWait::begin(&client, &route.queue, &call.function, &call.call_id).await?;
//! let stored = submitter.submit_named(call, ClientNaming::Generated, &route).await?;
//! let result = tokio::time::timeout(Duration::from_secs(30), wait.next(stored.sequence)).await;
//! match result {
//!     Ok(Some(result)) => println!("{} with status {}", result.end, result.status),
//!     _ => println!("the call runs, and its result is kept"),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! [`Invocation::not_before`] delays a call. [`Submitter::submit_batch`] stores calls together or
//! not at all, and one callback reports how each of them ended:
//!
//! ```no_run
//! use std::{collections::HashSet, time::Duration};
//!
//! use asyncqueue::{
//!     CallId, CallbackUrl, FunctionName, Invocation, async_nats,
//!     batch::OnFailure,
//!     directory::QueueRoute,
//!     jiff::Timestamp,
//!     submit::{NewBatch, Submitter},
//! };
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! # let client = async_nats::connect("nats://127.0.0.1:4222").await?;
//! # let submitter = Submitter::new(async_nats::jetstream::new(client), Duration::from_secs(5));
//! let route = QueueRoute::with_default_names("slow-queue".parse()?);
//! let function = FunctionName::parse("figlet", "openfaas-fn")?;
//! let now = Timestamp::now();
//! let mut calls = Vec::new();
//! for body in ["one", "two"] {
//!     let mut call = Invocation::new(CallId::generate(&route.queue), function.clone(), body);
//!     call.not_before = Some(now + Duration::from_secs(900)); // runs in 15 minutes
//!     calls.push(call);
//! }
//! let batch = NewBatch {
//!     id: "report-7".parse()?,
//!     is_named: true, // a repeat with the id stores nothing
//!     calls,
//!     callback_url: Some(CallbackUrl::parse("https://example.com/done")?),
//!     on_failure: OnFailure::Continue,
//!     submitted_at: now,
//!     depth: 0,
//!     own_ids: HashSet::new(), // all ids are generated
//! };
//! let stored = submitter.submit_batch(batch, &route).await?;
//! println!("{} calls are stored", stored.calls.len());
//! # Ok(())
//! # }
//! ```
//!
//! `examples/` has a complete program for each: `submit`, `status`, `cancel` and `replay`.
//! `docs/wire.md` describes the protocol, for programs in other languages.
//!
//! [`Submitter::submit`]: submit::Submitter::submit
//! [`Submitter::submit_generated`]: submit::Submitter::submit_generated
//! [`Submitter::submit_with_key`]: submit::Submitter::submit_with_key
//! [`Directory::route`]: directory::Directory::route
//! [`Submitter::submit_batch`]: submit::Submitter::submit_batch
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
pub use names::{FunctionName, NameError, QUEUE_LABEL, QueueName};
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
pub mod failed_attempts;
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
pub mod submission;
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
