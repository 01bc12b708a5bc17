//! The worker of one queue: invocation in, HTTP out.
//!
//! A message's way: [`pull`] takes as many as there are free slots; [`invoke`] decodes the call, has it made by
//! [`function`] under a [`lease`], lets the pure [`outcome`] decide what its end means, and [`settle`]s the message.
//! Results go over a stream of their own to [`callback`]; what can't be done goes to [`bury`].

mod ack;
pub mod backoff;
mod bury;
pub mod callback;
mod cancellations;
mod delivery;
mod depth;
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
mod settings;
mod settle;
mod stats;

pub use run::run;
pub use settings::{Codes, Settings};
