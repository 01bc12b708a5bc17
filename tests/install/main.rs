//! The ways to install, upgrade and remove AsyncQueue, on the cluster that `make up` starts.
//!
//! Not among the other end-to-end tests, and one at a time: each takes what is installed away and
//! leaves it as it found it.

#![allow(clippy::unwrap_used, clippy::panic)]

mod chart_examples;
#[path = "../e2e/support.rs"]
#[allow(dead_code)] // the other end-to-end tests use more of it
mod e2e;
mod external_nats;
mod helm;
mod load;
mod overlays;
mod release;
mod shipped;
mod support;
mod upgrade;
