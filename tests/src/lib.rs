//! What the tests stand on: real processes, started and ended by the tests themselves.
//!
//! [`cluster`] is the Kubernetes that `make up` starts, [`nats`] runs nats-servers, [`program`] the programs of this
//! project as they are built, [`process`] reads what the kernel says of them, [`http`] is an HTTP server that records what
//! it is asked, [`raw`] speaks HTTP by hand, [`proxy`] is a cable that can be pulled, and [`wait`] waits for conditions,
//! never for a time. [`load`] submits calls of all kinds, [`history`] tells whether what became of them is what was
//! promised, and [`bench`] is what the benchmarks have in common.

// A test that can't go on ends, saying why.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, clippy::missing_panics_doc)]

pub mod bench;
pub mod cluster;
pub mod history;
pub mod http;
pub mod load;
pub mod nats;
pub mod process;
pub mod program;
pub mod proxy;
pub mod raw;
pub mod wait;
