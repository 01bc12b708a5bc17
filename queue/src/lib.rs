//! What a named queue *is*: the invocation and its message form, the names on `JetStream`, the
//! configuration of streams and consumers, and the directory of queues and functions.
//!
//! The gateway, the worker and the operator all depend on this crate, and it depends on none of them:
//! no Kubernetes and no HTTP server in here. Decisions are plain functions of plain values
//! ([`message`], [`subject`], [`stream`]); the modules that talk to NATS ([`ensure`], [`submit`], [`locate`],
//! [`directory::watch`]) are thin around them.

pub mod bucket;
pub mod call_id;
pub mod cancel;
pub mod dead_letters;
pub mod directory;
pub mod duration;
pub mod ensure;
pub mod forward;
pub mod invocation;
pub mod locate;
pub mod message;
pub mod name;
pub mod peek;
pub mod retry;
pub mod stats;
pub mod status;
pub mod stream;
pub mod subject;
pub mod submit;
pub mod uncounted;

pub use call_id::CallId;
pub use duration::GoDuration;
pub use invocation::{CallbackUrl, Invocation};
pub use name::{FunctionName, QueueName};
