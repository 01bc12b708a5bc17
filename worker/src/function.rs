//! Invokes functions over HTTP.

pub(crate) mod client;
pub mod request;
pub(crate) mod response_buffer;
