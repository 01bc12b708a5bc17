//! The operator: creates streams and Deployments from `AsyncQueues` and the annotations of
//! functions.
//!
//! Of several operators one works, the `leader`. It does three things concurrently:
//! - The `controller` brings each `AsyncQueue`'s streams and workers to what its spec says, and
//!   reports the outcome in its status.
//! - The `figures` keep the numbers in the status up to date.
//! - The `directory` keeps what gateways and workers need to know of functions and queues.
//!
//! All of them read what the `watch`es have seen, decide in pure functions, and can repeat their
//! work at any time.

mod account;
mod advisories;
mod allowed_streams;
mod broker;
mod budget;
mod cause;
mod claims;
mod conditions;
mod controller;
#[expect(
    unreachable_pub,
    reason = "the copies of each struct that derive(KubeSchema) makes inside of functions"
)]
#[expect(clippy::doc_markdown, reason = "`kubectl explain` prints these, and reads no Markdown")]
pub mod crd;
mod default_queue;
mod directory;
#[cfg(test)]
mod documented;
mod error;
mod events;
mod figures;
mod finalizer;
#[cfg(test)]
mod fixtures;
mod functions;
mod image;
mod leader;
mod metrics;
mod openfaas;
mod operate;
mod pods;
mod pull_secrets;
mod reserve;
mod resync;
mod run;
mod running;
mod secret;
#[expect(clippy::doc_markdown, reason = "`--help` prints these, and reads no Markdown")]
mod settings;
mod slim;
mod spec;
mod triggers;
mod trim;
mod unknown_functions;
mod watch;
mod workload;

pub use run::run;
pub use settings::{Cli, Command, Settings};
