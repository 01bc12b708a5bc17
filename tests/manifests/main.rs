//! What is in `manifests/`, without a cluster: rendered by `kubectl kustomize` and `helm template`,
//! compared, and checked.

#![allow(clippy::unwrap_used, clippy::panic)]

mod chart;
mod ingress;
mod monitoring;
mod network;
mod overlays;
mod queue_worker;
mod support;
mod versions;
