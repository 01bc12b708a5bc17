//! Decides when a call or a callback is retried. All functions here are pure.

pub mod backoff;
pub mod outcome;
pub mod retry_after;
