//! What the operator does on NATS: its connections, what it receives from servers and workers, and
//! the queue that an `AsyncQueue` asks for.

pub(crate) mod advisories;
pub(crate) mod allowed_streams;
pub(crate) mod connections;
pub(crate) mod lanes;
pub(crate) mod queue_spec;
pub(crate) mod reserve;
pub(crate) mod secrets;
pub(crate) mod worker_stats;
