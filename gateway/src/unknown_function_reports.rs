//! Reports calls of functions that are not in the directory to the operator, which creates an event
//! from them. The gateway itself has no access to Kubernetes.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_nats::Client;
use asyncqueue::{
    FunctionName, QueueName,
    unknown_functions::{MAX_FUNCTIONS, Outcome, Report, report_subject},
};
use bytes::Bytes;
use tokio::{sync::Notify, time::sleep};
use tracing::debug;

/// Delay of a report: calls arrive in bursts, and one report lists the functions of all of them.
const DEBOUNCE: Duration = Duration::from_secs(1);

/// Minimum interval between two reports.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// The functions that are not reported yet.
#[derive(Debug)]
pub(crate) struct UnknownFunctionReports {
    outcome: Outcome,
    functions: Mutex<BTreeSet<FunctionName>>,
    has_functions: Notify,
}

// === impl UnknownFunctionReports ===

impl UnknownFunctionReports {
    /// Creates the reports of a gateway whose calls of unknown functions have this outcome.
    #[must_use]
    pub(crate) fn new(outcome: Outcome) -> Self {
        Self { outcome, functions: Mutex::default(), has_functions: Notify::new() }
    }

    /// Records that a function was called. If the report is full, the function is reported only
    /// after a later call.
    pub(crate) fn record(&self, function: &FunctionName) {
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        if functions.len() < MAX_FUNCTIONS && !functions.contains(function) {
            functions.insert(function.clone());
            drop(functions);
            self.has_functions.notify_one();
        }
    }

    /// Publishes reports about a queue for as long as the future is polled.
    pub(crate) async fn publish(&self, client: &Client, queue: &QueueName) {
        let subject = report_subject(queue);
        loop {
            self.has_functions.notified().await;
            sleep(DEBOUNCE).await;
            match self.take().encode() {
                Ok(report) => {
                    if let Err(error) = client.publish(subject.clone(), Bytes::from(report)).await {
                        debug!(%error, "failed to send a report of unknown functions");
                    }
                }
                Err(error) => debug!(%error, "failed to encode a report of unknown functions"),
            }
            sleep(REPORT_INTERVAL).await;
        }
    }

    /// Takes the recorded functions out and returns their report.
    fn take(&self) -> Report {
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        Report {
            outcome: self.outcome,
            functions: std::mem::take(&mut *functions).into_iter().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_lists_each_function_once_up_to_the_maximum() {
        let reports = UnknownFunctionReports::new(Outcome::Accepted);
        let function = |name: &str| FunctionName::new(name, "ns").unwrap();
        for name in ["b", "a", "b"] {
            reports.record(&function(name));
        }
        let expected = vec![function("a"), function("b")];
        assert_eq!(reports.take(), Report { outcome: Outcome::Accepted, functions: expected });
        for number in 0..10_000 {
            reports.record(&function(&format!("invented-{number}")));
        }
        assert_eq!(reports.take().functions.len(), MAX_FUNCTIONS);
        assert_eq!(reports.take().functions, []);
    }
}
