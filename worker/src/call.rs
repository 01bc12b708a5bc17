//! Takes a call from its delivery to its end, or to its next attempt.

pub(crate) mod cancellations;
pub(crate) mod finish;
pub(crate) mod run;
pub(crate) mod stall;
pub(crate) mod status;
