//! Handles calls of functions that the directory does not have.
//!
//! They are refused, or accepted for a function that may be deployed before they run. A misspelt
//! name looks the same, and its call would never run. So these calls are counted, logged at
//! intervals, and reported to the operator.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use asyncqueue::{FunctionName, QueueName, unknown_functions::Outcome};
use asyncqueue_runtime::log_limit::LogLimit;
use tracing::warn;

use crate::{
    metrics::Metrics,
    refusal::Refusal,
    settings::{Settings, UnknownFunction},
    unknown_reports::Reports,
};

/// Minimum interval between two log lines about these calls.
const LOG_INTERVAL: Duration = Duration::from_secs(30);

/// Handles these calls according to the settings.
#[derive(Debug)]
pub struct UnknownFunctions {
    policy: UnknownFunction,
    is_logged: bool,
    limit: LogLimit,
    reports: Option<Arc<Reports>>,
}

// === impl UnknownFunctions ===

impl UnknownFunctions {
    /// Creates the handling that the settings ask for. Without a directory no function is known, so
    /// that a log line would say nothing.
    #[must_use]
    pub fn of(settings: &Settings) -> Self {
        let (policy, has_file) = (settings.unknown_function(), settings.directory_file.0.is_some());
        let is_operators = !has_file && !settings.ensure_stream;
        Self {
            policy,
            is_logged: has_file || is_operators,
            limit: LogLimit::new(LOG_INTERVAL),
            reports: is_operators.then(|| Arc::new(Reports::new(outcome(policy)))),
        }
    }

    /// Returns the reports to the operator. Returns `None` if the directory is not the operator's.
    #[must_use]
    pub fn reports(&self) -> Option<Arc<Reports>> {
        self.reports.clone()
    }

    /// Refuses a function that the directory does not have, if the settings say so.
    pub fn check(&self, function: &FunctionName) -> Result<(), Refusal> {
        match self.policy {
            UnknownFunction::Reject => Err(Refusal::UnknownFunction(function.clone())),
            UnknownFunction::Accept => Ok(()),
        }
    }

    /// Counts, reports and logs the submission of such a call, which is refused or accepted to this
    /// queue.
    pub fn submitted(&self, function: &FunctionName, queue: &QueueName, metrics: &Metrics) {
        metrics.unknown_function(outcome(self.policy).as_str());
        if let Some(reports) = &self.reports {
            reports.note(function);
        }
        let Some(kept_back) = self.is_logged.then(|| self.limit.allow(Instant::now())).flatten()
        else {
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

/// Returns the outcome of such a call under this setting.
fn outcome(policy: UnknownFunction) -> Outcome {
    match policy {
        UnknownFunction::Accept => Outcome::Accepted,
        UnknownFunction::Reject => Outcome::Rejected,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn a_gateway_reports_where_the_directory_is_the_operators() {
        for (arguments, expected) in [
            (&[] as &[&str], true),
            (&["--unknown-function=reject"], true),
            (&["--directory-file=f"], false),
            (&["--ensure-stream"], false),
        ] {
            let settings = Settings::parse_from(["asyncqueue-gateway"].iter().chain(arguments));
            let unknown_functions = UnknownFunctions::of(&settings);
            assert_eq!(unknown_functions.reports().is_some(), expected, "{arguments:?}");
        }
    }
}
