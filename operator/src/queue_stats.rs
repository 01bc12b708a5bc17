//! Updates the counts in the status of all queues.
//!
//! Counts change all the time, so the controller does not write them. One task lists the streams
//! of all queues at once, lists consumers only if a queue holds calls, and writes the counts that
//! have changed. A new queue, which has no counts yet, gets them with its first status.

pub(crate) mod collector;
mod stream_listing;
