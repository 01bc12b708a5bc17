//! Reports calls of functions that the directory does not have to the operator, which creates an
//! event from them. The gateway itself has no access to Kubernetes.

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

/// Calls come in bursts: one report has the functions of all calls within this time.
const SETTLE: Duration = Duration::from_secs(1);

/// Minimum interval between two reports.
const INTERVAL: Duration = Duration::from_secs(5);

/// The functions that are not reported yet.
#[derive(Debug)]
pub struct Reports {
    outcome: Outcome,
    functions: Mutex<BTreeSet<FunctionName>>,
    noted: Notify,
}

// === impl Reports ===

impl Reports {
    /// Creates the reports of a gateway whose calls of unknown functions have this outcome.
    #[must_use]
    pub fn new(outcome: Outcome) -> Self {
        Self { outcome, functions: Mutex::default(), noted: Notify::new() }
    }

    /// Records that a function was called. If the report is full, the function is reported only
    /// after a later call.
    pub fn note(&self, function: &FunctionName) {
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        if functions.len() < MAX_FUNCTIONS && !functions.contains(function) {
            functions.insert(function.clone());
            drop(functions);
            self.noted.notify_one();
        }
    }

    /// Publishes reports about a queue for as long as the future is polled.
    pub async fn publish(&self, client: &Client, queue: &QueueName) {
        let subject = report_subject(queue);
        loop {
            self.noted.notified().await;
            sleep(SETTLE).await;
            match self.take().encode() {
                Ok(report) => {
                    if let Err(error) = client.publish(subject.clone(), Bytes::from(report)).await {
                        debug!(%error, "a report of unknown functions could not be sent");
                    }
                }
                Err(error) => debug!(%error, "a report of unknown functions could not be encoded"),
            }
            sleep(INTERVAL).await;
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
    fn a_report_names_each_function_once_and_no_more_than_fit() {
        let reports = Reports::new(Outcome::Accepted);
        let function = |name: &str| FunctionName::new(name, "ns").unwrap();
        for name in ["b", "a", "b"] {
            reports.note(&function(name));
        }
        let expected = vec![function("a"), function("b")];
        assert_eq!(reports.take(), Report { outcome: Outcome::Accepted, functions: expected });
        for number in 0..10_000 {
            reports.note(&function(&format!("invented-{number}")));
        }
        assert_eq!(reports.take().functions.len(), MAX_FUNCTIONS);
        assert_eq!(reports.take().functions, []);
    }
}
