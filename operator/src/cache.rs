//! Caches of Kubernetes objects: watches that fill them, and the parts of each kind that are kept.
//!
//! There are tens of thousands of objects, so of most kinds only the used fields are kept.

pub(crate) mod async_queue;
pub(crate) mod deployment;
pub(crate) mod disruption_budget;
pub(crate) mod health;
pub(crate) mod object;
pub(crate) mod service_account;
pub(crate) mod watch;
