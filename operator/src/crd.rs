//! The `AsyncQueue` resource. Its doc comments are the manual that `kubectl explain asyncqueue` prints.
//!
//! What can be wrong with a field is refused by the API server, by schema and CEL, with a message that says
//! the rule; [`crate::controller::validate`] is left with what only shows beside other objects. Defaults
//! are the schema's, so that `kubectl get -o yaml` shows what counts.
//!
//! Each field has an effect. Each string has a longest length, without which CEL rules on it are refused as too
//! costly; numbers are signed, since the schema knows no others.

use std::collections::BTreeMap;

use asyncqueue::GoDuration;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::{defaults as default, rules as rule};

mod definition;

mod defaults;
mod rules;
mod schemas;
mod status;

pub use definition::yaml;
pub use status::AsyncQueueStatus;

/// What a queue shall be. Every field has a default: {} is a queue with one worker that runs one call at a time, for at
/// most a minute. Example: {maxInflight: 5, timeout: 15m, replicas: 2}
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "asyncqueue.io",
    version = "v1alpha1",
    kind = "AsyncQueue",
    plural = "asyncqueues",
    shortname = "aq",
    category = "openfaas",
    namespaced,
    derive = "PartialEq",
    status = "AsyncQueueStatus",
    doc = "AsyncQueue is a named queue for asynchronous function calls, with workers, a concurrency and a time \
           limit of its own, so that slow calls don't hold up fast ones. Send a function's calls to it with the \
           annotation com.openfaas.queue: NAME on the function, where NAME is this object's name.\n\n\
           It is a stream and a durable consumer on NATS JetStream and a Deployment NAME-worker in this \
           namespace. Total concurrency is spec.maxInflight times spec.replicas.\n\n\
           The name has 1 to 40 of a-z, 0-9 and -, and is unique in the cluster: calls find their queue by it.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#,
        description = "Whether calls are accepted and run"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#,
        description = "Why"
    ),
    printcolumn(
        name = "Pending",
        type_ = "integer",
        json_path = ".status.pending",
        description = "Calls that are stored and do not run now"
    ),
    printcolumn(
        name = "Inflight",
        type_ = "integer",
        json_path = ".status.inflight",
        description = "Calls that run now"
    ),
    printcolumn(
        name = "Workers",
        type_ = "integer",
        json_path = ".status.readyReplicas",
        description = "Workers that are ready"
    ),
    printcolumn(
        name = "Max-Inflight",
        type_ = "integer",
        json_path = ".spec.maxInflight",
        description = "Calls that one worker runs at once"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Stream", type_ = "string", json_path = ".status.stream", priority = 1),
    printcolumn(name = "Functions", type_ = "integer", json_path = ".status.functions", priority = 1),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        priority = 1
    ),
    validation = rule::queue_name(),
    validation = rule::reserved_name(),
    validation = rule::stream_is_immutable(),
    validation = rule::subject_is_immutable(),
    validation = rule::durable_is_immutable()
)]
#[cfg_attr(test, kube(cel))]
#[serde(rename_all = "camelCase")]
pub struct AsyncQueueSpec {
    /// How many calls one worker runs at once, 1 to 10000. Default: 1.
    ///
    /// Total concurrency of the queue is maxInflight times replicas. A call that waits for its retry takes no
    /// place. Changing it restarts the workers and leaves the stored calls alone. Example: 5
    #[schemars(range(min = 1, max = 10000))]
    #[serde(default = "default::max_inflight")]
    pub max_inflight: i32,

    /// How long one call may take, from the first byte sent to the function to the last one received. Default: 1m.
    ///
    /// A duration of more than 0s and at most 24h, written as 200ms, 90s, 15m or 1h30m. Over it, the call is cut off
    /// and counts as failed with status 504. A worker that is shut down gets this long, and 15 seconds, to
    /// finish what runs. Example: 15m
    #[schemars(schema_with = "schemas::duration")]
    #[x_kube(validation = rule::timeout())]
    #[serde(default = "default::timeout")]
    pub timeout: GoDuration,

    /// How many workers the queue has, 0 to 1000. Default: 1.
    ///
    /// 0 accepts calls and runs none. `kubectl scale asyncqueue NAME --replicas=3` and autoscalers set it
    /// through the scale subresource. Example: 3
    #[schemars(range(min = 0, max = 1000))]
    #[serde(default = "default::replicas")]
    pub replicas: i32,

    /// The stream on NATS JetStream that stores the calls.
    ///
    /// A call leaves it when it is done (work-queue retention). Holding a million calls, it is full: it refuses new ones,
    /// which the caller hears as 429, and drops none. A stream that exists already and that no AsyncQueue owns is taken
    /// over only with the annotation asyncqueue.io/adopt: "true" on this object.
    #[serde(default)]
    pub stream: StreamSpec,

    /// The durable pull consumer through which all workers of the queue take calls.
    #[serde(default)]
    pub consumer: ConsumerSpec,

    /// The workers' pods, of the Deployment NAME-worker in this namespace.
    ///
    /// They run without root, without privileges and on a read-only file system. Changing anything in here replaces them one
    /// after another, and loses no call.
    #[serde(default)]
    pub worker: WorkerSpec,

    /// What becomes of the stored calls when this object is deleted. Default: DeleteIfEmpty.
    ///
    /// Retain keeps the stream with its calls. Delete deletes it with all calls that it holds, results that are on their way
    /// and dead letters. DeleteIfEmpty deletes it if it holds no call, else keeps it and says in a Warning event how
    /// many calls there are.
    ///
    /// The workers go at once in any case. A stream that is kept is taken over by the next AsyncQueue of the
    /// same stream name, with all its calls. Whatever this says, a stream that this queue does not own is
    /// never touched, and a deletion that finds NATS away waits 5 minutes at most, then behaves as Retain.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,

    /// The NATS server that holds the queue.
    #[serde(default)]
    pub nats: NatsSpec,
}

/// The stream that stores the calls.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamSpec {
    /// Name of the stream, 1 to 64 of A-Z, a-z, 0-9, - and _. Default: the queue's name. Can't be changed.
    ///
    /// It is the name in `nats stream ls` and in KEDA's nats-jetstream trigger. Example: SLOW
    #[schemars(schema_with = "schemas::jetstream_name")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rule::jetstream_name())]
    pub name: Option<String>,

    /// Subject of the queue: calls are published to it and below it. Default: the queue's name. Can't be changed.
    ///
    /// Tokens of A-Z, a-z, 0-9, - and _ separated by dots, 128 characters at most. No two streams of a NATS account
    /// may have overlapping subjects. Example: jobs.slow
    #[schemars(schema_with = "schemas::subject")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rule::subject(), validation = rule::reserved_subject())]
    pub subject: Option<String>,

    /// Copies of the stream in a cluster of NATS servers, 1 to 5; use 3 to survive the loss of a server. Default: 1.
    ///
    /// More than the cluster has servers is refused by NATS, which StreamReady tells. Example: 3
    #[schemars(range(min = 1, max = 5))]
    #[serde(default = "default::replicas")]
    pub replicas: i32,

    /// File keeps calls over a restart of NATS, Memory is faster and loses them. Default: File. Can't be changed.
    #[x_kube(validation = rule::storage_is_immutable())]
    #[serde(default)]
    pub storage: Storage,

    /// How long a call id that was accepted is recognised when it is sent again, counted from the first time it
    /// was sent. Default: 2m.
    ///
    /// A duration from 1s to 24h, written as 90s, 15m or 1h30m. NATS holds each id in memory this long.
    /// Example: 10m
    #[schemars(schema_with = "schemas::duration")]
    #[x_kube(validation = rule::duplicate_window())]
    #[serde(default = "default::duplicate_window")]
    pub duplicate_window: GoDuration,
}

/// The durable pull consumer of the workers.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConsumerSpec {
    /// Name of the durable consumer, 1 to 64 of A-Z, a-z, 0-9, - and _. Default: the queue's name with -workers. Can't be
    /// changed.
    ///
    /// It is the name in `nats consumer ls` and in KEDA's nats-jetstream trigger. Example: slow-workers
    #[schemars(schema_with = "schemas::jetstream_name")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rule::jetstream_name())]
    pub durable_name: Option<String>,

    /// The lease of a call: how long its worker may be silent before another worker takes the call over. Default: 30s.
    ///
    /// A duration from 1s to 1h. It is no limit on the time of a call, which may be far longer (see spec.timeout): a
    /// worker renews the lease while the function runs. Shorter takes over the calls of a killed worker
    /// sooner, longer bears a longer break between worker and NATS. Example: 1m
    #[schemars(schema_with = "schemas::duration")]
    #[x_kube(validation = rule::ack_wait())]
    #[serde(default = "default::ack_wait")]
    pub ack_wait: GoDuration,
}

/// The workers' pods.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerSpec {
    /// Image with the program asyncqueue-worker. Default: the operator's own image, so that an upgrade of the operator
    /// upgrades all workers. Example: registry.example.com/asyncqueue:0.1.0
    #[schemars(schema_with = "schemas::image")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,

    /// When the image is pulled. Default: IfNotPresent.
    #[serde(default)]
    pub image_pull_policy: PullPolicy,

    /// Compute resources of one worker.
    ///
    /// A worker holds each call that it runs and the function's answer in memory, up to 17 MiB a call: size memory by
    /// maxInflight. There is no limit unless one is set here, for a worker that is killed over it leaves its calls to
    /// be run again.
    #[serde(default)]
    pub resources: Resources,
}

/// Compute resources, as in a container.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resources {
    /// What is set aside for it, by resource. Default: cpu 10m, memory 32Mi. Example: {cpu: 100m, memory: 128Mi}
    #[schemars(schema_with = "schemas::quantities")]
    #[serde(default = "default::requests")]
    pub requests: BTreeMap<String, IntOrString>,

    /// What it may use at most, by resource. Default: none. Example: {memory: 512Mi}
    #[schemars(schema_with = "schemas::quantities")]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, IntOrString>,
}

/// The NATS server that holds this queue.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NatsSpec {
    /// URL of the server, or several, comma-separated. Default: the operator's own.
    ///
    /// Set it only for a queue on another NATS than the operator's. The gateway publishes to its own NATS, so such a
    /// queue is not in its directory: calls come from a gateway or a publisher of that NATS. Changing it moves
    /// no calls. Example: nats://nats.other:4222
    #[schemars(schema_with = "schemas::nats_url")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rule::nats_url())]
    pub url: Option<String>,
}

/// Where a stream keeps its messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Storage {
    /// On disk.
    #[default]
    File,
    /// In memory.
    Memory,
}

/// What becomes of the stored calls when the queue is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum DeletionPolicy {
    /// Keep stream and calls.
    Retain,
    /// Delete the stream with all calls that it holds, and the dead letters.
    Delete,
    /// Delete a stream without calls; keep one that holds some, and say how many in a Warning event.
    #[default]
    DeleteIfEmpty,
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum PullPolicy {
    /// Each time a pod starts.
    Always,
    /// If the node doesn't have it.
    #[default]
    IfNotPresent,
    /// Never: the node has it.
    Never,
}
