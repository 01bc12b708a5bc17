//! The worker of one queue: invocation in, HTTP out.
//!
//! A message's way: `pull` takes as many as there are free slots; `invoke` decodes the call, has it made by
//! `function` under a `lease`, lets the pure `outcome` decide what its end means, has `finish`
//! carry that out, and `settle`s the message. Results go over a stream of their own to `callback`; what is given up
//! goes to `dead_letter`. Whatever has to be stored for that goes through `store`.

mod ack;
mod answer_buffer;
pub mod backoff;
pub mod callback;
mod cancellations;
mod dead_letter;
mod delivery;
mod depth;
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
