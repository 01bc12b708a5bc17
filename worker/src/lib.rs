//! The worker of one queue: takes invocations from its stream, and sends HTTP requests.
//!
//! The path of a message: `pull` takes as many messages as there are free slots. `invoke` decodes
//! the call, and has `function` invoke it under a `lease`. The pure `outcome` decides what its end
//! means, `finish` carries that out, and `settle` settles the message.
//!
//! Results go through a stream of their own to `callback`. What is given up goes to `dead_letter`.
//! Whatever must be stored for this goes through `store`.

mod ack;
mod answer_buffer;
pub mod backoff;
pub mod callback;
mod cancellations;
mod dead_letter;
mod delivery;
mod depth;
#[cfg(test)]
mod documented;
mod finish;
pub mod function;
mod invoke;
mod lease;
mod metrics;
pub mod outcome;
mod pull;
mod questions;
mod reports;
pub mod retry_after;
mod run;
mod server_clock;
mod settings;
mod settle;
mod stall;
mod stats;
mod store;
mod streams;

pub use run::run;
pub use settings::{Codes, Settings};
