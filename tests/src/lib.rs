//! What the tests stand on: real processes, started and ended by the tests themselves.
//!
//! [`cluster`] is the Kubernetes that `make up` starts, [`nats`] runs a nats-server, [`program`] the programs of this
//! project as they are built, [`tools`] those of others; [`http`] is an HTTP server that records what it is asked, [`raw`]
//! speaks HTTP by hand, [`rights`] compares what a service account may do with what it does, [`promql`] what alerts and
//! dashboards read with what programs export ([`monitoring`] has those of this project), and [`wait`] waits for conditions,
//! never for a time.

// A test that can't go on ends, saying why.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, clippy::missing_panics_doc)]

pub mod cluster;
pub mod http;
pub mod monitoring;
pub mod nats;
pub mod program;
pub mod promql;
pub mod raw;
pub mod rights;
pub mod tools;
pub mod wait;
