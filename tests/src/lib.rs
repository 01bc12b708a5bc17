//! What the tests stand on: real processes, started and ended by the tests themselves.
//!
//! [`nats`] runs a nats-server, [`program`] the programs of this project as they are built, [`http`] an HTTP server
//! that records what it is asked, [`cluster`] is the Kubernetes that `make up` starts, and [`wait`] waits for
//! conditions, never for a time.

// A test that can't go on ends, saying why.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, clippy::missing_panics_doc)]

pub mod cluster;
pub mod http;
pub mod nats;
pub mod program;
pub mod wait;
