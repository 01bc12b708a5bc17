//! The third step: the objects that a valid queue consists of. Pure.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use asyncqueue::{GoDuration, QueueName, stream::QueueSpec};
use asyncqueue_runtime::settings::{LogEncoding, NatsSettings};
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment},
        core::v1::{
            Capabilities, Container, ContainerPort, EnvVar, HTTPGetAction, PodSecurityContext, PodSpec,
            PodTemplateSpec, Probe, SeccompProfile, SecurityContext,
        },
    },
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, ObjectMeta},
        util::intstr::IntOrString,
    },
};

use super::validate::ValidQueue;
use crate::crd::PullPolicy;

/// The label that tells the workers of one queue from all others: a Deployment whose selector is another's too would
/// take over its pods.
pub(crate) const QUEUE_LABEL: &str = "asyncqueue.io/queue";

/// The annotation with the hash of what was applied last, by which a field that is not wanted any more is noticed.
pub(crate) const APPLIED_ANNOTATION: &str = "asyncqueue.io/applied";

/// The user that workers run as: nobody's in particular, and not root.
const USER: i64 = 65_532;

/// The worker's /healthz, /readyz and /metrics.
const PORT: i32 = 8081;

/// What a worker has beyond the time limit of a call, to finish: as it does itself when it isn't told.
const GRACE_MARGIN: Duration = Duration::from_secs(10);

/// What the kubelet gives beyond that, so that a worker can still hand back what it did not finish.
const KILL_MARGIN: Duration = Duration::from_secs(5);

/// A worker that isn't up after that won't be soon; the default of 10 minutes is long for somebody who watches.
const PROGRESS_DEADLINE_SECONDS: i32 = 120;

/// Enough for a look back and one undo.
const REVISION_HISTORY: i32 = 2;

/// What the workers of all queues have in common.
#[derive(Clone, Debug)]
pub(crate) struct Installation {
    /// How they reach NATS.
    pub(crate) nats: NatsSettings,
    /// Their image.
    pub(crate) worker_image: String,
    /// Where functions are that are named without a namespace.
    pub(crate) function_namespace: String,
    /// The gateway that they call functions through, if any.
    pub(crate) gateway_url: Option<String>,
    /// The form of their log.
    pub(crate) log_encoding: LogEncoding,
}

/// A queue's objects as they shall be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Prepared {
    /// Streams and consumers.
    pub(crate) queue: QueueSpec,
    /// Whether a stream that nobody owns may be taken over.
    pub(crate) adopt: bool,
    /// The workers.
    pub(crate) workers: Deployment,
}

/// Builds the objects.
pub(crate) fn build(queue: &ValidQueue, installation: &Installation) -> Prepared {
    let mut workers = deployment(queue, installation);
    let applied = fingerprint(&workers);
    workers.metadata.annotations = Some([(APPLIED_ANNOTATION.to_owned(), applied)].into());
    Prepared { queue: queue.queue.clone(), adopt: queue.adopt, workers }
}

/// The labels by which a queue's workers are known.
pub(crate) fn selector(queue: &QueueName) -> BTreeMap<String, String> {
    labels([(QUEUE_LABEL, queue.as_str()), ("app.kubernetes.io/component", "worker")])
}

/// The same as a user writes it, after `-l`.
pub(crate) fn selector_text(queue: &QueueName) -> String {
    let pairs = selector(queue).into_iter().map(|(key, value)| format!("{key}={value}"));
    pairs.collect::<Vec<_>>().join(",")
}

fn deployment(queue: &ValidQueue, installation: &Installation) -> Deployment {
    let name = &queue.queue.queue;
    let mut labels = labels([
        ("app.kubernetes.io/name", "asyncqueue-worker"),
        ("app.kubernetes.io/instance", name.as_str()),
        ("app.kubernetes.io/part-of", "asyncqueue"),
        ("app.kubernetes.io/managed-by", "asyncqueue-operator"),
    ]);
    labels.extend(selector(name));
    Deployment {
        metadata: ObjectMeta {
            name: Some(name.worker_deployment()),
            namespace: Some(queue.namespace.clone()),
            labels: Some(labels.clone()),
            owner_references: Some(vec![queue.owner.clone()]),
            ..ObjectMeta::default()
        },
        spec: Some(DeploymentSpec {
            replicas: Some(queue.replicas),
            selector: LabelSelector { match_labels: Some(selector(name)), ..LabelSelector::default() },
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                // A worker more rather than one less: the one that goes may take long to finish.
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(1)),
                    max_unavailable: Some(IntOrString::Int(0)),
                }),
            }),
            progress_deadline_seconds: Some(PROGRESS_DEADLINE_SECONDS),
            revision_history_limit: Some(REVISION_HISTORY),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(labels),
                    annotations: Some(scrape()),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod(queue, installation)),
            },
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}

/// A pod that a namespace of the level `restricted` admits.
fn pod(queue: &ValidQueue, installation: &Installation) -> PodSpec {
    let grace = queue.timeout + GRACE_MARGIN + KILL_MARGIN;
    // Rounded up: a fraction of a second less is a fraction too little.
    let grace_seconds = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
    PodSpec {
        // A worker talks to NATS and functions, never to the API server.
        automount_service_account_token: Some(false),
        // A variable for each Service of the namespace might be taken for a setting.
        enable_service_links: Some(false),
        termination_grace_period_seconds: i64::try_from(grace_seconds).ok(),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                ..SeccompProfile::default()
            }),
            ..PodSecurityContext::default()
        }),
        containers: vec![container(queue, installation)],
        ..PodSpec::default()
    }
}

fn container(queue: &ValidQueue, installation: &Installation) -> Container {
    Container {
        name: "worker".to_owned(),
        image: Some(queue.image.as_ref().unwrap_or(&installation.worker_image).clone()),
        image_pull_policy: Some(pull_policy(queue.pull_policy).to_owned()),
        command: Some(vec!["asyncqueue-worker".to_owned()]),
        env: Some(environment(queue, installation)),
        ports: Some(vec![ContainerPort {
            name: Some("metrics".to_owned()),
            container_port: PORT,
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        }]),
        resources: Some(queue.resources.clone()),
        liveness_probe: Some(probe("/healthz", 10, 3)),
        readiness_probe: Some(probe("/readyz", 2, 2)),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            ..SecurityContext::default()
        }),
        ..Container::default()
    }
}

/// The worker's settings, by the names that it knows.
fn environment(queue: &ValidQueue, installation: &Installation) -> Vec<EnvVar> {
    let spec = &queue.queue;
    let log_encoding = match installation.log_encoding {
        LogEncoding::Console => "console",
        LogEncoding::Json => "json",
    };
    let mut variables = vec![("queue_name", spec.queue.to_string())];
    variables.extend(nats(queue, &installation.nats));
    variables.extend([
        ("nats_stream", spec.stream.clone()),
        ("nats_subject", spec.subject.clone()),
        ("nats_durable", spec.durable.clone()),
        ("max_inflight", queue.max_inflight.to_string()),
        ("upstream_timeout", GoDuration(queue.timeout).to_string()),
        // The consumer has it too; here it restarts workers on a change, which then renew in time.
        ("ack_wait", GoDuration(spec.ack_wait).to_string()),
        ("grace_period", GoDuration(queue.timeout + GRACE_MARGIN).to_string()),
        ("function_namespace", installation.function_namespace.clone()),
        ("log_encoding", log_encoding.to_owned()),
    ]);
    variables.extend(installation.gateway_url.clone().map(|url| ("gateway_url", url)));
    let variable = |(name, value): (&str, String)| EnvVar {
        name: name.to_owned(),
        value: Some(value),
        ..EnvVar::default()
    };
    variables.into_iter().map(variable).collect()
}

fn nats(queue: &ValidQueue, common: &NatsSettings) -> Vec<(&'static str, String)> {
    match queue.nats_url.as_ref().or(common.nats_url.as_ref()) {
        Some(url) => vec![("nats_url", url.clone())],
        None => vec![("nats_host", common.nats_host.clone()), ("nats_port", common.nats_port.to_string())],
    }
}

fn probe(path: &str, period_seconds: i32, failure_threshold: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String("metrics".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        failure_threshold: Some(failure_threshold),
        ..Probe::default()
    }
}

fn scrape() -> BTreeMap<String, String> {
    let port = PORT.to_string();
    labels([
        ("prometheus.io/scrape", "true"),
        ("prometheus.io/port", &port),
        ("prometheus.io/path", "/metrics"),
    ])
}

fn pull_policy(policy: PullPolicy) -> &'static str {
    match policy {
        PullPolicy::Always => "Always",
        PullPolicy::IfNotPresent => "IfNotPresent",
        PullPolicy::Never => "Never",
    }
}

fn labels<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// Equal for equal Deployments. Another version of this program may compute another one, which costs one update that
/// changes nothing.
fn fingerprint(deployment: &Deployment) -> String {
    let mut hasher = DefaultHasher::new();
    format!("{deployment:?}").hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

#[cfg(test)]
mod tests {
    use asyncqueue_runtime::settings::Optional;

    use super::*;
    use crate::{
        controller::{dereference::Found, validate::validate},
        crd::AsyncQueue,
        fixtures,
    };

    fn installation() -> Installation {
        Installation {
            nats: NatsSettings::from_url("nats://nats.openfaas:4222"),
            worker_image: "asyncqueue:test".to_owned(),
            function_namespace: "openfaas-fn".to_owned(),
            gateway_url: None,
            log_encoding: LogEncoding::Json,
        }
    }

    fn prepared(queue: &AsyncQueue, installation: &Installation) -> Prepared {
        build(&validate(queue, &fixtures::surroundings(Found::None)).unwrap(), installation)
    }

    fn variables(prepared: &Prepared) -> BTreeMap<&str, &str> {
        let pod = prepared.workers.spec.as_ref().unwrap().template.spec.as_ref().unwrap();
        let variables = pod.containers[0].env.as_ref().unwrap().iter();
        variables.map(|variable| (&*variable.name, variable.value.as_deref().unwrap())).collect()
    }

    /// A queue of which nothing is at its default.
    fn sample() -> AsyncQueue {
        let mut queue = fixtures::queue("slow-queue");
        queue.spec.max_inflight = 5;
        queue.spec.timeout = GoDuration(Duration::from_secs(900));
        queue.spec.replicas = 3;
        queue.spec.stream.name = Some("SLOW".to_owned());
        queue.spec.stream.subject = Some("jobs.slow".to_owned());
        queue.spec.consumer.durable_name = Some("slow".to_owned());
        queue.spec.consumer.ack_wait = GoDuration(Duration::from_secs(20));
        queue.spec.worker.image_pull_policy = PullPolicy::Always;
        queue
    }

    #[test]
    fn the_deployment_is_this_one() {
        let mut workers = prepared(&sample(), &installation()).workers;
        // Its value is nobody's business, that it is there is.
        let applied = workers.metadata.annotations.as_mut().unwrap().get_mut(APPLIED_ANNOTATION).unwrap();
        *applied = "fingerprint".to_owned();
        let actual = serde_saphyr::to_string(&workers).unwrap();
        assert!(
            actual == include_str!("build/golden.yaml"),
            "if this is as it shall be, it is the new golden.yaml:\n{actual}"
        );
    }

    #[test]
    fn the_stream_is_the_specs() {
        let queue = prepared(&sample(), &installation()).queue;
        assert_eq!((&*queue.stream, &*queue.subject, &*queue.durable), ("SLOW", "jobs.slow", "slow"));
    }

    #[test]
    fn a_queue_may_have_an_image_and_a_nats_of_its_own() {
        let mut queue = sample();
        queue.spec.worker.image = Some("mine:1".to_owned());
        queue.spec.nats.url = Some("nats://elsewhere".to_owned());
        let prepared = prepared(&queue, &installation());
        assert_eq!(variables(&prepared)["nats_url"], "nats://elsewhere");
        let pod = prepared.workers.spec.unwrap().template.spec.unwrap();
        assert_eq!(pod.containers[0].image.as_deref(), Some("mine:1"));
    }

    #[test]
    fn what_the_installation_says_reaches_the_workers() {
        let installation = Installation {
            nats: NatsSettings {
                nats_url: Optional(None),
                nats_host: "nats".to_owned(),
                nats_port: 4333,
                ..NatsSettings::from_url("")
            },
            gateway_url: Some("http://gateway:8080".to_owned()),
            function_namespace: "fn".to_owned(),
            ..installation()
        };
        let prepared = prepared(&sample(), &installation);
        let variables = variables(&prepared);
        assert_eq!((variables["nats_host"], variables["nats_port"]), ("nats", "4333"));
        assert!(!variables.contains_key("nats_url"));
        assert_eq!(variables["gateway_url"], "http://gateway:8080");
        assert_eq!(variables["function_namespace"], "fn");
    }

    #[test]
    fn a_pod_is_killed_only_after_its_worker_had_its_time() {
        let mut queue = sample();
        queue.spec.timeout = GoDuration(Duration::from_millis(500));
        let prepared = prepared(&queue, &installation());
        assert_eq!(variables(&prepared)["grace_period"], "10s500ms");
        let pod = prepared.workers.spec.unwrap().template.spec.unwrap();
        assert_eq!(pod.termination_grace_period_seconds, Some(16));
    }

    #[test]
    fn no_two_queues_select_the_same_pods() {
        let select = |name: &str| {
            let workers = prepared(&fixtures::queue(name), &installation()).workers;
            let spec = workers.spec.unwrap();
            let pods = spec.template.metadata.unwrap().labels.unwrap();
            (spec.selector.match_labels.unwrap(), pods)
        };
        let ((selector, pods), (_, others)) = (select("a"), select("b"));
        let selects = |pods: &BTreeMap<String, String>| selector.iter().all(|(k, v)| pods.get(k) == Some(v));
        assert!(selects(&pods) && !selects(&others));
    }

    #[test]
    fn the_fingerprint_follows_what_is_wanted() {
        let of = |queue: &AsyncQueue| prepared(queue, &installation()).workers.metadata.annotations;
        assert_eq!(of(&sample()), of(&sample()));
        assert_ne!(of(&sample()), of(&fixtures::queue("slow-queue")));
    }
}
