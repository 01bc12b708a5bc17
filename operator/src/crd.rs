//! The `AsyncQueue` resource. `kubectl explain asyncqueue` prints its doc comments.
//!
//! The API server refuses invalid values, by schema and CEL, with a message that states the rule.
//! `controller::validate` checks only what depends on other objects. Defaults are in the schema, so
//! that `kubectl get -o yaml` shows the effective values.
//!
//! Each field has an effect. Each string has a maximum length: without one, CEL rules on it are
//! refused as too costly. Numbers are signed, since the schema has no other integers.

use asyncqueue::{GoDuration, lanes::Fairness};
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
    per_function::PerFunctionSpec,
    rate::RateSpec,
    results::ResultsSpec,
    retry::RetrySpec,
    secret::SecretKey,
    size::Size,
    status::{AsyncQueueStatus, LimitedFunctionStatus},
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
mod per_function;
mod rate;
mod results;
mod retry;
mod rules;
mod schemas;
pub(crate) mod secret;
mod size;
mod status;
mod stream;
mod worker;

/// Desired state of the queue. Every field has a default: {} is a queue with one worker that runs
/// one call at a time, for at most one minute. Example: {maxInflight: 5, timeout: 15m, replicas: 2}
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
    doc = "AsyncQueue is a named queue for asynchronous function calls. It has its own workers, \
           concurrency and time limit, so that slow calls do not delay fast ones. To send the \
           calls of a function to it, set the annotation com.openfaas.queue: NAME on the \
           function, where NAME is the name of this object.\n\n\
           It consists of a stream and a durable consumer on NATS JetStream and a Deployment \
           NAME-worker in this namespace. Total concurrency is spec.concurrency, or else \
           spec.maxInflight times spec.replicas.\n\n\
           The name has 1 to 40 of a-z, 0-9 and -, and must be unique in the cluster: calls find \
           their queue by its name.",
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
    printcolumn(name = "Lanes", type_ = "integer", json_path = ".status.lanes", priority = 1),
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
    validation = rule::duplicates_are_known(),
    validation = rule::timeout_fits_grace_period(),
    validation = rule::limits_of_functions_need_lanes()
)]
#[cfg_attr(test, kube(cel))]
#[serde(rename_all = "camelCase")]
pub struct AsyncQueueSpec {
    /// Maximum number of calls that one worker runs concurrently, 1 to 10000. Default: 1.
    ///
    /// Total concurrency of the queue is maxInflight times replicas, or the field concurrency if
    /// that is less. A call that waits for its
    /// retry does not count. A change applies to running workers within seconds. If it is lowered,
    /// running calls finish, and others start when there is room. Example: 5
    #[schemars(range(min = 1, max = 10000))]
    #[serde(default = "default::max_inflight")]
    pub max_inflight: i32,

    /// Maximum number of invocations that all workers of the queue together have open, 1 to
    /// 1000000. Default: maxInflight times replicas.
    ///
    /// The workers share it in equal parts, and no worker runs more than maxInflight. A worker that
    /// dies gives its part back after 15 s. A worker that can't reach NATS for 9 s starts no
    /// invocation. A change applies within seconds, and running calls finish. Example: 50
    #[schemars(with = "i32", range(min = 1, max = 1_000_000))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<i32>,

    /// How many invocations all workers of the queue together start. Default: unlimited.
    ///
    /// Retries count too. Calls above the rate wait in the queue. A change applies within seconds.
    /// Example: {perSecond: 10, burst: 20}
    #[schemars(with = "RateSpec")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<RateSpec>,

    /// Maximum time of one HTTP request to the function, from the first byte sent to the last byte
    /// received. Default: 1m.
    ///
    /// A duration of more than 0s and at most 24h, written as 200ms, 90s, 15m or 1h30m. After that
    /// time the request is aborted and counts as failed with status 504. A change applies to
    /// requests that start later. Workers are replaced only if worker.terminationGracePeriod, the
    /// time in which they finish running calls, is too short for it. Example: 15m
    #[schemars(schema_with = "schemas::duration")]
    #[x_kube(validation = rule::timeout())]
    #[serde(default = "default::timeout")]
    pub timeout: GoDuration,

    /// Number of workers, 0 to 1000. Default: 1.
    ///
    /// With 0, calls are accepted but not run. `kubectl scale asyncqueue NAME --replicas=3` and
    /// autoscalers, such as a HorizontalPodAutoscaler or KEDA with this object as its
    /// scaleTargetRef, set it through the scale subresource. If an autoscaler sets it, leave this
    /// field out of what you apply: then kubectl apply --server-side never resets it. Example: 3
    #[schemars(range(min = 0, max = 1000))]
    #[serde(default = "default::replicas")]
    pub replicas: i32,

    /// The stream on NATS JetStream that stores the calls.
    ///
    /// A call is removed from it when it is done (work-queue retention). An existing stream that no
    /// AsyncQueue owns is taken over only with the annotation asyncqueue.io/adopt: "true" on this
    /// object. If another program created the stream, the operator's setting allowed_streams must
    /// also contain its name and its subject.
    #[schemars(with = "StreamSpec")]
    #[serde(default)]
    pub stream: OrDefault<StreamSpec>,

    /// The durable pull consumer through which all workers of the queue take calls.
    #[schemars(with = "ConsumerSpec")]
    #[serde(default)]
    pub consumer: OrDefault<ConsumerSpec>,

    /// Order in which calls are run. Fifo: the order in which they were stored. Function: workers
    /// take turns between the functions of the queue, so that a burst of one function does not
    /// delay the others. Default: Fifo.
    ///
    /// With Function, each function with calls has a consumer of its own, at most 90 of them;
    /// functions beyond share one, and the condition LanesShared says so. A change applies once no
    /// call is in flight: until then no call is delivered, and the condition Migrating says what is
    /// waited for. Calls that wait for a retry keep their attempts. All workers and gateways must
    /// have this version before Function is set. Example: Function
    #[serde(default)]
    pub fairness: Fairness,

    /// What applies to each function of the queue. Needs fairness: Function.
    ///
    /// The annotations asyncqueue.io/max-inflight, asyncqueue.io/rate and asyncqueue.io/weight of a
    /// function are its own limits, and how many calls it has in its turn. A change applies within
    /// seconds. Example: {maxInflight: 10}
    #[schemars(with = "PerFunctionSpec")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_function: Option<PerFunctionSpec>,

    /// Suspends the queue: calls are accepted but not delivered. Running calls finish, and their
    /// results are posted. Default: false.
    ///
    /// Workers keep running, and continue as soon as this is false. The consumer on JetStream is
    /// paused, which requires nats-server 2.11 or later; the condition Suspended shows whether it
    /// is. Waiting calls keep their position, and with limits.maxAge their age. Example: true
    #[serde(default)]
    pub suspend: bool,

    /// Retries of failed calls. The annotations com.openfaas.retry.* of a function take precedence.
    ///
    /// A change applies to attempts that end later, and restarts no worker.
    #[schemars(with = "RetrySpec")]
    #[serde(default)]
    pub retry: OrDefault<RetrySpec>,

    /// Dead letters: calls whose attempts are exhausted.
    #[schemars(with = "DeadLetterSpec")]
    #[serde(default)]
    pub dead_letter: OrDefault<DeadLetterSpec>,

    /// Callbacks: how results are posted to the X-Callback-Url of their call.
    #[schemars(with = "CallbackSpec")]
    #[serde(default)]
    pub callback: OrDefault<CallbackSpec>,

    /// Results that are kept for clients: those that a client asks for with X-Keep-Result, and with
    /// retention all.
    ///
    /// They are on the stream NAME-results, which is created with the first of them. A change
    /// applies to calls that end later, and restarts no worker. Example: {retention: 10m}
    #[schemars(with = "ResultsSpec")]
    #[serde(default)]
    pub results: OrDefault<ResultsSpec>,

    /// Limits of the queue. A full queue refuses new calls with 429, and drops no stored call.
    #[schemars(with = "LimitsSpec")]
    #[serde(default)]
    pub limits: OrDefault<LimitsSpec>,

    /// Which functions may send their calls to this queue.
    #[schemars(with = "FunctionsSpec")]
    #[serde(default)]
    pub functions: OrDefault<FunctionsSpec>,

    /// How workers call functions.
    #[schemars(with = "InvokeSpec")]
    #[serde(default)]
    pub invoke: OrDefault<InvokeSpec>,

    /// If true, workers log headers and bodies of calls and responses, including the secrets in
    /// them. Default: false.
    #[serde(default)]
    pub verbose: bool,

    /// Worker pods, created by the Deployment NAME-worker in this namespace.
    ///
    /// They run as non-root, without privileges and with a read-only file system. A change of any
    /// field here replaces them one after another, and no call is lost.
    #[schemars(with = "WorkerSpec")]
    #[serde(default)]
    pub worker: OrDefault<WorkerSpec>,

    /// What happens to stored calls when this object is deleted. Default: DeleteIfEmpty.
    ///
    /// Retain keeps the stream with its calls. Delete deletes it with all calls, results and
    /// dead letters. DeleteIfEmpty deletes a stream without calls, else keeps it and reports
    /// the number of calls in a Warning event.
    ///
    /// Workers are always deleted immediately. A retained stream is taken over, with its calls, by
    /// the next AsyncQueue of the same namespace and name, and by those that the annotation
    /// asyncqueue.io/release-to of this object names: NAMESPACE/NAME, several separated by commas.
    /// A stream that this queue does not own is never changed. While NATS is unavailable, a
    /// deletion waits for at most 5 minutes, then behaves as Retain.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,

    /// The NATS server that holds the queue.
    #[schemars(with = "NatsSpec")]
    #[serde(default)]
    pub nats: OrDefault<NatsSpec>,
}

/// What happens to stored calls when the queue is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum DeletionPolicy {
    /// Keep the stream and its calls.
    Retain,
    /// Delete the stream with its calls and dead letters.
    Delete,
    /// Delete a stream without calls; keep one with calls and report their number in a Warning
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
            concurrency: None,
            rate: None,
            timeout: default::timeout(),
            replicas: default::replicas(),
            stream: OrDefault::default(),
            consumer: OrDefault::default(),
            fairness: Fairness::default(),
            per_function: None,
            suspend: false,
            retry: OrDefault::default(),
            dead_letter: OrDefault::default(),
            callback: OrDefault::default(),
            results: OrDefault::default(),
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
