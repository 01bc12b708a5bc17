//! What belongs to NATS: the queue that an `AsyncQueue` asks for, and the Secrets for a server.

pub(crate) mod allowed_streams;
pub(crate) mod queue_spec;
pub(crate) mod secrets;
