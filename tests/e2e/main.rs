//! End-to-end tests on the cluster that `make up` starts, with all there is in `manifests/`.
//!
//! Each has a namespace and a queue of its own, so that they run side by side.

#![allow(clippy::unwrap_used, clippy::panic)]

mod admission;
mod broken;
mod callbacks;
mod credentials;
mod deletion;
mod documented;
mod drift;
mod fairness;
mod functions;
mod limits;
mod live_settings;
mod manual;
mod monitoring;
mod ownership;
mod plugin;
mod pods;
mod queue_counts;
mod readiness;
mod retries;
mod story;
mod support;
mod suspend;
mod tenants;
mod workers;
