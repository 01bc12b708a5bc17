//! Defines what a named queue *is*: the invocation and its message form, the names on `JetStream`,
//! the configuration of streams and consumers, and the directory of queues and functions.
//!
//! The gateway, the worker and the operator all depend on this crate, and it depends on none of
//! them. It contains no Kubernetes and no HTTP server. Decisions are plain functions of plain
//! values ([`message`], [`subject`], [`stream`]). The modules that talk to NATS ([`ensure`],
//! [`submit`], [`locate`], [`directory::watch`]) are thin layers around them.
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
//!     CallId, CallbackUrl, FunctionName, Invocation, QueueName, async_nats,
//!     submit::{Submitted, Submitter},
//! };
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = async_nats::connect("nats://127.0.0.1:4222").await?;
//! let submitter = Submitter::new(async_nats::jetstream::new(client), Duration::from_secs(5));
//!
//! let queue: QueueName = "slow-queue".parse()?;
//! let function = FunctionName::parse("figlet", "openfaas-fn")?;
//! let mut call = Invocation::new(CallId::generate(&queue), function, "hi");
//! call.headers.insert("content-type", "text/plain".parse()?);
//! call.callback_url = Some(CallbackUrl::parse("https://example.com/results")?);
//!
//! // The second argument is the queue's subject: its name, unless its AsyncQueue says otherwise.
//! let submitted = submitter.submit_new(call, queue.as_str()).await?;
//! assert_eq!(submitted, Submitted::Stored); // on the stream: it is not lost from here on
//! # Ok(())
//! # }
//! ```
//!
//! - With an id that it chose (`"order-7".parse()`), a program can repeat a submission safely:
//!   [`Submitter::submit`] stores a call once, however often it is repeated. Calls with other
//!   content may share the id. Ids from [`CallId::generate`] are unique, so
//!   [`Submitter::submit_new`] does not search for them.
//! - With an [`IdempotencyKey`], [`Submitter::submit_with_key`] stores one call of a function, and
//!   refuses another call with the key.
//! - The operator records in the directory which queue a function belongs to:
//!   [`directory::watch::follow`] follows it, and [`Directory::route`] reads it.
//! - [`cancel::cancel`] cancels a call. [`locate::locate`] finds one, and [`status::of_stored`]
//!   returns its state.
//!
//! `examples/submit.rs` is a complete program. `docs/wire.md` describes the protocol, for programs
//! in other languages.
//!
//! [`Submitter::submit`]: submit::Submitter::submit
//! [`Submitter::submit_new`]: submit::Submitter::submit_new
//! [`Submitter::submit_with_key`]: submit::Submitter::submit_with_key
//! [`Directory::route`]: directory::Directory::route

// Types in this crate's functions, in the versions that it uses.
pub use {async_nats, bytes, http, jiff};

pub mod bucket;
pub mod call_id;
pub mod cancel;
pub mod claims;
pub mod connection;
pub mod consumer_progress;
pub mod dead_letter_store;
pub mod dead_letters;
pub mod directory;
pub mod duration;
pub mod end_state;
pub mod ensure;
pub mod error;
pub mod forward;
pub mod function_namespaces;
pub mod idempotency;
pub mod invocation;
pub mod locate;
pub mod message;
pub mod missing;
pub mod name;
pub mod peek;
pub mod poll;
pub mod publish_failure;
pub mod readable;
pub mod remove;
pub mod reserve;
pub mod reserved;
pub mod retry;
pub mod stats;
pub mod status;
pub mod stored_call;
pub mod stored_result;
pub mod stream;
pub mod subject;
pub mod submit;
pub mod timestamp;
pub mod tombstone;
pub mod uncounted;
pub mod unknown_functions;

pub use call_id::CallId;
pub use duration::{GoDuration, Rounded};
pub use end_state::EndState;
pub use idempotency::IdempotencyKey;
pub use invocation::{CallbackUrl, Invocation};
pub use name::{FunctionName, QueueName};
