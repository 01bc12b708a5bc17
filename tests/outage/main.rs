//! What all stand on taken away: NATS, the operator, its permissions.
//!
//! Not among the other end-to-end tests, since it takes from them what they stand on; one after the
//! other.

#![allow(clippy::unwrap_used, clippy::panic)]

mod nats;
mod operator;
