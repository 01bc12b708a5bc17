//! Calls of functions that the directory does not have: refused, or accepted for a function that may be deployed by the
//! time they come up. A misspelt name looks the same, and its call would never run: so such calls are counted, and
//! logged at intervals.

use std::time::{Duration, Instant};

use asyncqueue::{FunctionName, QueueName};
use asyncqueue_runtime::log_limit::LogLimit;
use tracing::warn;

use crate::{
    metrics::Metrics,
    refusal::Refusal,
    settings::{Settings, UnknownFunction},
};

/// Between two lines of the log about such calls.
const LOG_INTERVAL: Duration = Duration::from_secs(30);

/// What is done with such calls.
#[derive(Debug)]
pub struct UnknownFunctions {
    policy: UnknownFunction,
    is_logged: bool,
    limit: LogLimit,
}

// === impl UnknownFunctions ===

impl UnknownFunctions {
    /// Does with them what the settings say. Without a directory no function is known, so that a line would say nothing.
    #[must_use]
    pub fn of(settings: &Settings) -> Self {
        let is_logged = settings.directory_file.0.is_some() || !settings.ensure_stream;
        Self { policy: settings.unknown_function(), is_logged, limit: LogLimit::new(LOG_INTERVAL) }
    }

    /// Refuses a function that the directory does not have, if such are refused.
    pub fn check(&self, function: &FunctionName) -> Result<(), Refusal> {
        match self.policy {
            UnknownFunction::Reject => Err(Refusal::UnknownFunction(function.clone())),
            UnknownFunction::Accept => Ok(()),
        }
    }

    /// A call of such a function was submitted: refused, or accepted to this queue.
    pub fn submitted(&self, function: &FunctionName, queue: &QueueName, metrics: &Metrics) {
        metrics.unknown_function(match self.policy {
            UnknownFunction::Reject => "rejected",
            UnknownFunction::Accept => "accepted",
        });
        let Some(kept_back) = self.is_logged.then(|| self.limit.pass(Instant::now())).flatten() else {
            return;
        };
        match self.policy {
            UnknownFunction::Reject => warn!(
                %function, kept_back,
                "a call of a function that the directory does not have is rejected: check its name and namespace, or deploy it"
            ),
            UnknownFunction::Accept => warn!(
                %function, %queue, kept_back,
                "a call of a function that the directory does not have goes to the default queue: check its name and \
                 namespace, or deploy it; unknown_function=reject refuses such calls"
            ),
        }
    }
}
