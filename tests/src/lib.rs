//! What the tests stand on: real processes, started and ended by the tests themselves.
//!
//! [`cluster`] is the Kubernetes that `make up` starts, [`nats`] runs a nats-server, [`program`] the programs of this project as they are built, [`http`] an HTTP
//! server that records what it is asked, [`raw`] speaks HTTP by hand, and [`wait`] waits for conditions, never for a time.

// A test that can't go on ends, saying why.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, clippy::missing_panics_doc)]

pub mod cluster;
pub mod http;
pub mod nats;
pub mod nats_auth;
pub mod program;
pub mod raw;
pub mod wait;
