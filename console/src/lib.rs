//! `asyncqueue-console`: queues, calls, dead letters and batches in a browser.
//!
//! The pages are rendered on the server (`pages`) from what NATS knows: a sample of all queues
//! that is taken in the background (`overview`), the dead letters of the queues that are viewed
//! (`letters`), and what is read for the page itself. The program talks to NATS alone. It only
//! reads, unless a setting allows `actions`: then users cancel calls, and replay and delete dead
//! letters.

pub use server::{Console, run};
pub use settings::Settings;

mod actions;
mod assets;
mod auth;
mod chart;
mod history;
mod letters;
mod mask;
mod metrics;
mod overview;
mod pages;
mod paging;
mod sampler;
mod server;
mod settings;
