//! Finds annotations of functions that do not take effect, and reports them as events.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use asyncqueue::{
    FunctionName, QueueName, directory::Directory, function_namespaces::NamespaceRefused,
    lanes::Fairness,
};
use kube::ResourceExt;
use tracing::warn;

use super::{FunctionIndex, admission::Admission};
use crate::{crd::AsyncQueue, events::Events};

/// How long an issue must exist before it is reported: a function and its queue may be created by
/// one `kubectl apply`.
pub(super) const REPORT_DELAY: Duration = Duration::from_secs(5);

/// Reason of the event on a function that names a queue that does not exist, or is on another
/// NATS.
const QUEUE_NOT_FOUND: &str = "QueueNotFound";

/// Reason of the event on a function that names a queue that does not admit it.
const QUEUE_REFUSED: &str = "QueueRefused";

/// Reason of the event on a function whose namespace is never called.
const NAMESPACE_REFUSED: &str = "NamespaceRefused";

/// Reason of the event on a function with an invalid annotation.
const ANNOTATION_INVALID: &str = "AnnotationInvalid";

/// Reason of the event on a function whose limits have no effect.
const LIMITS_IGNORED: &str = "LimitsIgnored";

/// Reason of the event on a headless Service whose target port is a name without a number.
const PORT_UNKNOWN: &str = "PortUnknown";

/// An annotation of a function that does not take effect.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct FunctionIssue {
    pub(super) function: FunctionName,
    pub(super) kind: IssueKind,
}

/// Reason why an annotation does not take effect.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum IssueKind {
    /// There is no `AsyncQueue` of this name: calls go to the default queue.
    QueueNotFound(String),
    /// For this reason, functions of the namespace are never called, and the function is not in the
    /// directory.
    NamespaceRefused(NamespaceRefused),
    /// This `AsyncQueue`, as `namespace/name`, does not take calls of the function's namespace:
    /// calls go to the default queue.
    NotAdmitted(String),
    /// This queue is on another NATS than the gateway's: calls go to the default queue.
    QueueOnOtherNats(String),
    /// This setting is not valid: that of the queue applies.
    InvalidAnnotation(String),
    /// Its queue has no lanes, so that its limits have no effect.
    LimitsNeedLanes(QueueName),
    /// Its Service is headless and names its target port, whose number is not known here: the
    /// Service's port is called.
    NamedTargetPort(String),
}

/// Reports each issue once, as an event on the function.
pub(super) struct IssueReporter {
    events: Events,
    /// The queue to which calls go instead, as events name it.
    default_queue: String,
    issues: PendingIssues,
}

/// The issues that exist.
#[derive(Debug, Default)]
struct PendingIssues(HashMap<FunctionIssue, IssueState>);

#[derive(Debug)]
struct IssueState {
    since: Instant,
    is_reported: bool,
}

/// Returns the issues of all functions. A queue that is not ready yet is not an issue.
pub(super) fn find_issues<'a>(
    functions: &FunctionIndex,
    queues: impl IntoIterator<Item = &'a AsyncQueue>,
    directory: &Directory,
    default_queue: Option<&QueueName>,
    admission: &Admission<'_>,
) -> Vec<FunctionIssue> {
    let mut on_own_nats: HashMap<String, bool> = HashMap::new();
    for queue in queues {
        *on_own_nats.entry(queue.name_any()).or_default() |= queue.spec.nats.url.is_none();
    }
    let issues = functions.iter().flat_map(|(name, function)| {
        let queue = function.queue.iter().filter_map(|queue| match on_own_nats.get(queue) {
            Some(true) => admission.refused_by(name, queue).map(IssueKind::NotAdmitted),
            Some(false) => Some(IssueKind::QueueOnOtherNats(queue.clone())),
            None => Some(IssueKind::QueueNotFound(queue.clone())),
        });
        let invalid = function.invalid.iter().cloned().map(IssueKind::InvalidAnnotation);
        let without_lanes = without_lanes(name, directory, default_queue);
        let limits = without_lanes.filter(|_| !function.limits.is_empty());
        let limits = limits.map(IssueKind::LimitsNeedLanes);
        let port = function.named_target_port.clone().map(IssueKind::NamedTargetPort);
        let namespace = admission.check_namespace(name).err().map(IssueKind::NamespaceRefused);
        let kinds: Vec<IssueKind> = match namespace {
            Some(kind) => vec![kind],
            None => queue.chain(invalid).chain(limits).chain(port).collect(),
        };
        kinds.into_iter().map(|kind| FunctionIssue { function: name.clone(), kind })
    });
    issues.collect()
}

/// Returns the queue of a function, if the directory has the queue and it has no lanes.
fn without_lanes(
    function: &FunctionName,
    directory: &Directory,
    default_queue: Option<&QueueName>,
) -> Option<QueueName> {
    let named = directory.functions.get(function).and_then(|entry| entry.queue.as_ref());
    let named = named.filter(|queue| directory.queues.contains_key(queue));
    let queue = named.or(default_queue)?;
    let entry = directory.queues.get(queue)?;
    (entry.fairness != Some(Fairness::Function)).then(|| queue.clone())
}

// === impl IssueKind ===

impl IssueKind {
    /// Returns the reason and the text of the event.
    fn event(&self, default_queue: &str) -> (&'static str, String) {
        match self {
            Self::QueueNotFound(queue) => (
                QUEUE_NOT_FOUND,
                format!(
                    "com.openfaas.queue names `{queue}`, and there is no AsyncQueue of that name: \
                     calls go to {default_queue}"
                ),
            ),
            Self::QueueOnOtherNats(queue) => (
                QUEUE_NOT_FOUND,
                format!(
                    "com.openfaas.queue names `{queue}`, and that AsyncQueue is on another NATS \
                     than the gateway (spec.nats.url): calls go to {default_queue}"
                ),
            ),
            Self::NotAdmitted(queue) => (
                QUEUE_REFUSED,
                format!(
                    "The AsyncQueue {queue} does not take calls of functions in this namespace: \
                     they go to {default_queue}. Add the namespace to its \
                     spec.functions.namespaces."
                ),
            ),
            Self::NamespaceRefused(refused) => (NAMESPACE_REFUSED, refused.to_string()),
            Self::InvalidAnnotation(annotation) => (
                ANNOTATION_INVALID,
                format!("Invalid annotation {annotation}: the setting of the queue applies"),
            ),
            Self::LimitsNeedLanes(queue) => (
                LIMITS_IGNORED,
                format!(
                    "The annotations asyncqueue.io/max-inflight, rate and weight have no effect in \
                     the queue {queue}: set its spec.fairness to Function, or remove them."
                ),
            ),
            Self::NamedTargetPort(name) => (
                PORT_UNKNOWN,
                format!(
                    "The Service of this function is headless and its targetPort `{name}` is a \
                     name, whose number only its pods know: calls go to its port. Give targetPort \
                     a number, or the Service a cluster IP."
                ),
            ),
        }
    }
}

// === impl IssueReporter ===

impl IssueReporter {
    pub(super) fn new(events: Events, default_queue: Option<&QueueName>) -> Self {
        let default_queue = default_queue.map_or("the gateway's default queue", QueueName::as_str);
        Self { events, default_queue: default_queue.to_owned(), issues: PendingIssues::default() }
    }

    /// Reports the issues that are due, given all that exist.
    pub(super) async fn report(&mut self, functions: &FunctionIndex, issues: Vec<FunctionIssue>) {
        for FunctionIssue { function, kind } in self.issues.due(issues, Instant::now()) {
            let Some(found) = functions.get(&function) else { continue };
            let (reason, note) = kind.event(&self.default_queue);
            warn!(%function, "{note}");
            self.events.warning(&found.object, reason, note).await;
        }
    }

    /// Returns whether issues remain to be reported if nothing changes.
    pub(super) fn has_pending(&self) -> bool {
        self.issues.has_pending()
    }
}

// === impl PendingIssues ===

impl PendingIssues {
    /// Returns the issues to report now, given all that exist.
    fn due(&mut self, issues: Vec<FunctionIssue>, now: Instant) -> Vec<FunctionIssue> {
        let issues: HashSet<FunctionIssue> = issues.into_iter().collect();
        self.0.retain(|known, _| issues.contains(known));
        let mut due = Vec::new();
        for issue in issues {
            let state = IssueState { since: now, is_reported: false };
            let state = self.0.entry(issue.clone()).or_insert(state);
            if !state.is_reported && now.duration_since(state.since) >= REPORT_DELAY {
                state.is_reported = true;
                due.push(issue);
            }
        }
        due.sort();
        due
    }

    fn has_pending(&self) -> bool {
        self.0.values().any(|state| !state.is_reported)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issue_is_reported_once_after_a_delay() {
        let issue = || FunctionIssue {
            function: FunctionName::new("f", "ns").unwrap(),
            kind: IssueKind::QueueNotFound("q".to_owned()),
        };
        let (mut issues, start) = (PendingIssues::default(), Instant::now());
        assert_eq!(issues.due(vec![issue()], start), []);
        assert!(issues.has_pending());
        assert_eq!(issues.due(vec![issue()], start + REPORT_DELAY), [issue()]);
        assert!(!issues.has_pending());
        assert_eq!(issues.due(vec![issue()], start + 2 * REPORT_DELAY), []);
        // An issue that was repaired and comes back is reported again.
        assert_eq!(issues.due(vec![], start + 3 * REPORT_DELAY), []);
        assert_eq!(issues.due(vec![issue()], start + 4 * REPORT_DELAY), []);
        assert_eq!(issues.due(vec![issue()], start + 5 * REPORT_DELAY), [issue()]);
    }
}
