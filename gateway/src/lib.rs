//! The gateway: accepts HTTP calls of functions and stores them on their queues.
//!
//! A request passes these modules: `route` parses its path, `asyncqueue::submission` checks its
//! head, `body` reads the rest, `asyncqueue::submit` stores it, and `response` builds the answer,
//! from a `rejection` if the request is refused. A request about a stored call goes to `lookup`.
//! `service` runs these steps in order, and `proxy` passes on requests that are not for this
//! gateway.
//! `server` starts all parts of the program.
//!
//! Concurrent work is limited, in number by `concurrency_limit` and in memory by one budget
//! (`memory_budget`). A request over a limit is rejected and its client is asked to retry. A
//! request that was accepted does not wait for a permit or for memory.

pub use crate::{
    directory_file::parse as parse_directory_file,
    server::{Gateway, run},
    settings::Settings,
};

mod ambiguous_path;
mod background;
mod base_url;
mod body;
mod concurrency_limit;
mod context;
mod directory_file;
mod directory_source;
#[cfg(test)]
mod documented;
mod forwarded;
mod hop_limit;
mod lookup;
mod memory_budget;
mod metrics;
mod openapi;
mod provisioner;
mod proxy;
mod proxy_body;
mod readiness;
mod rejection;
mod response;
mod results;
mod route;
mod server;
mod service;
mod settings;
mod unknown_function_reports;
mod unknown_functions;
mod wait;

/// What the fuzz targets call. Not part of the API.
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::{
        ambiguous_path::is_unambiguous,
        base_url::BaseUrl,
        forwarded::ForwardedHeaders,
        hop_limit::HopLimit,
        route::{FunctionPath, Route},
    };
}
