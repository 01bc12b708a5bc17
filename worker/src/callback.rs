//! Posts results to the callback URLs of clients.

pub(crate) mod call_headers;
pub mod client;
mod connector;
pub(crate) mod dispatcher;
pub mod egress;
pub(crate) mod handler;
mod host_limits;
pub(crate) mod signature;
pub(crate) mod store;
pub(crate) mod tls;
pub(crate) mod truncated;

/// Maximum number of results that one worker posts at once. They wait only for the network.
pub(crate) const CONCURRENCY: usize = 256;
