//! What every program of AsyncQueue shares, so that none of them says it twice: how a program starts and
//! stops ([`program`]), the settings they have in common ([`settings`]), the connection to NATS that never
//! gives up ([`nats`]), readiness ([`health`]), the HTTP server ([`server`]) and client ([`client`]), and the
//! endpoints for probes and metrics ([`admin`]).

pub mod admin;
mod allocator;
pub mod arguments;
pub mod byte_size;
pub mod client;
pub mod error;
pub mod health;
pub mod log_limit;
pub mod memory;
pub mod nats;
pub mod output;
pub mod program;
pub mod server;
pub mod settings;

/// The version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
