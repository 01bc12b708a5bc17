//! The code that all programs of AsyncQueue share:
//!
//! - [`program`][]: how a program starts and stops
//! - [`shutdown`][]: how it is asked to stop
//! - [`settings`][]: the common settings
//! - [`contract`][]: names and defaults of the settings that several programs know
//! - [`nats`][]: the connection to NATS, which reconnects without limit
//! - [`health`][]: readiness
//! - [`server`] and [`client`]: the HTTP server and client
//! - [`admin`][]: the endpoints for probes and metrics

pub mod admin;
mod allocator;
pub mod arguments;
pub mod byte_size;
pub mod client;
pub mod contract;
pub mod error;
pub mod health;
pub mod log_limit;
pub mod memory;
pub mod nats;
pub mod output;
pub mod program;
pub mod server;
pub mod settings;
pub mod shutdown;
pub mod signals;

/// The version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
