//! The `AsyncQueue` resource. Its doc comments are the manual that `kubectl explain asyncqueue`
//! prints.
//!
//! What can be wrong with a field is refused by the API server, by schema and CEL, with a message
//! that says the rule; `controller::validate` is left with what only shows beside other objects.
//! Defaults are the schema's, so that `kubectl get -o yaml` shows what counts.
//!
//! Each field has an effect. Each string has a longest length, without which CEL rules on it are
//! refused as too costly; numbers are signed, since the schema knows no others.

use asyncqueue::GoDuration;
use kube::{CustomResource, KubeSchema, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[cfg(test)]
pub(crate) use self::rules::operator_variables;
pub use self::{
    callback::CallbackSpec,
    condition::Condition,
    dead_letter::DeadLetterSpec,
    definition::yaml,
    functions::FunctionsSpec,
    invoke::{InvokeSpec, Via},
    limits::LimitsSpec,
    nats::NatsSpec,
    or_default::OrDefault,
    retry::RetrySpec,
    secret::SecretKey,
    size::Size,
    status::AsyncQueueStatus,
    stream::{ConsumerSpec, Storage, StreamSpec},
    worker::{PullPolicy, Resources, WorkerSpec},
};
use self::{defaults as default, rules as rule};

mod callback;
mod condition;
pub(crate) mod conditions;
mod dead_letter;
mod defaults;
mod definition;
mod functions;
mod invoke;
#[expect(clippy::struct_field_names, reason = "the fields are called as on JetStream")]
mod limits;
mod nats;
mod or_default;
mod retry;
mod rules;
mod schemas;
pub(crate) mod secret;
mod size;
mod status;
mod stream;
mod worker;

/// What a queue shall be. Every field has a default: {} is a queue with one worker that runs one
/// call at a time, for at most a minute. Example: {maxInflight: 5, timeout: 15m, replicas: 2}
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
    doc = "AsyncQueue is a named queue for asynchronous function calls, with workers, a \
        concurrency and a time \
           limit of its own, so that slow calls don't hold up fast ones. Send a function's calls \
           to it with the \
           annotation com.openfaas.queue: NAME on the function, where NAME is this object's \
           name.\n\n\
           It is a stream and a durable consumer on NATS JetStream and a Deployment NAME-worker \
           in this \
           namespace. Total concurrency is spec.maxInflight times spec.replicas.\n\n\
           The name has 1 to 40 of a-z, 0-9 and -, and is unique in the cluster: calls find \
           their queue by it.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#,
        description = "Whether calls are accepted and workers run"
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
        name = "Dead",
        type_ = "integer",
        json_path = ".status.deadLetters",
        description = "Dead letters: calls that were given up, kept for inspection"
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
    printcolumn(
        name = "Functions",
        type_ = "integer",
        json_path = ".status.functions",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        priority = 1
    ),
    validation = rule::queue_name(),
    validation = rule::reserved_name(),
    validation = rule::name_of_the_reserve(),
    validation = rule::stream_is_immutable(),
    validation = rule::subject_is_immutable(),
    validation = rule::durable_is_immutable(),
    validation = rule::duplicates_are_known()
)]
#[cfg_attr(test, kube(cel))]
#[serde(rename_all = "camelCase")]
pub struct AsyncQueueSpec {
    /// How many calls one worker runs at once, 1 to 10000. Default: 1.
    ///
    /// Total concurrency of the queue is maxInflight times replicas. A call that waits for its
    /// retry takes no place. Changing it restarts the workers and leaves the stored calls alone.
    /// Example: 5
    #[schemars(range(min = 1, max = 10000))]
    #[serde(default = "default::max_inflight")]
    pub max_inflight: i32,

    /// How long one call may take, from the first byte sent to the function to the last one
    /// received. Default: 1m.
    ///
    /// A duration of more than 0s and at most 24h, written as 200ms, 90s, 15m or 1h30m. Over it,
    /// the call is cut off and counts as failed with status 504. A worker that is shut down gets
    /// this long, and 15 seconds, to finish what runs. Example: 15m
    #[schemars(schema_with = "schemas::duration")]
    #[x_kube(validation = rule::timeout())]
    #[serde(default = "default::timeout")]
    pub timeout: GoDuration,

    /// How many workers the queue has, 0 to 1000. Default: 1.
    ///
    /// 0 accepts calls and runs none. `kubectl scale asyncqueue NAME --replicas=3` and autoscalers,
    /// such as a HorizontalPodAutoscaler or KEDA with this object as its scaleTargetRef, set it
    /// through the scale subresource. Where one does, leave this field out of what you apply:
    /// kubectl apply --server-side then never sets it back. Example: 3
    #[schemars(range(min = 0, max = 1000))]
    #[serde(default = "default::replicas")]
    pub replicas: i32,

    /// The stream on NATS JetStream that stores the calls.
    ///
    /// A call leaves it when it is done (work-queue retention). A stream that exists already and
    /// that no AsyncQueue owns is taken over only with the annotation asyncqueue.io/adopt: "true"
    /// on this object, and one that another program created only if the operator's setting
    /// allowed_streams has its name and its subject.
    #[schemars(with = "StreamSpec")]
    #[serde(default)]
    pub stream: OrDefault<StreamSpec>,

    /// The durable pull consumer through which all workers of the queue take calls.
    #[schemars(with = "ConsumerSpec")]
    #[serde(default)]
    pub consumer: OrDefault<ConsumerSpec>,

    /// Suspends the queue: calls are accepted and none is delivered; those that run end, and their
    /// results are posted. Default: false.
    ///
    /// Workers stay, and go on the moment this is false again. It pauses the consumer on JetStream,
    /// which takes nats-server 2.11 or later; the condition Suspended tells whether it is. Calls
    /// that wait keep their place, and with limits.maxAge their age. Example: true
    #[serde(default)]
    pub suspend: bool,

    /// When a call that failed is made again. The annotations com.openfaas.retry.* of a function
    /// come before it.
    #[schemars(with = "RetrySpec")]
    #[serde(default)]
    pub retry: OrDefault<RetrySpec>,

    /// What becomes of calls that are given up.
    #[schemars(with = "DeadLetterSpec")]
    #[serde(default)]
    pub dead_letter: OrDefault<DeadLetterSpec>,

    /// How results are posted to the X-Callback-Url of their call.
    #[schemars(with = "CallbackSpec")]
    #[serde(default)]
    pub callback: OrDefault<CallbackSpec>,

    /// What the queue holds at most. Full, it refuses calls, which the caller hears as 429; it
    /// drops none that it has.
    #[schemars(with = "LimitsSpec")]
    #[serde(default)]
    pub limits: OrDefault<LimitsSpec>,

    /// Which functions may send their calls to this queue.
    #[schemars(with = "FunctionsSpec")]
    #[serde(default)]
    pub functions: OrDefault<FunctionsSpec>,

    /// How workers reach functions.
    #[schemars(with = "InvokeSpec")]
    #[serde(default)]
    pub invoke: OrDefault<InvokeSpec>,

    /// Workers log headers and bodies of calls and of their answers, secrets in them included.
    /// Default: false.
    #[serde(default)]
    pub verbose: bool,

    /// The workers' pods, of the Deployment NAME-worker in this namespace.
    ///
    /// They run without root, without privileges and on a read-only file system. Changing anything
    /// in here replaces them one after another, and loses no call.
    #[schemars(with = "WorkerSpec")]
    #[serde(default)]
    pub worker: OrDefault<WorkerSpec>,

    /// What becomes of the stored calls when this object is deleted. Default: DeleteIfEmpty.
    ///
    /// Retain keeps the stream with its calls. Delete deletes it with all calls that it holds,
    /// results that are on their way and dead letters. DeleteIfEmpty deletes it if it holds no
    /// call, else keeps it and says in a Warning event how many calls there are.
    ///
    /// The workers go at once in any case. A stream that is kept is taken over by the next
    /// AsyncQueue of the same namespace and name, with all its calls, and by those that the
    /// annotation asyncqueue.io/release-to of this object names: NAMESPACE/NAME, several separated
    /// by commas. Whatever this says, a stream that this queue does not own is never touched, and a
    /// deletion that finds NATS away waits 5 minutes at most, then behaves as Retain.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,

    /// The NATS server that holds the queue.
    #[schemars(with = "NatsSpec")]
    #[serde(default)]
    pub nats: OrDefault<NatsSpec>,
}

/// What becomes of the stored calls when the queue is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum DeletionPolicy {
    /// Keep stream and calls.
    Retain,
    /// Delete the stream with all calls that it holds, and the dead letters.
    Delete,
    /// Delete a stream without calls; keep one that holds some, and say how many in a Warning
    /// event.
    #[default]
    DeleteIfEmpty,
}

// === impl AsyncQueue ===

impl AsyncQueue {
    /// Returns `namespace/name`, as recorded in the streams of the queue.
    pub(crate) fn namespaced_name(&self) -> String {
        format!("{}/{}", self.namespace().unwrap_or_default(), self.name_any())
    }

    /// Returns whether the queue owns its stream.
    pub(crate) fn owns_stream(&self) -> bool {
        self.status.as_ref().is_some_and(|status| status.stream.is_some())
    }
}

impl Default for AsyncQueueSpec {
    fn default() -> Self {
        Self {
            max_inflight: default::max_inflight(),
            timeout: default::timeout(),
            replicas: default::replicas(),
            stream: OrDefault::default(),
            consumer: OrDefault::default(),
            suspend: false,
            retry: OrDefault::default(),
            dead_letter: OrDefault::default(),
            callback: OrDefault::default(),
            limits: OrDefault::default(),
            functions: OrDefault::default(),
            invoke: OrDefault::default(),
            verbose: false,
            worker: OrDefault::default(),
            deletion_policy: DeletionPolicy::default(),
            nats: OrDefault::default(),
        }
    }
}
