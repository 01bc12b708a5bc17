//! The operator: `AsyncQueues` and function annotations in, streams and Deployments out.
//!
//! Of several operators one works, the `leader`. Three things go on at once. The `controller` brings
//! each `AsyncQueue`'s streams and workers to what its spec says, and tells in its status how that
//! went; the `figures` keep the numbers in it; the `directory` keeps what gateways and workers need
//! to know of functions and queues. All look at what the `watch`es have seen, decide in plain
//! functions, and can do their work again at any time.

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
