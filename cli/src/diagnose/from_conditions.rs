//! What the operator found: the conditions of an `AsyncQueue`.

use super::{
    Finding, Severity,
    async_queue::{AsyncQueue, Condition, RESOURCE_CONFLICT},
    facts::Facts,
};

/// Conditions that say that something is wrong while they have this status.
const BAD: [(&str, &str, Severity); 8] = [
    ("CallsBlocked", "True", Severity::Error),
    ("Suspended", "True", Severity::Warning),
    ("Migrating", "True", Severity::Warning),
    ("Migrating", "False", Severity::Warning),
    ("FunctionsRefused", "True", Severity::Warning),
    ("SettingsPending", "True", Severity::Warning),
    ("LanesShared", "True", Severity::Note),
    ("UniqueSequences", "False", Severity::Note),
];

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    facts.async_queues().iter().flat_map(findings_of).collect()
}

fn findings_of(queue: &AsyncQueue) -> Vec<Finding> {
    let name = queue.kubectl_name();
    if queue.status.conditions.is_empty() {
        return vec![Finding::new(
            Severity::Error,
            "NotReconciled",
            format!("No operator has handled the AsyncQueue {}.", queue.full_name()),
            "Check that the operator runs and watches the namespace: its readiness and its log \
             say what it waits for.",
        )];
    }
    let findings = queue.status.conditions.iter().filter_map(|condition| {
        let severity = severity(condition)?;
        let Condition { kind, reason, message, .. } = condition;
        Some(Finding::new(severity, kind, message.as_str(), remedy(kind, reason, &name)))
    });
    findings.collect()
}

/// Returns how bad a condition is; `None` if it says that nothing is wrong.
fn severity(condition: &Condition) -> Option<Severity> {
    let Condition { kind, status, reason, .. } = condition;
    match (kind.as_str(), status.as_str(), reason.as_str()) {
        ("Ready", "True", _) => None,
        // Workers start, which takes seconds.
        ("Ready", _, "Progressing") => Some(Severity::Warning),
        ("Ready", _, _) => Some(Severity::Error),
        (kind, status, _) => {
            let bad = BAD.iter().find(|bad| (bad.0, bad.1) == (kind, status));
            bad.map(|(_, _, severity)| *severity)
        }
    }
}

/// Returns what to do. The messages of conditions contain the details.
fn remedy(kind: &str, reason: &str, name: &str) -> String {
    let what = match (kind, reason) {
        (_, "ImagePullFailed") => {
            "Correct spec.worker.image, spec.worker.imagePullPolicy or spec.worker.imagePullSecrets"
        }
        (_, "ContainerConfigError") => {
            "Create the Secret, the ConfigMap or the key that spec.worker.env names, or correct \
             spec.worker.env"
        }
        (_, "VolumeMountFailed") => {
            "Create the Secret or the key that spec.callback or spec.nats names, or correct the \
             reference"
        }
        (_, "ContainerStartFailed") => {
            "Set spec.worker.image to an image with the program asyncqueue-worker for the node"
        }
        (_, "Unschedulable") => {
            "Add nodes, or change spec.worker.nodeSelector, affinity, tolerations or resources"
        }
        (_, "WorkerExited") => {
            "Correct the setting that the message names, often in spec.worker.env"
        }
        (_, "OutOfMemory") => {
            "Raise spec.worker.resources.limits.memory, or lower memory_budget in spec.worker.env"
        }
        (_, "ProbeFailed") => "See the log of the workers, which says what they wait for",
        (_, "PodsRefused") => {
            "Raise the ResourceQuota, or correct spec.worker.priorityClassName, runtimeClassName \
             or serviceAccountName"
        }
        (_, "WorkersUnavailable") => "See the events of the workers' pods",
        (_, RESOURCE_CONFLICT) => {
            "Use another name or spec.stream.name, or release or delete what has the name"
        }
        (_, "SubjectOverlap") => "Set another spec.stream.subject",
        (_, "ImmutableFieldChanged") => {
            "Change the spec back, or wait until the stream is empty and delete it"
        }
        (_, "NatsUnavailable") => "Check that NATS runs, and correct spec.nats.url",
        (_, "NatsRefused") => {
            "Give NATS more room or servers, or lower spec.stream.replicas or spec.limits"
        }
        ("Suspended", _) => {
            return format!(
                "kubectl patch {name} --type=merge --patch='{{\"spec\":{{\"suspend\":false}}}}'"
            );
        }
        (_, "Progressing" | "Migrating") => "Wait: it ends by itself",
        _ => "Follow the message",
    };
    format!("{what}: kubectl describe {name}")
}

#[cfg(test)]
mod tests {
    use super::{super::samples::*, *};

    fn found(condition: (&str, &str, &str, &str)) -> Vec<Finding> {
        findings_of(&async_queue(&[condition]))
    }

    #[test]
    fn the_message_of_a_condition_is_the_cause() {
        for (reason, words) in [
            ("ImagePullFailed", "spec.worker.image"),
            ("ContainerConfigError", "Secret"),
            ("VolumeMountFailed", "spec.callback"),
            ("ContainerStartFailed", "asyncqueue-worker"),
            ("Unschedulable", "nodeSelector"),
            ("WorkerExited", "spec.worker.env"),
            ("OutOfMemory", "limits.memory"),
            ("ProbeFailed", "log"),
            ("PodsRefused", "ResourceQuota"),
            ("WorkersUnavailable", "events"),
            ("ResourceConflict", "spec.stream.name"),
            ("SubjectOverlap", "spec.stream.subject"),
            ("ImmutableFieldChanged", "delete it"),
            ("NatsUnavailable", "spec.nats.url"),
            ("NatsRefused", "spec.stream.replicas"),
            ("InvalidSpec", "Follow the message"),
        ] {
            let [finding] = &found(("Ready", "False", reason, "What is wrong."))[..] else {
                panic!("{reason}")
            };
            assert_eq!((finding.severity, &*finding.cause), (Severity::Error, "What is wrong."));
            assert!(finding.remedy.contains(words), "{reason}: {}", finding.remedy);
            assert!(
                finding.remedy.ends_with(": kubectl describe asyncqueue jobs -n ns"),
                "{reason}: {}",
                finding.remedy
            );
        }
    }

    #[test]
    fn conditions_have_the_severity_of_what_they_say() {
        for (kind, status, reason, severity) in [
            ("Ready", "True", "Suspended", None),
            ("Ready", "False", "Progressing", Some(Severity::Warning)),
            ("Ready", "Unknown", "Blocked", Some(Severity::Error)),
            ("CallsBlocked", "True", "RecordsNotStored", Some(Severity::Error)),
            ("CallsBlocked", "False", "Active", None),
            ("Suspended", "True", "Suspended", Some(Severity::Warning)),
            ("Migrating", "True", "Migrating", Some(Severity::Warning)),
            ("Migrating", "False", "AttemptsNotRecorded", Some(Severity::Warning)),
            ("FunctionsRefused", "True", "NamespaceNotAdmitted", Some(Severity::Warning)),
            ("SettingsPending", "True", "DirectoryNotWritten", Some(Severity::Warning)),
            ("LanesShared", "True", "MaxLanes", Some(Severity::Note)),
            ("UniqueSequences", "False", "SequencesBeginAt1", Some(Severity::Note)),
            ("UniqueSequences", "True", "Reconciled", None),
            ("Progressing", "True", "Progressing", None),
            ("Stalled", "True", "ImagePullFailed", None),
        ] {
            let found = found((kind, status, reason, "M."));
            let found = found.first().map(|finding| finding.severity);
            assert_eq!(found, severity, "{kind} {status}");
        }
    }

    #[test]
    fn a_queue_without_conditions_was_not_handled() {
        let [finding] = &findings_of(&async_queue(&[]))[..] else { panic!("one finding") };
        assert_eq!((finding.severity, &*finding.name), (Severity::Error, "NotReconciled"));
        assert!(finding.cause.contains("ns/jobs") && finding.remedy.contains("operator"));
    }

    #[test]
    fn a_suspended_queue_is_resumed_by_a_command() {
        let [finding] = &found(("Suspended", "True", "Suspended", "M."))[..] else {
            panic!("one finding")
        };
        assert_eq!(
            finding.remedy,
            "kubectl patch asyncqueue jobs -n ns --type=merge \
             --patch='{\"spec\":{\"suspend\":false}}'"
        );
    }
}
