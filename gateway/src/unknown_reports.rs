//! Reports calls of functions that the directory does not have to the operator, which creates an event from them: the
//! gateway knows nothing of Kubernetes.

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

/// Calls come in bursts: the functions of those within this time are in one report.
const SETTLE: Duration = Duration::from_secs(1);

/// Between two reports.
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
    /// Of a gateway that does this with such calls.
    #[must_use]
    pub fn new(outcome: Outcome) -> Self {
        Self { outcome, functions: Mutex::default(), noted: Notify::new() }
    }

    /// Notes that a function was called. Of more than fit in a report, the rest is left to later calls of them.
    pub fn note(&self, function: &FunctionName) {
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        if functions.len() < MAX_FUNCTIONS && !functions.contains(function) {
            functions.insert(function.clone());
            drop(functions);
            self.noted.notify_one();
        }
    }

    /// Publishes reports about a queue for as long as it is polled.
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

    /// The report of what was noted, which is forgotten.
    fn take(&self) -> Report {
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        Report { outcome: self.outcome, functions: std::mem::take(&mut *functions).into_iter().collect() }
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
