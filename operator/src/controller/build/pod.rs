//! Builds the pod of a worker, which a namespace of the level `restricted` admits.

use std::collections::BTreeMap;

use asyncqueue_runtime::contract::WORKER_PORT;
use k8s_openapi::{
    api::core::v1::{
        Capabilities, Container, ContainerPort, HTTPGetAction, LocalObjectReference,
        PodSecurityContext, PodSpec, PodTemplateSpec, Probe, SeccompProfile, SecurityContext,
        TopologySpreadConstraint,
    },
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};

use super::{env_vars, label_selector, labels, secrets, string_map};
use crate::{
    controller::validate::ValidatedQueue,
    crd::PullPolicy,
    pods::{WORKER_CONTAINER, revision},
    worker_defaults::WorkerDefaults,
};

/// Returns the template of a worker's pod.
pub(super) fn template(queue: &ValidatedQueue, defaults: &WorkerDefaults) -> PodTemplateSpec {
    // The operator's labels come last, so that no user can detach the workers from their
    // Deployment.
    let mut pod_labels = queue.worker.pod_labels.clone();
    pod_labels.extend(labels(&queue.queue.queue));
    let mut annotations = scrape_annotations();
    annotations.extend(queue.worker.pod_annotations.clone());
    revision::with_revision(PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(pod_labels),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        }),
        spec: Some(spec(queue, defaults)),
    })
}

fn spec(queue: &ValidatedQueue, defaults: &WorkerDefaults) -> PodSpec {
    let worker = &queue.worker;
    let account = worker
        .service_account_name
        .clone()
        .unwrap_or_else(|| queue.queue.queue.worker_deployment());
    PodSpec {
        service_account_name: Some(account),
        // A worker talks to NATS and to functions, never to the API server.
        automount_service_account_token: Some(false),
        // Kubernetes' variable for a Service of the namespace could be taken for a setting.
        enable_service_links: Some(false),
        termination_grace_period_seconds: queue.grace.seconds(),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: defaults.user_id,
            run_as_group: defaults.user_id,
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                ..SeccompProfile::default()
            }),
            ..PodSecurityContext::default()
        }),
        containers: vec![container(queue, defaults)],
        volumes: non_empty(
            secrets::mounted(queue, defaults).iter().map(secrets::MountedSecret::volume).collect(),
        ),
        image_pull_secrets: non_empty(pull_secrets(queue, defaults)),
        node_selector: Some(worker.node_selector.clone()).filter(|labels| !labels.is_empty()),
        tolerations: non_empty(worker.tolerations.clone()),
        affinity: worker.affinity.clone(),
        topology_spread_constraints: non_empty(topology_spread_constraints(queue)),
        priority_class_name: worker.priority_class_name.clone(),
        runtime_class_name: worker.runtime_class_name.clone(),
        ..PodSpec::default()
    }
}

/// Returns the pull secrets of the queue, or else those of the defaults. As with a pod and its
/// `ServiceAccount`, they are not merged.
fn pull_secrets(queue: &ValidatedQueue, defaults: &WorkerDefaults) -> Vec<LocalObjectReference> {
    let own = &queue.worker.image_pull_secrets;
    if own.is_empty() { defaults.image_pull_secrets.clone() } else { own.clone() }
}

fn container(queue: &ValidatedQueue, defaults: &WorkerDefaults) -> Container {
    let worker = &queue.worker;
    Container {
        name: WORKER_CONTAINER.to_owned(),
        image: Some(worker.image.as_ref().unwrap_or(&defaults.worker_image).clone()),
        image_pull_policy: Some(pull_policy(worker.image_pull_policy).to_owned()),
        command: Some(vec!["asyncqueue-worker".to_owned()]),
        env: Some(env_vars::env_vars(queue, defaults)),
        ports: Some(vec![ContainerPort {
            name: Some("metrics".to_owned()),
            container_port: WORKER_PORT.into(),
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        }]),
        resources: Some(queue.resources.clone()),
        volume_mounts: non_empty(
            secrets::mounted(queue, defaults).iter().map(secrets::MountedSecret::mount).collect(),
        ),
        liveness_probe: Some(probe("/healthz", 10, 3)),
        readiness_probe: Some(probe("/readyz", 2, 2)),
        // The last lines of the log say why the program ended.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            ..SecurityContext::default()
        }),
        ..Container::default()
    }
}

/// Returns the spread constraints of the spec. By default workers are spread over nodes, so that
/// one failed node does not stop all of them. A worker that can't be spread is scheduled anyway.
fn topology_spread_constraints(queue: &ValidatedQueue) -> Vec<TopologySpreadConstraint> {
    let workers = || Some(label_selector(&queue.queue.queue));
    match &queue.worker.topology_spread_constraints {
        Some(constraints) => constraints
            .iter()
            .map(|constraint| TopologySpreadConstraint {
                label_selector: constraint.label_selector.clone().or_else(workers),
                ..constraint.clone()
            })
            .collect(),
        None => vec![TopologySpreadConstraint {
            max_skew: 1,
            topology_key: "kubernetes.io/hostname".to_owned(),
            when_unsatisfiable: "ScheduleAnyway".to_owned(),
            label_selector: workers(),
            ..TopologySpreadConstraint::default()
        }],
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

fn scrape_annotations() -> BTreeMap<String, String> {
    let port = WORKER_PORT.to_string();
    string_map([
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

/// Returns `None` for an empty list, as the API server stores it.
fn non_empty<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}
