//! The operator: creates streams and Deployments from `AsyncQueues` and the annotations of
//! functions.
//!
//! One of several operators is the leader and works (`leader_election`). It does three things
//! concurrently:
//! - `controller` reconciles the streams and workers of each `AsyncQueue` with its spec, and
//!   reports the outcome in its status.
//! - `queue_stats` updates the counts in each status, and those that `depth` serves.
//! - `functions` finds the functions and publishes the directory for gateways and workers.
//!
//! All of them read the `cache` that the watches fill, decide in pure functions, and can repeat
//! their work at any time.

mod app;
mod cache;
mod controller;
#[expect(
    unreachable_pub,
    reason = "the copies of each struct that derive(KubeSchema) makes inside of functions"
)]
#[expect(clippy::doc_markdown, reason = "`kubectl explain` prints these, and reads no Markdown")]
pub mod crd;
mod default_queue;
mod depth;
#[cfg(test)]
mod directory_file_rules;
#[cfg(test)]
mod documented;
mod error;
mod events;
#[cfg(test)]
mod fixtures;
mod functions;
mod labels;
mod lane_limits;
mod leader_election;
mod limited_functions;
mod manager;
mod metrics;
mod nats;
mod partial_spec;
mod pods;
mod pull_secrets;
mod queue_counts;
mod queue_settings;
mod queue_stats;
mod run;
#[expect(clippy::doc_markdown, reason = "`--help` prints these, and reads no Markdown")]
mod settings;
mod termination_grace;
mod trigger;
mod worker_defaults;
mod worker_image;

pub use run::run;
pub use settings::{Cli, Command, Settings};
