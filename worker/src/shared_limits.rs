//! Limits that the workers of a queue share: how many invocations are open (`concurrency`), and how
//! many start in a second (`rate`). Functions may have such limits too.
//!
//! [`gate`] decides in this worker whether an invocation may start, and [`function_gate`] whether
//! one of a function may. [`adaptive_limit`] learns how many of these the function takes.
//! [`keeper`] gets the worker's shares from NATS and renews them, and [`token_bucket`] spaces the
//! starts. [`asyncqueue::shares::division`] divides the limits. Queues without these limits write
//! nothing.

use std::time::Duration;

pub(crate) use self::{function_gate::FunctionGate, gate::Gate, keeper::ShareKeeper};

mod adaptive_limit;
mod function_gate;
mod gate;
mod keeper;
mod token_bucket;

/// Time after which other workers take the share of a worker that has not renewed it.
const LEASE: Duration = Duration::from_secs(15);

/// Time after a renewal in which invocations may start. The rest of the lease is for a process that
/// is stopped between this check and the request: it may be stopped for a third of the lease.
const STARTS_WITHIN: Duration = Duration::from_secs(9);

/// Interval between renewals.
pub(crate) const RENEW_INTERVAL: Duration = Duration::from_secs(3);
