//! Reports calls of functions that the directory does not list. Gateways publish the reports over
//! core NATS. The operator, which alone talks to Kubernetes, creates events from them.
//!
//! A report may be lost, and no program depends on it: the gateway counts and logs such calls, too.

use serde::{Deserialize, Serialize};

use crate::names::{FunctionName, QueueName};

/// Subjects of the reports about all queues; the last token is the queue's name.
pub const REPORT_SUBJECTS: &str = "asyncqueue.unknown-functions.*";

/// Maximum number of functions in one report. Clients choose the names, and may invent any number.
pub const MAX_FUNCTIONS: usize = 8;

/// Maximum size of a report that is read, in bytes: [`MAX_FUNCTIONS`] of the longest names, and
/// room for fields of later versions.
const MAX_PAYLOAD: usize = 4096;

/// Returns the subject of the reports about calls that go to a queue, or would.
#[must_use]
pub fn report_subject(queue: &QueueName) -> String {
    format!("asyncqueue.unknown-functions.{queue}")
}

/// The functions of such calls that one gateway received in a few seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// What the gateway did with the calls.
    pub outcome: Outcome,
    /// The functions, as `name.namespace`: each once, at most [`MAX_FUNCTIONS`].
    pub functions: Vec<FunctionName>,
}

/// What a gateway does with such a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The call is stored on the default queue.
    Accepted,
    /// The call is answered with 404.
    Rejected,
}

// === impl Report ===

impl Report {
    /// Encodes the report in JSON.
    ///
    /// # Errors
    ///
    /// None in practice: names and outcomes can always be written.
    pub fn encode(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(self)
    }

    /// Reads a report; `None` for a payload that no gateway sends. Any NATS client may publish one.
    #[must_use]
    pub fn decode(payload: &[u8]) -> Option<Self> {
        if payload.len() > MAX_PAYLOAD {
            return None;
        }
        let report: Self = serde_json::from_slice(payload).ok()?;
        (report.functions.len() <= MAX_FUNCTIONS).then_some(report)
    }
}

// === impl Outcome ===

impl Outcome {
    /// Returns the text for metrics and reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(count: usize) -> Report {
        let function =
            |number| FunctionName::new(&format!("{number}{}", "x".repeat(62)), &"n".repeat(63));
        let functions = (0..count).map(|number| function(number).unwrap()).collect();
        Report { outcome: Outcome::Accepted, functions }
    }

    #[test]
    fn a_report_of_the_longest_names_reads_back() {
        let report = report(MAX_FUNCTIONS);
        assert_eq!(Report::decode(&report.encode().unwrap()), Some(report));
    }

    #[test]
    fn reports_of_later_versions_are_read() {
        let json = br#"{"outcome":"rejected","functions":["slwo.openfaas-fn"],"ofTheFuture":1}"#;
        let functions = vec![FunctionName::new("slwo", "openfaas-fn").unwrap()];
        assert_eq!(Report::decode(json), Some(Report { outcome: Outcome::Rejected, functions }));
    }

    #[test]
    fn invalid_reports_are_ignored() {
        let named =
            |name: &str| format!(r#"{{"outcome":"accepted","functions":["{name}"]}}"#).into_bytes();
        assert!(Report::decode(&named("f.ns")).is_some());
        for bad in [
            b"[]".to_vec(),
            br#"{"outcome":"eaten","functions":[]}"#.to_vec(),
            named("no-namespace"),
            named("Click http://evil.ns"),
            named(&format!("{}.ns", "x".repeat(64))),
            report(MAX_FUNCTIONS + 1).encode().unwrap(),
            [named("f.ns"), vec![b' '; MAX_PAYLOAD]].concat(),
        ] {
            assert_eq!(Report::decode(&bad), None, "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn the_subject_and_the_words_are_those_of_the_contract() {
        let queue: QueueName = "q".parse().unwrap();
        assert_eq!(report_subject(&queue), REPORT_SUBJECTS.replace('*', "q"));
        for outcome in [Outcome::Accepted, Outcome::Rejected] {
            assert_eq!(serde_json::to_value(outcome).unwrap(), outcome.as_str());
        }
    }
}
