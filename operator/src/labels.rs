//! The names of labels, annotations and finalizers, and the names by which the operator is known to
//! the API server.

/// The operator's name: the field manager of what it applies, the reporter of its events, the value
/// of the label `app.kubernetes.io/managed-by`, its Lease, and its connections to NATS.
pub(crate) const OPERATOR_NAME: &str = "asyncqueue-operator";

/// Field manager of the status.
pub(crate) const STATUS_FIELD_MANAGER: &str = "asyncqueue-operator/status";

/// The finalizer that keeps an `AsyncQueue` until its stream is deleted or released.
pub(crate) const FINALIZER: &str = "asyncqueue.io/stream";

/// A Deployment whose selector also matches another one's pods would take them over, so that of a
/// queue has this label.
pub(crate) use asyncqueue::QUEUE_LABEL;

/// The labels that Kubernetes recommends:
/// <https://kubernetes.io/docs/concepts/overview/working-with-objects/common-labels/>.
pub(crate) const COMPONENT_LABEL: &str = "app.kubernetes.io/component";
pub(crate) const INSTANCE_LABEL: &str = "app.kubernetes.io/instance";
pub(crate) const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
pub(crate) const NAME_LABEL: &str = "app.kubernetes.io/name";
pub(crate) const PART_OF_LABEL: &str = "app.kubernetes.io/part-of";

/// The labels that the operator sets on a queue's pods and other objects. Selectors of the operator
/// and of users rely on them, so a user cannot set them.
pub(crate) const RESERVED_LABELS: [&str; 6] =
    [QUEUE_LABEL, COMPONENT_LABEL, INSTANCE_LABEL, MANAGED_BY_LABEL, NAME_LABEL, PART_OF_LABEL];

/// The annotation of the Lease with the address of the leader's HTTP endpoints. Standbys redirect
/// to it.
pub(crate) const ADDRESS_ANNOTATION: &str = "asyncqueue.io/address";

/// The annotation of a pod template, and so of each pod, with the revision of the template.
pub(crate) const REVISION_ANNOTATION: &str = "asyncqueue.io/revision";

/// The label with the hash of a `ReplicaSet`'s template. The name of the `ReplicaSet` ends with it
/// too.
pub(crate) const POD_TEMPLATE_HASH_LABEL: &str = "pod-template-hash";

/// The annotation that allows taking over a stream that no existing `AsyncQueue` owns.
pub(crate) const ADOPT_ANNOTATION: &str = "asyncqueue.io/adopt";

/// The annotation that names other `AsyncQueues`, as `namespace/name`. They may take over the
/// streams of this one after it was deleted and its streams were kept.
pub(crate) const RELEASE_TO_ANNOTATION: &str = "asyncqueue.io/release-to";

/// The annotation of the default queue with the settings that were applied last.
pub(crate) const DEFAULT_QUEUE_SETTINGS_ANNOTATION: &str = "asyncqueue.io/default-queue-settings";

/// The label of a function's pods.
pub(crate) const FUNCTION_LABEL: &str = "faas_function";

/// Prefixes of all annotations that configure a function.
pub(crate) const FUNCTION_ANNOTATION_PREFIXES: [&str; 2] = ["com.openfaas.", "asyncqueue.io/"];

/// The annotation that names a function's queue.
pub(crate) const QUEUE_ANNOTATION: &str = "com.openfaas.queue";
