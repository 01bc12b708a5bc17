//! Keeps of each worker's pod whether it runs, and if not, why.

use k8s_openapi::{
    api::core::v1::{
        ContainerState, ContainerStateTerminated, ContainerStatus, Pod, PodCondition, PodStatus,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
    jiff::Timestamp,
};
use kube::Resource;
use serde::{Deserialize, Serialize};

use super::{
    WORKER_CONTAINER,
    cause::{self, Cause, Exit},
    revision::Revision,
};
use crate::{
    cache::{
        object::{CachedMeta, CachedObject},
        watch::Cacheable,
    },
    labels::{POD_TEMPLATE_HASH_LABEL, QUEUE_LABEL, REVISION_ANNOTATION},
};

/// Number of restarts from which a container counts as failing repeatedly. Kubernetes restarts a
/// container without a delay for the first time.
const MIN_RESTARTS: i32 = 2;

/// Reasons for which a container waits whose image cannot be pulled.
/// <https://github.com/kubernetes/kubernetes>, `pkg/kubelet/images/types.go`.
const IMAGE_PULL_REASONS: [&str; 6] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "ImageInspectError",
    "RegistryUnavailable",
];

/// A worker's pod.
pub(crate) type WorkerPod = CachedObject<PartialPod, PodState>;

/// The parts of a pod that are read.
#[derive(Clone, Debug, Default, PartialEq, Resource, Deserialize, Serialize)]
#[resource(inherit = "Pod")]
pub(crate) struct PartialPod {
    pub(crate) metadata: ObjectMeta,
    #[serde(default)]
    pub(crate) status: PodStatus,
}

/// State of a worker's pod.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum PodState {
    /// It runs and is ready, it has ended or is being deleted, or it is not a worker's pod.
    Ignored,
    /// It is not ready.
    NotReady(Box<PodDetails>),
}

/// A pod that is not ready.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PodDetails {
    pub(crate) queue: Box<str>,
    /// The template from which it was created.
    pub(crate) revision: Option<Revision>,
    pub(crate) created: Timestamp,
    pub(crate) progress: Progress,
}

/// Progress of a pod that is not ready.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Progress {
    /// It is starting, as far as its status says.
    Starting,
    /// Its containers run. Only events say why they are not ready.
    Running { since: Timestamp },
    /// A container ended repeatedly.
    Ended {
        cause: Cause,
        /// Whether it was stopped rather than failed. Events say what stopped it.
        was_stopped: bool,
        /// Time since which it runs again, if it does.
        running_since: Option<Timestamp>,
    },
    /// It does not start without a change.
    Stuck(Cause),
}

impl Cacheable for WorkerPod {
    type Object = PartialPod;

    fn from_object(PartialPod { metadata, status }: PartialPod) -> Self {
        Self::new(CachedMeta::new(&metadata), PodState::of(&metadata, &status))
    }

    /// Pods in the state `Ignored`, of which there are thousands, are not kept.
    fn is_kept(&self) -> bool {
        self.data != PodState::Ignored
    }
}

// === impl Progress ===

impl Progress {
    /// Returns the reason for a condition, if the pod's status gives one.
    pub(crate) fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Starting | Self::Running { .. } => None,
            Self::Ended { cause, .. } | Self::Stuck(cause) => Some(cause.reason),
        }
    }

    /// Returns whether a pod has made no progress, so that the cause from its events still holds.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
            && self.reason() == other.reason()
    }
}

// === impl PodState ===

impl PodState {
    fn of(metadata: &ObjectMeta, status: &PodStatus) -> Self {
        let is_over = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        if is_over || metadata.deletion_timestamp.is_some() || is_ready(status) {
            return Self::Ignored;
        }
        let (Some(queue), Some(created)) = (queue(metadata), &metadata.creation_timestamp) else {
            return Self::Ignored;
        };
        let annotations = metadata.annotations.as_ref();
        let revision = annotations.and_then(|annotations| annotations.get(REVISION_ANNOTATION));
        Self::NotReady(Box::new(PodDetails {
            queue: queue.into(),
            revision: revision.and_then(|revision| revision.parse().ok()),
            created: created.0,
            progress: progress(status),
        }))
    }
}

/// Returns the queue whose worker a pod is. Any user may label a pod: it counts only if a
/// `ReplicaSet` of the queue's Deployment controls it.
fn queue(metadata: &ObjectMeta) -> Option<&str> {
    let labels = metadata.labels.as_ref()?;
    let (queue, hash) = (labels.get(QUEUE_LABEL)?, labels.get(POD_TEMPLATE_HASH_LABEL)?);
    let owner =
        metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))?;
    let deployment = queue.parse::<asyncqueue::QueueName>().ok()?.worker_deployment();
    let is_owned = owner.kind == "ReplicaSet" && owner.name == format!("{deployment}-{hash}");
    is_owned.then_some(queue)
}

/// Returns the progress of a pod, from what its status says of scheduling and containers.
fn progress(status: &PodStatus) -> Progress {
    let unscheduled =
        conditions(status).find(|found| found.type_ == "PodScheduled" && found.status == "False");
    if let Some(unscheduled) = unscheduled {
        return Progress::Stuck(cause::unschedulable(
            unscheduled.message.as_deref().unwrap_or_default(),
        ));
    }
    let containers =
        status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    let mut pod = Progress::Starting;
    for container in containers {
        match of_container(container) {
            Some(Progress::Starting) | None => {}
            Some(running @ Progress::Running { .. }) => pod = running,
            Some(worse) => return worse,
        }
    }
    pod
}

/// Returns the progress of a container; `None` if it is ready or has completed.
fn of_container(status: &ContainerStatus) -> Option<Progress> {
    let ContainerState { running, terminated, waiting } = status.state.as_ref()?;
    let last = status.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    let is_crash_looping = status.restart_count >= MIN_RESTARTS;
    if let Some(waiting) = waiting {
        let message = waiting.message.as_deref().unwrap_or_default();
        return Some(match waiting.reason.as_deref().unwrap_or_default() {
            reason if IMAGE_PULL_REASONS.contains(&reason) => {
                Progress::Stuck(cause::image_pull(&status.image, message))
            }
            "CreateContainerConfigError" => Progress::Stuck(cause::container_config(message)),
            "CreateContainerError" | "RunContainerError" => {
                Progress::Stuck(cause::container_start(message))
            }
            "CrashLoopBackOff" => last.map_or(Progress::Starting, |last| ended(status, last, None)),
            _ => Progress::Starting,
        });
    }
    if let Some(now) = terminated {
        let is_done = now.exit_code == 0 && !is_crash_looping;
        return (!is_done)
            .then(|| if is_crash_looping { ended(status, now, None) } else { Progress::Starting });
    }
    let since = running.as_ref().filter(|_| !status.ready)?.started_at.as_ref()?.0;
    let before = last.filter(|_| is_crash_looping);
    Some(before.map_or(Progress::Running { since }, |before| ended(status, before, Some(since))))
}

/// Returns the progress of a container that ended and is restarted.
fn ended(
    container: &ContainerStatus,
    how: &ContainerStateTerminated,
    running_since: Option<Timestamp>,
) -> Progress {
    let exit = Exit {
        code: how.exit_code,
        reason: how.reason.clone().unwrap_or_default(),
        message: how.message.clone().unwrap_or_default(),
    };
    let other = Some(container.name.as_str()).filter(|name| *name != WORKER_CONTAINER);
    Progress::Ended {
        cause: cause::container_exit(other, &exit),
        was_stopped: exit.was_stopped(),
        running_since,
    }
}

fn is_ready(status: &PodStatus) -> bool {
    conditions(status).any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn conditions(status: &PodStatus) -> impl Iterator<Item = &PodCondition> {
    status.conditions.iter().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::crd::conditions::reason;

    /// Returns a pod of the queue `q` with this status.
    fn pod(status: &Value) -> Value {
        json!({
            "metadata": {
                "name": "q-worker-5d4-x",
                "namespace": "ns",
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": { "asyncqueue.io/queue": "q", "pod-template-hash": "5d4" },
                "annotations": { "asyncqueue.io/revision": "00000000000000ff" },
                "ownerReferences": [{
                    "apiVersion": "apps/v1",
                    "kind": "ReplicaSet",
                    "name": "q-worker-5d4",
                    "uid": "1",
                    "controller": true,
                }],
            },
            "status": status,
        })
    }

    fn state(pod: Value) -> PodState {
        let PartialPod { metadata, status } = serde_json::from_value(pod).unwrap();
        PodState::of(&metadata, &status)
    }

    fn progress_of(container: Value) -> Progress {
        let mut container = container;
        for (name, value) in
            [("name", json!("worker")), ("image", json!("i:1")), ("imageID", json!(""))]
        {
            container.as_object_mut().unwrap().entry(name).or_insert(value);
        }
        let fields = container.as_object_mut().unwrap();
        fields.entry("ready").or_insert(json!(false));
        fields.entry("restartCount").or_insert(json!(0));
        match state(pod(&json!({ "phase": "Pending", "containerStatuses": [container] }))) {
            PodState::NotReady(details) => details.progress,
            PodState::Ignored => panic!("it is not ready"),
        }
    }

    #[test]
    fn pods_that_are_ready_over_or_foreign_are_ignored() {
        let new = pod(&json!({ "phase": "Pending" }));
        let PodState::NotReady(details) = state(new.clone()) else { panic!("it is not ready") };
        assert_eq!((&*details.queue, &details.progress), ("q", &Progress::Starting));
        assert_eq!(details.revision, "00000000000000ff".parse().ok());

        let ready =
            json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] });
        assert_eq!(state(pod(&ready)), PodState::Ignored);
        assert_eq!(state(pod(&json!({ "phase": "Failed" }))), PodState::Ignored);
        let changes: [fn(&mut Value); 6] = [
            |meta| meta["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"),
            |meta| meta["ownerReferences"] = json!([]),
            |meta| meta["ownerReferences"][0]["kind"] = json!("Job"),
            |meta| meta["ownerReferences"][0]["name"] = json!("other-worker-5d4"),
            |meta| meta["ownerReferences"][0]["controller"] = json!(false),
            |meta| meta["labels"]["asyncqueue.io/queue"] = json!("other"),
        ];
        for change in changes {
            let mut other = new.clone();
            change(&mut other["metadata"]);
            assert_eq!(state(other.clone()), PodState::Ignored, "{other}");
        }
    }

    #[test]
    fn the_waiting_reason_of_a_container_is_the_cause() {
        for (details, expected) in [
            ("ContainerCreating", None),
            ("PodInitializing", None),
            ("ErrImagePull", Some(reason::IMAGE_PULL_FAILED)),
            ("ImagePullBackOff", Some(reason::IMAGE_PULL_FAILED)),
            ("InvalidImageName", Some(reason::IMAGE_PULL_FAILED)),
            ("CreateContainerConfigError", Some(reason::CONTAINER_CONFIG_ERROR)),
            ("RunContainerError", Some(reason::CONTAINER_START_FAILED)),
        ] {
            let progress = progress_of(json!({ "state": { "waiting": { "reason": details } } }));
            assert_eq!(progress.reason(), expected, "{details}");
        }
    }

    #[test]
    fn a_container_that_ends_once_is_starting_and_then_failing() {
        let end = json!({ "exitCode": 2, "reason": "Error", "message": "asyncqueue-worker: no" });
        let once = json!({ "state": { "terminated": end } });
        assert_eq!(progress_of(once), Progress::Starting);
        let looping = json!({ "restartCount": 2, "state": { "terminated": end } });
        assert_eq!(progress_of(looping).reason(), Some(reason::WORKER_EXITED));
        let details = json!({
            "restartCount": 2,
            "state": { "waiting": { "reason": "CrashLoopBackOff", "message": "back-off 40s" } },
            "lastState": { "terminated": end },
        });
        let Progress::Ended { cause, was_stopped: false, running_since: None } =
            progress_of(details)
        else {
            panic!("it ended");
        };
        assert!(cause.message.contains("asyncqueue-worker: no"), "{cause:?}");
        // During the second in which it runs again, the cause stays.
        let check_after = json!({
            "restartCount": 3,
            "state": { "running": { "startedAt": "2026-01-01T00:00:09Z" } },
            "lastState": { "terminated": end },
        });
        assert!(matches!(progress_of(check_after), Progress::Ended { running_since: Some(_), .. }));
    }

    #[test]
    fn a_container_that_runs_is_not_ready_yet() {
        let running = json!({ "state": { "running": { "startedAt": "2026-01-01T00:00:09Z" } } });
        assert!(matches!(progress_of(running), Progress::Running { .. }));
    }

    #[test]
    fn an_unschedulable_pod_names_the_cause() {
        let unscheduled = json!({
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": "0/1 nodes are available: 1 Insufficient cpu.",
        });
        let PodState::NotReady(details) = state(pod(&json!({ "conditions": [unscheduled] })))
        else {
            panic!("it is not ready");
        };
        assert_eq!(details.progress.reason(), Some(reason::UNSCHEDULABLE));
    }

    #[test]
    fn a_sidecar_that_fails_is_named() {
        let sidecar = json!({
            "name": "proxy", "restartCount": 2,
            "state": { "terminated": { "exitCode": 1, "reason": "Error", "message": "token" } },
        });
        let Progress::Ended { cause, .. } = progress_of(sidecar) else { panic!("it ended") };
        assert!(
            cause.message.contains("Container proxy") && !cause.message.contains("token"),
            "{cause:?}"
        );
    }
}
