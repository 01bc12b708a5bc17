//! A checked model of the protocol between gateway, JetStream, workers and clients.
//!
//! [`life`] models a call from the stream to its end, [`submission`] how it gets onto the stream,
//! [`lanes`] which consumer takes it, and [`shares`] how workers divide the limits of a queue.
//! [`search`] visits all their states within bounds. [`explain`] checks whether the model has a run
//! with the observed steps of one call. The README has the assumptions.

pub mod batches;
pub mod bounds;
pub mod explain;
pub mod guard;
pub mod lanes;
pub mod life;
pub mod places;
pub mod rule;
pub mod search;
pub mod shares;
pub mod submission;
pub mod waits;
