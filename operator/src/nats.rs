//! What the operator does on NATS: its connections, and what it receives from servers and workers.

pub(crate) mod advisories;
pub(crate) mod connections;
pub(crate) mod reserve;
pub(crate) mod worker_stats;
