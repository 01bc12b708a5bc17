//! Handles calls of functions that are not in the directory.
//!
//! They are rejected, or accepted for a function that may be deployed before they run. A misspelt
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
    rejection::Rejection,
    settings::{Settings, UnknownFunction},
    unknown_function_reports::UnknownFunctionReports,
};

/// Minimum interval between two log lines about these calls.
const LOG_INTERVAL: Duration = Duration::from_secs(30);

/// Handles these calls according to the settings.
#[derive(Debug)]
pub(crate) struct UnknownFunctions {
    policy: UnknownFunction,
    is_logged: bool,
    limit: LogLimit,
    reports: Option<Arc<UnknownFunctionReports>>,
}

// === impl UnknownFunctions ===

impl UnknownFunctions {
    /// Creates the handling that the settings ask for. Without a directory all functions are
    /// unknown, and the calls are not logged.
    #[must_use]
    pub(crate) fn from_settings(settings: &Settings) -> Self {
        let (policy, has_file) = (settings.unknown_function(), settings.directory_file.0.is_some());
        let has_operator = !has_file && !settings.ensure_stream;
        Self {
            policy,
            is_logged: has_file || has_operator,
            limit: LogLimit::new(LOG_INTERVAL),
            reports: has_operator
                .then(|| Arc::new(UnknownFunctionReports::new(policy_outcome(policy)))),
        }
    }

    /// Returns the reports to the operator. Returns `None` if there is no operator.
    #[must_use]
    pub(crate) fn reports(&self) -> Option<Arc<UnknownFunctionReports>> {
        self.reports.clone()
    }

    /// Rejects a function that is not in the directory, if the settings say so.
    pub(crate) fn check(&self, function: &FunctionName) -> Result<(), Rejection> {
        match self.policy {
            UnknownFunction::Reject => Err(Rejection::UnknownFunction(function.clone())),
            UnknownFunction::Accept => Ok(()),
        }
    }

    /// Counts, reports and logs the submission of such a call, which is rejected or accepted to
    /// this queue.
    pub(crate) fn record(&self, function: &FunctionName, queue: &QueueName, metrics: &Metrics) {
        metrics.record_unknown_function(policy_outcome(self.policy).as_str());
        if let Some(reports) = &self.reports {
            reports.record(function);
        }
        let Some(suppressed) = self.is_logged.then(|| self.limit.allow(Instant::now())).flatten()
        else {
            return;
        };
        match self.policy {
            UnknownFunction::Reject => warn!(
                %function, suppressed,
                "rejecting a call of an unknown function: check its name and namespace, or deploy \
                 it"
            ),
            UnknownFunction::Accept => warn!(
                %function, %queue, suppressed,
                "storing a call of an unknown function on the default queue: check its name and \
                 namespace, or deploy it; unknown_function=reject rejects such calls"
            ),
        }
    }
}

/// Returns the outcome of such a call under this setting.
fn policy_outcome(policy: UnknownFunction) -> Outcome {
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
    fn gateway_reports_if_the_operator_writes_the_directory() {
        for (arguments, expected) in [
            (&[] as &[&str], true),
            (&["--unknown-function=reject"], true),
            (&["--directory-file=f"], false),
            (&["--ensure-stream"], false),
        ] {
            let settings = Settings::parse_from(["asyncqueue-gateway"].iter().chain(arguments));
            let unknown_functions = UnknownFunctions::from_settings(&settings);
            assert_eq!(unknown_functions.reports().is_some(), expected, "{arguments:?}");
        }
    }
}
