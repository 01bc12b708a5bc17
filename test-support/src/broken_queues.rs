//! Queues that cannot work, each for one cause, and what is seen of each: a test on the cluster
//! creates them, and docs/troubleshooting.md lists them.

/// A queue that cannot work.
#[derive(Clone, Copy, Debug)]
pub struct Broken {
    /// Its name, and what is wrong in one word.
    pub name: &'static str,
    /// Its `spec`, as a test applies it. `EXAMPLE` is an image without the program of a worker.
    pub spec: &'static str,
    /// What is wrong, as the document says it.
    pub what: &'static str,
    /// The reason of its condition `Ready`, which `kubectl get aq` shows, and of its event.
    pub reason: &'static str,
    /// Words of the message of both, in their order.
    pub words: &'static [&'static str],
    /// After so many seconds at the latest.
    pub seconds: u64,
}

/// What the status of a pod says.
const SOON: u64 = 10;

const fn broken(
    name: &'static str,
    spec: &'static str,
    what: &'static str,
    reason: &'static str,
    words: &'static [&'static str],
) -> Broken {
    Broken { name, spec, what, reason, words, seconds: SOON }
}

/// What an image is called in [`Broken::spec`] that has no worker in it.
pub const EXAMPLE: &str = "EXAMPLE";

/// The queue whose namespace admits no pod.
pub const WITHOUT_QUOTA: &str = "broken-quota";

/// The queue that another object is in the way of: a Deployment of the name of its workers.
pub const WITH_A_NAMESAKE: &str = "broken-namesake";

/// The queue whose stream and subject others of these queues want.
pub const OWNER: &str = "broken-image";

/// The Secret and the `ConfigMap` that are there, without the keys that queues name.
pub const PRESENT: &str = "present";

/// All of them.
pub const QUEUES: [Broken; 24] = [
    broken(
        OWNER,
        "{worker: {image: 'registry.invalid/asyncqueue:none'}}",
        "an image that is not there, or a registry that does not answer",
        "ImagePullFailed",
        &["Image registry.invalid/asyncqueue:none cannot be pulled:"],
    ),
    broken(
        "broken-image-name",
        "{worker: {image: 'registry.invalid/UPPER:1'}}",
        "an image whose name is not valid",
        "ImagePullFailed",
        &["Image registry.invalid/UPPER:1 cannot be pulled:", "must be lowercase"],
    ),
    broken(
        "broken-pull-policy",
        "{worker: {image: 'absent:1', imagePullPolicy: Never}}",
        "`imagePullPolicy: Never`, and the node has no such image",
        "ImagePullFailed",
        &["Image absent:1 cannot be pulled:", "pull policy of Never"],
    ),
    broken(
        "broken-secret",
        "{worker: {env: [{name: a, valueFrom: {secretKeyRef: {name: absent, key: k}}}]}}",
        "`worker.env` names a Secret that is not there",
        "ContainerConfigError",
        &["secret \"absent\" not found"],
    ),
    broken(
        "broken-config-map",
        "{worker: {env: [{name: a, valueFrom: {configMapKeyRef: {name: absent, key: k}}}]}}",
        "`worker.env` names a ConfigMap that is not there",
        "ContainerConfigError",
        &["configmap \"absent\" not found"],
    ),
    broken(
        "broken-config-key",
        "{worker: {env: [{name: a, valueFrom: {configMapKeyRef: {name: present, key: absent}}}]}}",
        "`worker.env` names a key that the ConfigMap does not have",
        "ContainerConfigError",
        &["couldn't find key absent in ConfigMap", "present"],
    ),
    broken(
        "broken-mount",
        "{callback: {signingSecretRef: {name: absent, key: k}}}",
        "`callback.signingSecretRef` names a Secret that is not there",
        "VolumeMountFailed",
        &["secret \"absent\" not found"],
    ),
    broken(
        "broken-mount-key",
        "{callback: {signingSecretRef: {name: present, key: absent}}}",
        "`callback.signingSecretRef` names a key that the Secret does not have",
        "VolumeMountFailed",
        &["references non-existent secret key: absent"],
    ),
    broken(
        "broken-node",
        "{worker: {nodeSelector: {disk: absent}}}",
        "no node has the labels of `worker.nodeSelector`",
        "Unschedulable",
        &["No node accepts a worker: node(s) didn't match Pod's node affinity/selector."],
    ),
    broken(
        "broken-cpu",
        "{worker: {resources: {requests: {cpu: 1000}}}}",
        "no node has the CPU of `worker.resources.requests`",
        "Unschedulable",
        &["No node accepts a worker: Insufficient cpu."],
    ),
    broken(
        "broken-memory",
        "{worker: {resources: {requests: {memory: 1000Ti}}}}",
        "no node has the memory of `worker.resources.requests`",
        "Unschedulable",
        &["No node accepts a worker: Insufficient memory."],
    ),
    broken(
        "broken-setting",
        "{worker: {env: [{name: max_response_bytes, value: much}]}}",
        "a value in `worker.env` that the worker does not take",
        "WorkerExited",
        &["A worker ended with exit code 2:", "much"],
    ),
    broken(
        "broken-log",
        "{worker: {env: [{name: RUST_LOG, value: '=='}]}}",
        "a `RUST_LOG` in `worker.env` that cannot be read",
        "WorkerExited",
        &["A worker ended with exit code 2:", "RUST_LOG"],
    ),
    broken(
        "broken-program",
        "{worker: {image: EXAMPLE}}",
        "an image without the program `asyncqueue-worker`",
        "ContainerStartFailed",
        &["asyncqueue-worker", "executable file not found"],
    ),
    broken(
        WITHOUT_QUOTA,
        "{}",
        "a ResourceQuota that admits no more pods",
        "PodsRefused",
        &["exceeded quota: none"],
    ),
    broken(
        "broken-priority",
        "{worker: {priorityClassName: absent}}",
        "`worker.priorityClassName` that is not there",
        "PodsRefused",
        &["no PriorityClass with name absent was found"],
    ),
    broken(
        "broken-runtime",
        "{worker: {runtimeClassName: absent}}",
        "`worker.runtimeClassName` that is not there",
        "PodsRefused",
        &["RuntimeClass \"absent\" not found"],
    ),
    broken(
        "broken-account",
        "{worker: {serviceAccountName: absent}}",
        "`worker.serviceAccountName` that is not there",
        "PodsRefused",
        &["serviceaccount \"absent\" not found"],
    ),
    broken(
        WITH_A_NAMESAKE,
        "{}",
        "a Deployment that is somebody else's has the name of the workers'",
        "ResourceConflict",
        &["Deployment `broken-namesake-worker` exists and does not belong to this queue"],
    ),
    broken(
        "broken-probe",
        "{nats: {url: 'nats://nats:4222'}}",
        "a name of NATS that resolves in the operator's namespace and not in the queue's",
        "ProbeFailed",
        &["A worker runs but is not ready: Readiness probe failed:", "503"],
    ),
    broken(
        "broken-nats-name",
        "{nats: {url: 'nats://absent.openfaas:4222'}}",
        "a name of NATS that does not resolve",
        "NatsUnavailable",
        &["absent.openfaas:4222", "does not resolve"],
    ),
    broken(
        "broken-nats-port",
        "{nats: {url: 'nats://127.0.0.1:4222'}}",
        "nothing listens at the address of NATS",
        "NatsUnavailable",
        &["127.0.0.1:4222", "refused"],
    ),
    broken(
        "broken-stream",
        "{stream: {name: broken-image}}",
        "the stream of another queue",
        "ResourceConflict",
        &["broken-image"],
    ),
    broken(
        "broken-replicas",
        "{stream: {replicas: 3}}",
        "more `stream.replicas` than NATS has servers",
        "NatsRefused",
        &["NATS refused"],
    ),
];
