//! The worker of one queue: pulls calls from its stream, and invokes functions over HTTP.
//!
//! The path of a message: `consumer` pulls as many messages as there are free slots, renews the
//! lease of each delivery and settles it. `call` takes a call to its end or to its next attempt.
//! [`function`] sends the HTTP request, and the pure [`retry`] decides what its response means.
//!
//! Results go through a stream of their own to [`callback`]. Exhausted calls go to
//! `dead_letter`. `record_store` stores whatever is needed for this.

mod call;
pub mod callback;
mod consumer;
mod dead_letter;
#[cfg(test)]
mod documented;
mod failed_attempts;
pub mod function;
mod live_settings;
mod metrics;
mod provisioner;
mod queue_metrics;
mod record;
mod record_store;
mod responder;
pub mod retry;
mod run;
mod scheduled;
mod server_clock;
mod settings;
mod shared_limits;
mod stats;

pub use run::run;
pub use settings::{Codes, Settings};
