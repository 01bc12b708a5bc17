//! Caches of Kubernetes objects: watches that fill them, and the cached form of each kind.
//!
//! There are tens of thousands of objects, so only the used fields of most kinds are cached.

pub(crate) mod async_queue;
pub(crate) mod deployment;
pub(crate) mod disruption_budget;
pub(crate) mod health;
pub(crate) mod object;
pub(crate) mod service_account;
pub(crate) mod watch;
