//! The conditions of an `AsyncQueue`: their types, their reasons, and when they change.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::Condition;

/// Types of conditions.
pub(crate) mod condition_type {
    /// The stream stores calls.
    pub(crate) const STREAM_READY: &str = "StreamReady";
    /// Workers can take calls.
    pub(crate) const CONSUMER_READY: &str = "ConsumerReady";
    /// At least one worker of the wanted revision runs, or none is wanted.
    pub(crate) const WORKERS_READY: &str = "WorkersReady";
    /// A rollout or a change of the number of workers is in progress.
    pub(crate) const PROGRESSING: &str = "Progressing";
    /// The same for tools that follow kstatus. Absent if it does not hold.
    pub(crate) const RECONCILING: &str = "Reconciling";
    /// The queue can't reach the state in its spec without a change. Absent if it does not hold.
    pub(crate) const STALLED: &str = "Stalled";
    /// No call is delivered.
    pub(crate) const SUSPENDED: &str = "Suspended";
    /// No sequence of the streams is used twice, even if they are deleted and recreated.
    pub(crate) const UNIQUE_SEQUENCES: &str = "UniqueSequences";
    /// Workers can't store what ends calls.
    pub(crate) const CALLS_BLOCKED: &str = "CallsBlocked";
    /// Functions that the queue does not admit name it. Absent if there are no such functions.
    pub(crate) const FUNCTIONS_REFUSED: &str = "FunctionsRefused";
    /// Workers do not have the settings of the spec yet. Absent if they do.
    pub(crate) const SETTINGS_PENDING: &str = "SettingsPending";
    /// Functions share a lane, so that they can delay each other. Absent if none do.
    pub(crate) const LANES_SHARED: &str = "LanesShared";
    /// The fairness of the queue is being changed: no call is delivered until then. `False` says
    /// what the change has cost. Absent if there is nothing to say.
    pub(crate) const MIGRATING: &str = "Migrating";
    /// Calls are accepted, and at least one worker runs or none is wanted.
    pub(crate) const READY: &str = "Ready";
}

/// Reasons: fixed values on which alerts and scripts may rely.
pub(crate) mod reason {
    /// The state is as the spec says.
    pub(crate) const RECONCILED: &str = "Reconciled";
    /// The state is changing to what the spec says.
    pub(crate) const PROGRESSING: &str = "Progressing";
    /// An earlier version, or another program, created a stream: its sequences begin at 1.
    pub(crate) const SEQUENCES_BEGIN_AT_1: &str = "SequencesBeginAt1";
    /// `spec.replicas` is 0.
    pub(crate) const SCALED_TO_ZERO: &str = "ScaledToZero";
    /// `spec.suspend` is true.
    pub(crate) const SUSPENDED: &str = "Suspended";
    /// `spec.suspend` is false.
    pub(crate) const ACTIVE: &str = "Active";
    /// The fairness of the queue is being changed.
    pub(crate) const MIGRATING: &str = "Migrating";
    /// The attempts of calls were not recorded when the fairness of the queue was changed.
    pub(crate) const ATTEMPTS_NOT_RECORDED: &str = "AttemptsNotRecorded";
    /// The stream, the Deployment or the name belongs to something else.
    pub(crate) const RESOURCE_CONFLICT: &str = "ResourceConflict";
    /// Another stream has the subject, or one that overlaps.
    pub(crate) const SUBJECT_OVERLAP: &str = "SubjectOverlap";
    /// The stream differs from the spec, and `JetStream` can't change it.
    pub(crate) const IMMUTABLE_FIELD_CHANGED: &str = "ImmutableFieldChanged";
    /// The spec is not usable, although the API server accepted it.
    pub(crate) const INVALID_SPEC: &str = "InvalidSpec";
    /// NATS does not answer.
    pub(crate) const NATS_UNAVAILABLE: &str = "NatsUnavailable";
    /// NATS refuses a request.
    pub(crate) const NATS_REFUSED: &str = "NatsRefused";
    /// The API server refuses the Deployment.
    pub(crate) const KUBERNETES_REFUSED: &str = "KubernetesRefused";
    /// Not checked: something that it depends on is missing.
    pub(crate) const BLOCKED: &str = "Blocked";
    /// The operator's clock is before 2025, so that no stream is created.
    pub(crate) const CLOCK_WRONG: &str = "ClockWrong";
    /// Results, dead letters or other records of calls, such as tombstones, can't be stored.
    pub(crate) const RECORDS_NOT_STORED: &str = "RecordsNotStored";
    /// Functions are in namespaces that the queue does not admit.
    pub(crate) const NAMESPACE_NOT_ADMITTED: &str = "NamespaceNotAdmitted";
    /// The directory can't be written.
    pub(crate) const DIRECTORY_NOT_WRITTEN: &str = "DirectoryNotWritten";
    /// The queue has as many lanes as the operator's `max_lanes_per_queue` allows.
    pub(crate) const MAX_LANES_PER_QUEUE: &str = "MaxLanesPerQueue";
    /// All queues together have as many lanes as `max_lanes` allows.
    pub(crate) const MAX_LANES: &str = "MaxLanes";
    /// Queues with several replicas have as many lanes as `max_lanes_replicated` allows.
    pub(crate) const MAX_LANES_REPLICATED: &str = "MaxLanesReplicated";
    /// There is room for lanes again, and calls are in those that functions share.
    pub(crate) const LANES_IN_USE: &str = "LanesInUse";
    /// Workers don't start in time, and no cause is known.
    pub(crate) const WORKERS_UNAVAILABLE: &str = "WorkersUnavailable";
    /// The image of the workers cannot be pulled.
    pub(crate) const IMAGE_PULL_FAILED: &str = "ImagePullFailed";
    /// A Secret, a `ConfigMap` or a key that a worker's container needs is missing.
    pub(crate) const CONTAINER_CONFIG_ERROR: &str = "ContainerConfigError";
    /// The node cannot start a worker's container.
    pub(crate) const CONTAINER_START_FAILED: &str = "ContainerStartFailed";
    /// A volume of a worker cannot be mounted.
    pub(crate) const VOLUME_MOUNT_FAILED: &str = "VolumeMountFailed";
    /// No node accepts a worker.
    pub(crate) const UNSCHEDULABLE: &str = "Unschedulable";
    /// A worker exits repeatedly.
    pub(crate) const WORKER_EXITED: &str = "WorkerExited";
    /// A worker uses more memory than its limit.
    pub(crate) const OUT_OF_MEMORY: &str = "OutOfMemory";
    /// A worker runs, and its probes fail.
    pub(crate) const PROBE_FAILED: &str = "ProbeFailed";
    /// The API server refuses the workers' pods.
    pub(crate) const PODS_REFUSED: &str = "PodsRefused";

    /// All reasons. `Ready` may have all of them except `Active`, `SequencesBeginAt1`,
    /// `NamespaceNotAdmitted`, `DirectoryNotWritten`, `RecordsNotStored`, `AttemptsNotRecorded` and
    /// those of lanes.
    pub(crate) const ALL: [&str; 34] = [
        MAX_LANES_PER_QUEUE,
        MAX_LANES,
        MAX_LANES_REPLICATED,
        LANES_IN_USE,
        MIGRATING,
        ATTEMPTS_NOT_RECORDED,
        DIRECTORY_NOT_WRITTEN,
        NAMESPACE_NOT_ADMITTED,
        ACTIVE,
        SEQUENCES_BEGIN_AT_1,
        RECORDS_NOT_STORED,
        RECONCILED,
        PROGRESSING,
        SCALED_TO_ZERO,
        SUSPENDED,
        RESOURCE_CONFLICT,
        SUBJECT_OVERLAP,
        IMMUTABLE_FIELD_CHANGED,
        INVALID_SPEC,
        NATS_UNAVAILABLE,
        NATS_REFUSED,
        KUBERNETES_REFUSED,
        BLOCKED,
        CLOCK_WRONG,
        WORKERS_UNAVAILABLE,
        IMAGE_PULL_FAILED,
        CONTAINER_CONFIG_ERROR,
        CONTAINER_START_FAILED,
        VOLUME_MOUNT_FAILED,
        UNSCHEDULABLE,
        WORKER_EXITED,
        OUT_OF_MEMORY,
        PROBE_FAILED,
        PODS_REFUSED,
    ];
}

/// The status of a condition, with its reason and message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConditionValue {
    pub(crate) status: ConditionStatus,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// The status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConditionStatus {
    True,
    False,
    Unknown,
}

// === impl ConditionValue ===

impl ConditionValue {
    pub(crate) fn true_(reason: &'static str, message: impl Into<String>) -> Self {
        Self { status: ConditionStatus::True, reason, message: message.into() }
    }

    pub(crate) fn false_(reason: &'static str, message: impl Into<String>) -> Self {
        Self { status: ConditionStatus::False, reason, message: message.into() }
    }

    pub(crate) fn unknown(reason: &'static str, message: impl Into<String>) -> Self {
        Self { status: ConditionStatus::Unknown, reason, message: message.into() }
    }

    /// Converts this verdict to a condition, whose transition time is kept while its status stays
    /// the same.
    pub(crate) fn into_condition(
        self,
        type_: &'static str,
        generation: Option<i64>,
        before: &[Condition],
        now: &Time,
    ) -> Condition {
        let status = self.status.as_str();
        let since = find(before, type_).filter(|old| &*old.status == status);
        Condition {
            type_: type_.into(),
            status: status.into(),
            reason: self.reason.into(),
            message: self.message.into(),
            observed_generation: generation,
            last_transition_time: since
                .map_or_else(|| now.clone(), |old| old.last_transition_time.clone()),
        }
    }
}

// === impl ConditionStatus ===

impl ConditionStatus {
    pub(crate) const ALL: [Self; 3] = [Self::True, Self::False, Self::Unknown];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// Returns the condition of a type.
pub(crate) fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| &*condition.type_ == type_)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).unwrap())
    }

    #[test]
    fn a_condition_keeps_its_time_until_its_status_changes() {
        let no = || ConditionValue::false_(reason::NATS_UNAVAILABLE, "away");
        let first = no().into_condition(condition_type::READY, Some(1), &[], &at(1));
        assert_eq!(first.last_transition_time, at(1));
        let same = no().into_condition(
            condition_type::READY,
            Some(2),
            std::slice::from_ref(&first),
            &at(2),
        );
        assert_eq!((same.last_transition_time, same.observed_generation), (at(1), Some(2)));
        let true_ = ConditionValue::true_(reason::RECONCILED, "").into_condition(
            condition_type::READY,
            Some(2),
            &[first],
            &at(3),
        );
        assert_eq!(true_.last_transition_time, at(3));
    }
}
