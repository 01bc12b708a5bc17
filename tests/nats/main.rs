//! Queue, worker and gateway on a real nats-server, without Kubernetes.

#![allow(clippy::unwrap_used, clippy::panic)]

mod attempts;
mod bad_inputs;
mod cancel;
mod cancel_races;
mod chains;
mod cli;
mod credentials;
mod dead_letters;
mod directory;
mod gateway;
mod gateway_calls;
mod gateway_clients;
mod gateway_identity;
mod gateway_keys;
mod gateway_limits;
mod gateway_proxy;
mod gateway_races;
mod gateway_routing;
mod gateway_submit;
mod operator;
mod replay;
mod sequences;
mod sequences_cluster;
mod sizes;
mod standalone;
mod status;
mod support;
mod suspend;
mod versions;
mod worker;
mod worker_answers;
mod worker_faults;
mod worker_metrics;
mod worker_storm;
