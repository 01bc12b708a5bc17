use std::{collections::BTreeSet, sync::Arc, time::Duration};

use asyncqueue::{
    GoDuration,
    function_namespaces::NamespaceList,
    retry::{Backoff, Jitter},
};
use asyncqueue_runtime::settings::{LogEncoding, NatsSettings, Optional};
use k8s_openapi::api::core::v1::{
    EnvVar, LocalObjectReference, PodSpec, Toleration, TopologySpreadConstraint,
};

use super::*;
use crate::{
    cache::deployment::CachedDeployment,
    controller::{dereference::Ownership, validate::validate},
    crd::{
        AsyncQueue, CallbackSpec, PerFunctionSpec, PullPolicy, RateSpec, SecretKey,
        operator_variables,
    },
    fixtures,
    labels::{RESERVED_LABELS, REVISION_ANNOTATION},
    nats::allowed_streams::AllowedStreams,
    pods::revision::Revision,
};

fn defaults() -> WorkerDefaults {
    WorkerDefaults {
        nats: NatsSettings::from_url("nats://nats.openfaas:4222"),
        nats_credentials: None,
        nats_ca: None,
        nats_tls_cert: None,
        nats_tls_key: None,
        user_id: Some(65_532),
        worker_image: "asyncqueue:test".to_owned(),
        is_own_image: true,
        image_pull_secrets: vec![LocalObjectReference { name: "registry".to_owned() }],
        function_namespace: "openfaas-fn".to_owned(),
        function_namespaces: NamespaceList::default(),
        platform_namespace: Some("openfaas".to_owned()),
        gateway_url: None,
        allowed_streams: AllowedStreams::default(),
        log_encoding: LogEncoding::Json,
    }
}

fn desired(queue: &AsyncQueue, defaults: &WorkerDefaults) -> DesiredObjects {
    build(&validate(queue, &fixtures::dereferenced()).unwrap(), defaults)
}

fn variables(desired: &DesiredObjects) -> BTreeMap<&str, &str> {
    let pod = desired.deployment.spec.as_ref().unwrap().template.spec.as_ref().unwrap();
    let variables = pod.containers[0].env.as_ref().unwrap().iter();
    variables.map(|variable| (&*variable.name, variable.value.as_deref().unwrap())).collect()
}

/// Returns a queue with no field at its default.
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
fn the_deployment_is_the_golden_one() {
    let mut workers = desired(&sample(), &defaults()).deployment;
    let template = workers.spec.as_mut().unwrap().template.metadata.as_mut().unwrap();
    let revision = template.annotations.as_mut().unwrap().get_mut(REVISION_ANNOTATION).unwrap();
    assert!(revision.parse::<Revision>().is_ok(), "{revision}");
    *revision = "revision".to_owned();
    let actual = serde_saphyr::to_string(&workers).unwrap();
    assert!(
        actual == include_str!("golden.yaml"),
        "if this is the desired Deployment, write it to golden.yaml:\n{actual}"
    );
}

#[test]
fn pull_secrets_of_a_queue_replace_those_of_the_installation() {
    let secrets = |queue: &AsyncQueue, defaults: &WorkerDefaults| {
        let pod = desired(queue, defaults).deployment.spec.unwrap().template.spec.unwrap();
        pod.image_pull_secrets
            .map(|secrets| secrets.into_iter().map(|secret| secret.name).collect::<Vec<_>>())
    };
    let mut queue = sample();
    assert_eq!(secrets(&queue, &defaults()), Some(vec!["registry".to_owned()]));
    queue.spec.worker.image_pull_secrets = vec![LocalObjectReference { name: "own".to_owned() }];
    assert_eq!(secrets(&queue, &defaults()), Some(vec!["own".to_owned()]));
    let none = WorkerDefaults { image_pull_secrets: Vec::new(), ..defaults() };
    assert_eq!(secrets(&sample(), &none), None);
}

#[test]
fn the_stream_is_the_one_of_the_spec() {
    let queue = desired(&sample(), &defaults()).queue;
    assert_eq!((&*queue.stream, &*queue.subject, &*queue.durable), ("SLOW", "jobs.slow", "slow"));
}

#[test]
fn a_queue_may_have_its_own_image_and_nats() {
    let mut queue = sample();
    queue.spec.worker.image = Some("mine:1".to_owned());
    queue.spec.nats.url = Some("nats://elsewhere".to_owned());
    let desired = desired(&queue, &defaults());
    assert_eq!(variables(&desired)["nats_url"], "nats://elsewhere");
    // The directory is not on that NATS: workers call the functions that the queue admits.
    queue.spec.functions.namespaces = vec!["team-b".to_owned()];
    queue.metadata.namespace = Some("team-a".to_owned());
    let desired = self::desired(&queue, &defaults());
    assert_eq!(variables(&desired)["function_namespaces"], "team-a,team-b");
    let pod = desired.deployment.spec.unwrap().template.spec.unwrap();
    assert_eq!(pod.containers[0].image.as_deref(), Some("mine:1"));
}

#[test]
fn the_defaults_of_workers_are_settings_of_workers() {
    let defaults = WorkerDefaults {
        nats: NatsSettings {
            nats_url: Optional(None),
            nats_host: "nats".to_owned(),
            nats_port: 4333,
            ..NatsSettings::from_url("")
        },
        function_namespace: "fn".to_owned(),
        function_namespaces: "dev,staging".parse().unwrap(),
        platform_namespace: None,
        ..defaults()
    };
    let desired = desired(&sample(), &defaults);
    let variables = variables(&desired);
    assert_eq!((variables["nats_host"], variables["nats_port"]), ("nats", "4333"));
    assert!(!variables.contains_key("nats_url"));
    assert_eq!(variables["function_namespace"], "fn");
    assert_eq!(variables["function_namespaces"], "dev,staging");
    assert!(!variables.contains_key("platform_namespace"));
}

#[test]
fn no_credentials_are_in_a_deployment() {
    let at = |url: &str| NatsSettings::from_url(url);
    let host = |host: &str| NatsSettings {
        nats_url: Optional(None),
        nats_host: host.to_owned(),
        ..NatsSettings::from_url("")
    };
    let nats_credentials = Some("nats/creds".parse::<SecretKey>().unwrap());
    for (nats, variable, expected) in [
        (at("nats://u:s3cret@a:1,tls://s3cret@b"), "nats_url", "nats://a:1,tls://b"),
        (host("nats://u:s3cret@nats"), "nats_host", "nats://nats"),
    ] {
        let defaults =
            WorkerDefaults { nats, nats_credentials: nats_credentials.clone(), ..defaults() };
        let desired = desired(&sample(), &defaults);
        assert_eq!(variables(&desired)[variable], expected);
        let all = serde_json::to_string(&(
            &desired.deployment,
            &desired.service_account,
            &desired.disruption_budget,
        ))
        .unwrap();
        assert!(!all.contains("s3cret"), "{all}");
    }
}

#[test]
fn a_pod_is_killed_after_the_grace_period_of_its_worker() {
    let mut queue = sample();
    queue.spec.timeout = GoDuration(Duration::from_millis(900_500));
    let desired = desired(&queue, &defaults());
    assert_eq!(variables(&desired)["grace_period"], "15m11s");
    let pod = desired.deployment.spec.unwrap().template.spec.unwrap();
    assert_eq!(pod.termination_grace_period_seconds, Some(916));
}

#[test]
fn no_two_queues_select_the_same_pods() {
    let select = |name: &str| {
        let workers = desired(&fixtures::queue(name), &defaults()).deployment;
        let spec = workers.spec.unwrap();
        let pods = spec.template.metadata.unwrap().labels.unwrap();
        (spec.selector.match_labels.unwrap(), pods)
    };
    let ((selector, pods), (_, others)) = (select("a"), select("b"));
    let selects =
        |pods: &BTreeMap<String, String>| selector.iter().all(|(k, v)| pods.get(k) == Some(v));
    assert!(selects(&pods) && !selects(&others));
}

fn pod(queue: &AsyncQueue) -> PodSpec {
    desired(queue, &defaults()).deployment.spec.unwrap().template.spec.unwrap()
}

#[test]
fn fields_of_the_spec_are_settings_of_workers() {
    let mut queue = fixtures::queue("q");
    // This image may be of a version that knows only the variables.
    queue.spec.worker.image = Some("asyncqueue:last".to_owned());
    queue.spec.max_inflight = 4;
    queue.spec.concurrency = Some(20);
    queue.spec.rate = Some(RateSpec { per_second: 10, burst: Some(30) });
    queue.spec.per_function = Some(PerFunctionSpec { max_inflight: Some(7) });
    queue.spec.timeout = GoDuration(Duration::from_secs(120));
    queue.spec.retry.max_attempts = 3;
    queue.spec.retry.min_backoff = GoDuration(Duration::from_secs(1));
    queue.spec.retry.max_backoff = GoDuration(Duration::from_secs(90));
    queue.spec.retry.backoff = Backoff::Static;
    queue.spec.retry.jitter = Jitter::None;
    queue.spec.retry.status_codes = vec![429, 503];
    queue.spec.dead_letter.enabled = false;
    queue.spec.callback.timeout = GoDuration(Duration::from_secs(7));
    queue.spec.callback.max_attempts = 8;
    queue.spec.callback.allowed_hosts = vec!["a".to_owned(), "*.b".to_owned()];
    queue.spec.verbose = true;
    let desired = desired(&queue, &defaults());
    let variables = variables(&desired);
    for (name, value) in [
        ("max_inflight", "4"),
        ("concurrency", "20"),
        ("rate_per_second", "10"),
        ("rate_burst", "30"),
        ("function_max_inflight", "7"),
        ("upstream_timeout", "2m"),
        ("max_retry_attempts", "3"),
        ("initial_retry_wait", "1s"),
        ("max_retry_wait", "1m30s"),
        ("backoff", "static"),
        ("retry_jitter", "none"),
        ("retry_http_codes", "429,503"),
        ("dead_letters", "false"),
        ("callback_timeout", "7s"),
        ("callback_max_attempts", "8"),
        ("callback_allowed_hosts", "a,*.b"),
        ("write_debug", "true"),
    ] {
        assert_eq!(variables[name], value, "{name}");
    }
}

#[test]
fn live_settings_are_not_in_the_pod_template() {
    let mut queue = fixtures::queue("q");
    let before = desired(&queue, &defaults());
    assert_eq!(variables(&before)["wait_for_settings"], "true");
    queue.spec.max_inflight = 9;
    queue.spec.concurrency = Some(20);
    queue.spec.rate = Some(RateSpec { per_second: 10, burst: None });
    queue.spec.per_function = Some(PerFunctionSpec { max_inflight: Some(7) });
    queue.spec.retry.max_attempts = 3;
    queue.spec.retry.status_codes = vec![503];
    // With the default grace period, up to 4m45s fit.
    queue.spec.timeout = GoDuration(Duration::from_secs(285));
    assert_eq!(desired(&queue, &defaults()), before);
    queue.spec.timeout = GoDuration(Duration::from_secs(286));
    assert_ne!(desired(&queue, &defaults()), before);
    // Where workers can't follow the directory, a change is a new template.
    for change in [
        |queue: &mut AsyncQueue| queue.spec.worker.image = Some("mine:1".to_owned()),
        |queue: &mut AsyncQueue| queue.spec.nats.url = Some("nats://elsewhere".to_owned()),
    ] {
        let mut queue = fixtures::queue("q");
        change(&mut queue);
        let before = desired(&queue, &defaults());
        assert!(!variables(&before).contains_key("wait_for_settings"));
        queue.spec.max_inflight = 9;
        assert_ne!(desired(&queue, &defaults()), before);
    }
    let defaults = WorkerDefaults { is_own_image: false, ..defaults() };
    assert_eq!(variables(&desired(&fixtures::queue("q"), &defaults))["max_inflight"], "1");
}

#[test]
fn pods_that_have_more_time_than_needed_are_kept() {
    let mut queue = fixtures::queue("q");
    queue.spec.timeout = GoDuration(Duration::from_secs(900));
    let before = desired(&queue, &defaults());
    let mut dereferenced = fixtures::dereferenced();
    let live = CachedDeployment::from_workers(&before.deployment);
    dereferenced.objects.deployment = Ownership::Owned(Arc::new(live));
    queue.spec.timeout = GoDuration(Duration::from_secs(60));
    let kept = build(&validate(&queue, &dereferenced).unwrap(), &defaults());
    assert_eq!(kept.deployment, before.deployment);
    queue.spec.worker.termination_grace_period = Some(GoDuration(Duration::from_secs(90)));
    let own = build(&validate(&queue, &dereferenced).unwrap(), &defaults());
    let pod = own.deployment.spec.unwrap().template.spec.unwrap();
    assert_eq!(pod.termination_grace_period_seconds, Some(90));
}

#[test]
fn every_variable_of_the_operator_is_reserved() {
    let mut queue = sample();
    let key = SecretKey { name: "s".to_owned(), key: "k".to_owned() };
    queue.spec.nats.credentials_secret_ref = Some(key.clone());
    queue.spec.nats.ca_secret_ref = Some(key.clone());
    queue.spec.callback.signing_secret_ref = Some(key.clone());
    queue.spec.callback.ca_secret_ref = Some(key);
    for name in variables(&desired(&queue, &defaults())).keys() {
        assert!(operator_variables().contains(name), "{name} can be set by worker.env");
    }
    queue.spec.worker.image = Some("mine:1".to_owned());
    let desired = desired(&queue, &defaults());
    for name in variables(&desired).keys() {
        assert!(operator_variables().contains(name), "{name} can be set by worker.env");
    }
    for name in desired.deployment.spec.unwrap().template.metadata.unwrap().labels.unwrap().keys() {
        assert!(RESERVED_LABELS.contains(&&**name), "{name} can be set by worker.podLabels");
    }
}

#[test]
fn default_credentials_apply_unless_the_queue_has_its_own() {
    let key = |name: &str| Some(SecretKey { name: name.to_owned(), key: "k".to_owned() });
    let defaults =
        WorkerDefaults { nats_credentials: key("common"), nats_ca: key("common-ca"), ..defaults() };
    let mounted = |change: fn(&mut AsyncQueue)| {
        let mut queue = sample();
        change(&mut queue);
        let pod = desired(&queue, &defaults).deployment.spec.unwrap().template.spec.unwrap();
        let volumes = pod.volumes.unwrap_or_default().into_iter();
        volumes.map(|volume| volume.secret.unwrap().secret_name.unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(mounted(|_| {}), ["common", "common-ca"]);
    let own = |queue: &mut AsyncQueue| {
        let key = SecretKey { name: "own".to_owned(), key: "k".to_owned() };
        queue.spec.nats.credentials_secret_ref = Some(key);
    };
    assert_eq!(mounted(own), ["own", "common-ca"]);
    let elsewhere =
        |queue: &mut AsyncQueue| queue.spec.nats.url = Some("nats://elsewhere".to_owned());
    assert!(mounted(elsewhere).is_empty());
}

#[test]
fn secrets_are_mounted_and_their_paths_are_settings() {
    assert_eq!(pod(&fixtures::queue("q")).volumes, None);
    let key = SecretKey { name: "webhooks".to_owned(), key: "secrets".to_owned() };
    let signing = CallbackSpec { signing_secret_ref: Some(key.clone()), ..CallbackSpec::default() };
    let authority = CallbackSpec { ca_secret_ref: Some(key), ..CallbackSpec::default() };
    for (callback, variable) in
        [(signing, "callback_signing_secret_file"), (authority, "callback_ca_file")]
    {
        let mut queue = fixtures::queue("q");
        *queue.spec.callback = callback;
        let desired = desired(&queue, &defaults());
        let file = variables(&desired)[variable];
        let pod = pod(&queue);
        let mount = &pod.containers[0].volume_mounts.as_ref().unwrap()[0];
        let volume = &pod.volumes.as_ref().unwrap()[0];
        let secret = volume.secret.as_ref().unwrap();
        let item = &secret.items.as_ref().unwrap()[0];
        assert_eq!((&volume.name, secret.secret_name.as_deref()), (&mount.name, Some("webhooks")));
        assert_eq!(item.key, "secrets");
        assert_eq!(file, format!("{}/{}", mount.mount_path, item.path));
    }
}

#[test]
fn an_object_has_all_reserved_labels() {
    let labels = desired(&sample(), &defaults()).deployment.metadata.labels.unwrap();
    assert_eq!(
        labels.keys().collect::<BTreeSet<_>>(),
        RESERVED_LABELS.map(str::to_owned).iter().collect()
    );
}

#[test]
fn pod_fields_of_the_spec_keep_the_operators_labels() {
    let mut queue = fixtures::queue("q");
    let text = |text: &str| text.to_owned();
    queue.spec.worker.pod_labels = string_map([("team", "a"), (QUEUE_LABEL, "another")]);
    queue.spec.worker.pod_annotations =
        string_map([("prometheus.io/scrape", "false"), ("note", "b")]);
    queue.spec.worker.node_selector = string_map([("disk", "ssd")]);
    queue.spec.worker.tolerations =
        vec![Toleration { key: Some(text("queues")), ..Toleration::default() }];
    queue.spec.worker.priority_class_name = Some(text("high"));
    queue.spec.worker.env =
        vec![EnvVar { name: text("RUST_LOG"), value: Some(text("debug")), ..EnvVar::default() }];
    let desired = desired(&queue, &defaults());
    assert_eq!(variables(&desired)["RUST_LOG"], "debug");
    let template = desired.deployment.spec.unwrap().template;
    let meta = template.metadata.unwrap();
    let labels = meta.labels.unwrap();
    assert_eq!((&*labels["team"], &*labels[QUEUE_LABEL]), ("a", "q"));
    assert_eq!(meta.annotations.unwrap()["prometheus.io/scrape"], "false");
    let pod = template.spec.unwrap();
    assert_eq!(pod.node_selector.unwrap()["disk"], "ssd");
    assert_eq!(pod.tolerations.unwrap()[0].key.as_deref(), Some("queues"));
    assert_eq!(pod.priority_class_name.as_deref(), Some("high"));
}

#[test]
fn workers_are_spread_over_nodes_by_default() {
    let mut queue = fixtures::queue("q");
    let spread = |queue: &AsyncQueue| pod(queue).topology_spread_constraints.unwrap_or_default();
    assert_eq!(spread(&queue)[0].topology_key, "kubernetes.io/hostname");
    queue.spec.worker.topology_spread_constraints = Some(vec![]);
    assert_eq!(spread(&queue), []);
    let zones = TopologySpreadConstraint { topology_key: "zone".to_owned(), ..Default::default() };
    queue.spec.worker.topology_spread_constraints = Some(vec![zones]);
    let selected = spread(&queue)[0].label_selector.clone().unwrap().match_labels.unwrap();
    assert_eq!(selected[QUEUE_LABEL], "q");
}

#[test]
fn more_than_one_worker_is_drained_one_at_a_time() {
    let mut queue = fixtures::queue("q");
    assert_eq!(desired(&queue, &defaults()).disruption_budget, None);
    queue.spec.replicas = 2;
    let budget = desired(&queue, &defaults()).disruption_budget.unwrap();
    assert_eq!(budget.spec.unwrap().selector.unwrap().match_labels.unwrap()[QUEUE_LABEL], "q");
}

#[test]
fn workers_have_their_own_service_account_by_default() {
    let mut queue = fixtures::queue("q");
    let account = desired(&queue, &defaults()).service_account.unwrap();
    assert_eq!(account.metadata.name, pod(&queue).service_account_name);
    assert_eq!(account.automount_service_account_token, Some(false));
    queue.spec.worker.service_account_name = Some("mine".to_owned());
    assert_eq!(desired(&queue, &defaults()).service_account, None);
    assert_eq!(pod(&queue).service_account_name.as_deref(), Some("mine"));
}

#[test]
fn another_template_has_another_revision() {
    let revision =
        |queue: &AsyncQueue| Revision::of(&desired(queue, &defaults()).deployment).unwrap();
    let (mut queue, first) = (sample(), revision(&sample()));
    assert_eq!(revision(&queue), first);
    queue.spec.replicas += 1;
    assert_eq!(revision(&queue), first, "more workers are of the same revision");
    queue.spec.worker.image = Some("other:1".to_owned());
    assert_ne!(revision(&queue), first);
    // An annotation of the spec does not replace it.
    queue.spec.worker.pod_annotations = [(REVISION_ANNOTATION.to_owned(), "x".to_owned())].into();
    assert_ne!(revision(&queue), first);
}

#[test]
fn workers_have_the_client_certificate_of_the_installation() {
    let key = |key: &str| Some(SecretKey { name: "nats".to_owned(), key: key.to_owned() });
    let defaults = WorkerDefaults {
        nats_tls_cert: key("tls.crt"),
        nats_tls_key: key("tls.key"),
        ..defaults()
    };
    let mut queue = sample();
    let with_both = desired(&queue, &defaults);
    let files = variables(&with_both);
    assert_eq!(files["nats_tls_cert_file"], "/run/secrets/asyncqueue/nats-tls-cert/value");
    assert_eq!(files["nats_tls_key_file"], "/run/secrets/asyncqueue/nats-tls-key/value");
    queue.spec.nats.url = Some("nats://elsewhere".to_owned());
    assert!(!variables(&desired(&queue, &defaults)).contains_key("nats_tls_cert_file"));
}

#[test]
fn the_user_of_workers_may_be_left_to_the_cluster() {
    let context = |user_id: Option<i64>| {
        let defaults = WorkerDefaults { user_id, ..defaults() };
        let deployment = desired(&sample(), &defaults).deployment;
        deployment.spec.unwrap().template.spec.unwrap().security_context.unwrap()
    };
    let chosen = context(None);
    assert_eq!((chosen.run_as_user, chosen.run_as_group), (None, None));
    assert_eq!(chosen.run_as_non_root, Some(true));
    assert_eq!(context(Some(7)).run_as_group, Some(7));
}
