//! Decides when a call or a callback is tried again. All functions here are pure.

pub mod backoff;
pub mod outcome;
pub mod retry_after;
