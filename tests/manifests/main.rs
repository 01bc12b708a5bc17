//! What is in `manifests/`, without a cluster: rendered by `kubectl kustomize` and `helm template`,
//! compared, and checked.

#![allow(clippy::unwrap_used, clippy::panic)]

mod chart;
mod chart_documents;
mod chart_examples;
mod chart_notes;
mod chart_queue_schema;
mod chart_values;
mod ingress;
mod kubernetes_types;
mod monitoring;
mod network;
mod overlays;
mod queue_worker;
mod release;
mod support;
mod versions;
