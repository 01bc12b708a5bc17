//! What is wrong with a queue, why, and what to do about it. Pure.

use serde::Serialize;

mod async_queue;
mod facts;
mod from_conditions;
mod from_nats;
#[cfg(test)]
mod samples;

pub(crate) use async_queue::AsyncQueue;
pub(crate) use facts::{DeadReason, Facts, Kubernetes};

/// How bad a finding is. The worst is the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Severity {
    /// Calls are refused, do not run or do not end.
    Error,
    /// Calls wait, fail or are lost.
    Warning,
    /// Calls run as they should.
    Note,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) severity: Severity,
    /// What it is, for programs: the type of a condition, or a name of the same form.
    pub(crate) name: String,
    /// What is wrong, with numbers and names.
    pub(crate) cause: String,
    /// What to do, with a command if there is one.
    pub(crate) remedy: String,
}

/// Returns what is wrong with a queue, the worst first.
pub(crate) fn diagnose(facts: &Facts) -> Vec<Finding> {
    let mut findings = from_conditions::findings(facts);
    // The operator says the same with more details.
    let mut own = from_nats::findings(facts);
    own.retain(|own| findings.iter().all(|finding| finding.name != own.name));
    findings.append(&mut own);
    findings.sort_by_key(|finding| finding.severity);
    findings
}

impl Severity {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

impl Finding {
    fn new(
        severity: Severity,
        name: &str,
        cause: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { severity, name: name.to_owned(), cause: cause.into(), remedy: remedy.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::{samples::*, *};

    #[test]
    fn a_healthy_queue_has_no_findings() {
        assert_eq!(diagnose(&healthy()), []);
        let standalone = Facts { kubernetes: Kubernetes::Standalone, ..healthy() };
        assert_eq!(diagnose(&standalone), []);
    }

    #[test]
    fn the_worst_finding_is_the_first_and_each_is_there_once() {
        let queue = async_queue(&[
            ("UniqueSequences", "False", "SequencesBeginAt1", "Recreate the streams."),
            ("Suspended", "True", "Suspended", "Suspended: calls are accepted, but not run."),
            ("Ready", "False", "Unschedulable", "No node accepts a worker."),
        ]);
        let kubernetes = Kubernetes::Read(vec![queue]);
        let facts = Facts { kubernetes, is_paused: true, ..healthy() };
        let findings = diagnose(&facts);
        let names: Vec<&str> = findings.iter().map(|finding| &*finding.name).collect();
        assert_eq!(names, ["Ready", "Suspended", "UniqueSequences"]);
        assert_eq!(findings[1].cause, "Suspended: calls are accepted, but not run.");
    }
}
