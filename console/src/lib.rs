//! `asyncqueue-console`: queues, calls, dead letters and batches in a browser.
//!
//! The pages are rendered on the server (`pages`) from what NATS knows: a sample of all queues
//! that is taken in the background (`overview`), and what is read for the page itself. The
//! program talks to NATS alone, and reads only, so that its user in NATS needs no other permission.

pub use server::{Console, run};
pub use settings::Settings;

mod assets;
mod auth;
mod chart;
mod history;
mod mask;
mod metrics;
mod overview;
mod pages;
mod paging;
mod sampler;
mod server;
mod settings;
