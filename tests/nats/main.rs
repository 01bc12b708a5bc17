//! Queue, worker and gateway on a real nats-server, without Kubernetes.

#![allow(clippy::unwrap_used, clippy::panic)]

mod cancel;
mod support;
mod worker;
mod worker_faults;
