//! Tests of the directory that follows from functions and queues.

use asyncqueue::{
    QueueName,
    directory::{
        Directory, FunctionEntry, PerFunction, QueueEntry, QueueSettings, Rate, StoredSettings,
        function_limits,
    },
    function_namespaces::{FunctionNamespaces, NamespaceList},
    lanes::Fairness,
    retry::{Backoff, Jitter, QueueRetry},
};
use k8s_openapi::{api::core::v1::Service, apimachinery::pkg::util::intstr::IntOrString};
use kube::ResourceExt;

use super::{
    admission::Admission,
    directory::{FunctionCounts, QueueFunctions, RefusedFunctions, count, directory},
    issues::{FunctionIssue, IssueKind, find_issues},
    service::HEADLESS,
    sources::FunctionSources,
    *,
};
use crate::{
    cache::{
        deployment::{CachedDeployment, PodMeta},
        watch::{Cacheable, MultiStore},
    },
    crd::{AsyncQueue, AsyncQueueSpec, LimitsSpec, PerFunctionSpec, RateSpec, Size},
    fixtures,
    queue_settings::queue_settings,
};

/// Returns the functions of these objects, with the precedence of their sources.
fn index<'a>(
    services: impl IntoIterator<Item = &'a Service>,
    deployments: impl IntoIterator<Item = &'a CachedDeployment>,
    functions: impl IntoIterator<Item = &'a openfaas::Function>,
) -> FunctionIndex {
    let services = services.into_iter().cloned().map(Cacheable::from_object);
    let functions = functions.into_iter().cloned().map(Cacheable::from_object);
    let sources = FunctionSources::in_order(
        MultiStore::from_objects(services),
        MultiStore::from_objects(deployments.into_iter().cloned()),
        MultiStore::from_objects(functions),
    );
    sources.index()
}

fn named(name: &str) -> FunctionName {
    FunctionName::new(name, "openfaas-fn").unwrap()
}

fn namespaces() -> FunctionNamespaces {
    let platform = Some("openfaas".to_owned());
    FunctionNamespaces::new("openfaas-fn".to_owned(), NamespaceList::default(), platform).unwrap()
}

fn directory_of(functions: &FunctionIndex, queues: &[AsyncQueue]) -> Directory {
    directory(functions, queues, &Admission::new(&namespaces(), None, queues), |_| 90)
}

fn issues_of(functions: &FunctionIndex, queues: &[AsyncQueue]) -> Vec<FunctionIssue> {
    let (namespaces, directory) = (namespaces(), directory_of(functions, queues));
    find_issues(functions, queues, &directory, None, &Admission::new(&namespaces, None, queues))
}

fn counts_of(
    functions: &FunctionIndex,
    queues: &[AsyncQueue],
    default: Option<&QueueName>,
) -> FunctionCounts {
    let (namespaces, directory) = (namespaces(), directory_of(functions, queues));
    count(&directory, default, functions, &Admission::new(&namespaces, default, queues))
}

fn entry(functions: &FunctionIndex, name: &str) -> FunctionEntry {
    directory_of(functions, &[]).functions[&named(name)].clone()
}

#[test]
fn a_deployment_with_the_label_is_a_function() {
    let mut other = fixtures::deployment("web", None);
    other.spec.template.metadata = PodMeta::default();
    let deployments = [
        fixtures::function("slow", Some("slow-queue")),
        fixtures::function("fast", None),
        CachedDeployment::from_object(other),
    ];
    let functions = index([], &deployments, []);
    assert_eq!(functions.len(), 2);
    let slow =
        FunctionEntry { queue: Some("slow-queue".parse().unwrap()), ..FunctionEntry::default() };
    assert_eq!(entry(&functions, "slow"), slow);
    assert_eq!(entry(&functions, "fast"), FunctionEntry::default());
}

#[test]
fn a_deployment_without_replicas_is_a_function_at_zero() {
    for (replicas, expected) in [(None, false), (Some(1), false), (Some(0), true)] {
        let mut deployment = fixtures::deployment("f", Some("slow-queue"));
        deployment.spec.replicas = replicas;
        let deployment = CachedDeployment::from_object(deployment);
        let service = fixtures::service("f", Some("slow-queue"), 3000);
        let function = fixtures::openfaas_function("f", Some("slow-queue"));
        // The other objects of the function do not have the number.
        let functions = index([&service], [&deployment], [&function]);
        assert_eq!(entry(&functions, "f").scaled_to_zero, expected, "{replicas:?}");
    }
}

#[test]
fn annotations_of_the_deployment_itself_are_ignored() {
    let mut deployment = fixtures::deployment("fast", None);
    deployment.annotations_mut().insert(QUEUE_ANNOTATION.to_owned(), "slow-queue".to_owned());
    assert_eq!(
        entry(&index([], [&CachedDeployment::from_object(deployment)], []), "fast").queue,
        None
    );
}

#[test]
fn a_service_with_the_annotation_is_called_on_its_port() {
    let services = [
        fixtures::service("plain", None, 80),
        fixtures::service("usual", Some("q"), 8080),
        fixtures::service("web", Some("q"), 3000),
    ];
    let functions = index(&services, [], []);
    assert_eq!(functions.len(), 2);
    assert_eq!(entry(&functions, "usual").url, None);
    let url = "http://web.openfaas-fn.svc.cluster.local:3000";
    assert_eq!(entry(&functions, "web").url.as_deref(), Some(url));
}

#[test]
fn white_space_around_annotations_is_ignored() {
    for written in ["slow-queue\n", " slow-queue\r\n", "\tslow-queue "] {
        let function = fixtures::openfaas_function("f", Some(written));
        let deployment = fixtures::function("d", Some(written));
        let service = fixtures::service("s", Some(written), 8080);
        let functions = index([&service], [&deployment], [&function]);
        for name in ["f", "d", "s"] {
            let queue = entry(&functions, name).queue;
            assert_eq!(queue.unwrap().as_str(), "slow-queue", "{name}: {written:?}");
        }
        let queues = [fixtures::owner("slow-queue")];
        assert_eq!(issues_of(&functions, &queues), [], "{written:?}");
    }
}

/// Returns a headless Service whose port has this target.
fn headless(port: i32, target: Option<IntOrString>) -> Service {
    let mut service = fixtures::service("f", Some("q"), port);
    let spec = service.spec.as_mut().unwrap();
    spec.cluster_ip = Some(HEADLESS.to_owned());
    spec.ports.as_mut().unwrap()[0].target_port = target;
    service
}

#[test]
fn a_headless_service_is_called_on_its_target_port() {
    let number = |number| Some(IntOrString::Int(number));
    let text = |text: &str| Some(IntOrString::String(text.to_owned()));
    let cases = [
        (headless(80, number(8080)), None, None),
        (headless(80, number(3000)), Some(3000), None),
        (headless(80, text("3000")), Some(3000), None),
        (headless(80, None), Some(80), None),
        (headless(8080, number(9000)), Some(9000), None),
        (headless(80, text("web")), Some(80), Some("web")),
    ];
    for (service, port, named) in cases {
        let case = service.spec.clone();
        let functions = index([&service], [], []);
        let url = port.map(|port| format!("http://f.openfaas-fn.svc.cluster.local:{port}"));
        assert_eq!(entry(&functions, "f").url, url, "{case:?}");
        let expected = named.map(|name| IssueKind::NamedTargetPort(name.to_owned()));
        let kinds =
            issues_of(&functions, &[fixtures::owner("q")]).into_iter().map(|issue| issue.kind);
        assert_eq!(kinds.collect::<Vec<_>>(), Vec::from_iter(expected), "{case:?}");
    }
    // A cluster IP translates the port.
    let mut service = headless(80, number(3000));
    service.spec.as_mut().unwrap().cluster_ip = Some("10.43.0.7".to_owned());
    let url = entry(&index([&service], [], []), "f").url.unwrap();
    assert!(url.ends_with(":80"), "{url}");
}

#[test]
fn pods_name_the_queue_and_the_service_the_port() {
    let deployment = fixtures::function("f", Some("of-pods"));
    let service = fixtures::service("f", Some("of-service"), 80);
    let both = entry(&index([&service], [&deployment], []), "f");
    assert_eq!(both.queue.unwrap().as_str(), "of-pods");
    assert!(both.url.unwrap().ends_with(":80"));
    let unnamed = fixtures::function("f", None);
    let both = entry(&index([&service], [&unnamed], []), "f");
    assert_eq!(both.queue.unwrap().as_str(), "of-service");
}

#[test]
fn an_openfaas_function_is_named_by_its_spec() {
    let mut function = fixtures::openfaas_function("object", Some("q"));
    function.spec.name = Some("f".to_owned());
    // Annotations of the object are not those of the function.
    function.annotations_mut().insert(QUEUE_ANNOTATION.to_owned(), "another".to_owned());
    let functions = index([], [], [&function]);
    assert_eq!(entry(&functions, "f").queue.unwrap().as_str(), "q");
    assert_eq!(functions[&named("f")].object.kind.as_deref(), Some("Function"));
    assert_eq!(functions[&named("f")].object.name.as_deref(), Some("object"));
}

#[test]
fn an_openfaas_function_overrides_its_deployment_and_service() {
    let (service, deployment) =
        (fixtures::service("f", Some("before"), 80), fixtures::function("f", Some("before")));
    let function = fixtures::openfaas_function("f", Some("now"));
    let all = index([&service], [&deployment], [&function]);
    assert_eq!(all.len(), 1);
    let all = entry(&all, "f");
    assert_eq!(all.queue.unwrap().as_str(), "now");
    assert!(all.url.unwrap().ends_with(":80"));
    let silent = fixtures::openfaas_function("f", None);
    let all = entry(&index([&service], [&deployment], [&silent]), "f");
    assert_eq!(all.queue.unwrap().as_str(), "before");
}

#[test]
fn retry_annotations_are_in_the_directory() {
    let mut deployment = fixtures::deployment("f", None);
    let annotations = &mut deployment.spec.template.metadata.annotations;
    annotations.insert(asyncqueue::retry::ATTEMPTS.to_owned(), "3".to_owned());
    annotations.insert(asyncqueue::retry::CODES.to_owned(), "what?".to_owned());
    let functions = index([], [&CachedDeployment::from_object(deployment)], []);
    let retry = entry(&functions, "f").retry;
    assert_eq!((retry.attempts, retry.codes), (Some(3), None));
    // A setting that can't be read is reported as a issue.
    let kind = IssueKind::InvalidAnnotation("com.openfaas.retry.codes `what?`".to_owned());
    assert_eq!(issues_of(&functions, &[]), [FunctionIssue { function: named("f"), kind }]);
}

#[test]
fn limits_of_a_function_need_a_queue_with_lanes() {
    let mut deployment = fixtures::deployment("f", Some("q"));
    let annotations = &mut deployment.spec.template.metadata.annotations;
    annotations.insert(function_limits::MAX_INFLIGHT.to_owned(), "10".to_owned());
    annotations.insert(function_limits::WEIGHT.to_owned(), "heavy".to_owned());
    let functions = index([], [&CachedDeployment::from_object(deployment)], []);
    let limits = entry(&functions, "f").limits;
    assert_eq!((limits.max_inflight, limits.weight), (Some(10), None));
    let issue = |kind| FunctionIssue { function: named("f"), kind };
    let invalid = "asyncqueue.io/weight `heavy` (use 1 to 100)".to_owned();
    let invalid = issue(IssueKind::InvalidAnnotation(invalid));
    let mut queue = fixtures::owner("q");
    let without_lanes = issue(IssueKind::LimitsNeedLanes("q".parse().unwrap()));
    assert_eq!(
        issues_of(&functions, std::slice::from_ref(&queue)),
        [invalid.clone(), without_lanes]
    );
    queue.spec.fairness = Fairness::Function;
    assert_eq!(issues_of(&functions, &[queue]), [invalid]);
}

/// Returns a Service in a namespace that names a queue.
fn service_in(namespace: &str, queue: &str) -> Service {
    let mut service = fixtures::service("f", Some(queue), 8080);
    service.metadata.namespace = Some(namespace.to_owned());
    service
}

#[test]
fn a_queue_admits_the_functions_of_its_namespaces() {
    let mut queue = fixtures::owner("payroll");
    queue.metadata.namespace = Some("team-a".to_owned());
    let services =
        ["team-a", "openfaas-fn", "team-b", "team-c"].map(|ns| service_in(ns, "payroll"));
    let functions = index(&services, [], []);
    let name: QueueName = "payroll".parse().unwrap();
    let check = |queue: &AsyncQueue, admitted: &[&str]| {
        let queues = [queue.clone()];
        let directory = directory_of(&functions, &queues);
        for function in functions.keys() {
            let expected = admitted.contains(&function.namespace()).then(|| name.clone());
            assert_eq!(directory.functions[function].queue, expected, "{function}");
        }
        let issues = issues_of(&functions, &queues);
        assert!(
            issues
                .iter()
                .all(|issue| issue.kind == IssueKind::NotAdmitted("team-a/payroll".to_owned()))
        );
        let count = counts_of(&functions, &queues, None)[&name].clone();
        let refused = functions.len() - admitted.len();
        assert_eq!((count.functions, count.refused.count), (admitted.len(), refused));
        assert_eq!((count.refused.first.len(), issues.len()), (refused, refused));
    };
    check(&queue, &["team-a", "openfaas-fn"]);
    queue.spec.functions.namespaces = vec!["team-b".to_owned()];
    check(&queue, &["team-a", "openfaas-fn", "team-b"]);
    queue.spec.functions.namespaces = vec!["*".to_owned()];
    check(&queue, &["team-a", "openfaas-fn", "team-b", "team-c"]);
}

#[test]
fn the_default_queue_admits_all_functions() {
    let functions = index(&[service_in("team-b", "faas-request")], [], []);
    let queues = [fixtures::owner("faas-request")];
    let (namespaces, default) = (namespaces(), "faas-request".parse().unwrap());
    let admission = Admission::new(&namespaces, Some(&default), &queues);
    let directory = directory(&functions, &queues, &admission, |_| 90);
    assert!(directory.functions.values().all(|f| f.queue.is_some()));
    assert_eq!(find_issues(&functions, &queues, &directory, None, &admission), []);
}

#[test]
fn the_queue_that_owns_the_stream_decides_on_admission() {
    let mut intruder = fixtures::queue("payroll");
    intruder.metadata.namespace = Some("team-b".to_owned());
    let mut owner = fixtures::owner("payroll");
    owner.metadata.namespace = Some("team-a".to_owned());
    let functions = index(&[service_in("team-b", "payroll")], [], []);
    for queues in [[intruder.clone(), owner.clone()], [owner, intruder]] {
        let directory = directory_of(&functions, &queues);
        assert!(directory.functions.values().all(|entry| entry.queue.is_none()));
    }
}

#[test]
fn services_in_platform_namespaces_are_not_functions() {
    let services = ["openfaas", "kube-system"].map(|namespace| service_in(namespace, "mine"));
    let functions = index(&services, [], []);
    let queues = [fixtures::owner("mine")];
    assert!(directory_of(&functions, &queues).functions.is_empty());
    let issues = issues_of(&functions, &queues);
    assert!(
        issues.len() == 2
            && issues.iter().all(|issue| matches!(issue.kind, IssueKind::NamespaceRefused(_)))
    );
}

#[test]
fn a_queue_with_its_stream_is_in_the_directory() {
    let mut elsewhere = fixtures::owner("elsewhere");
    elsewhere.spec.nats.url = Some("nats://elsewhere".to_owned());
    let mut going = fixtures::owner("going");
    going.metadata.deletion_timestamp = Some(fixtures::second(300));
    let mut renamed = fixtures::owner("renamed");
    renamed.spec.stream.subject = Some("jobs".to_owned());
    renamed.spec.limits.max_payload = Some(Size(64 << 10));
    renamed.spec.limits.max_delay = "1h".parse().unwrap();
    renamed.spec.limits.max_age = Some("2h".parse().unwrap());
    let queues = [fixtures::owner("mine"), fixtures::queue("not-yet"), elsewhere, going, renamed];
    let queues = directory_of(&FunctionIndex::new(), &queues).queues;
    let settings = queue_settings(&AsyncQueueSpec::default());
    let settings = Some(StoredSettings::new(&settings).unwrap());
    let entry = |stream, subject| QueueEntry {
        max_delay: Some(LimitsSpec::default().max_delay),
        settings: settings.clone(),
        ..QueueEntry::new(stream, subject)
    };
    let limited = QueueEntry {
        max_payload: Some(64 << 10),
        max_delay: Some("1h".parse().unwrap()),
        max_age: Some("2h".parse().unwrap()),
        ..entry("renamed", "jobs")
    };
    let expected = [("mine", entry("mine", "mine")), ("renamed", limited)];
    assert_eq!(queues, expected.map(|(name, entry)| (name.parse().unwrap(), entry)).into());
}

#[test]
fn settings_of_workers_are_in_the_directory() {
    let mut queue = fixtures::owner("mine");
    queue.spec.max_inflight = 5;
    queue.spec.concurrency = Some(20);
    queue.spec.rate = Some(RateSpec { per_second: 10, burst: None });
    queue.spec.per_function = Some(PerFunctionSpec { max_inflight: Some(7), adaptive: true });
    queue.spec.timeout = "15m".parse().unwrap();
    queue.spec.retry.max_attempts = 3;
    queue.spec.retry.min_backoff = "1s".parse().unwrap();
    queue.spec.retry.max_backoff = "90s".parse().unwrap();
    queue.spec.retry.backoff = Backoff::Static;
    queue.spec.retry.jitter = Jitter::None;
    queue.spec.retry.status_codes = vec![429, 503];
    let directory = directory_of(&FunctionIndex::new(), &[queue]);
    let stored = directory.queues.values().next().unwrap().settings.as_ref().unwrap();
    let retry = QueueRetry {
        max_attempts: 3,
        min_backoff: "1s".parse().unwrap(),
        max_backoff: "90s".parse().unwrap(),
        backoff: Backoff::Static,
        jitter: Jitter::None,
        status_codes: vec![429, 503],
    };
    let settings = QueueSettings {
        max_inflight: Some(5),
        concurrency: Some(20),
        rate: Some(Rate { per_second: 10, burst: None }),
        timeout: Some("15m".parse().unwrap()),
        retry: Some(retry),
        per_function: Some(PerFunction { max_inflight: Some(7), adaptive: true }),
    };
    assert_eq!(stored.read().unwrap(), settings);
}

#[test]
fn functions_are_counted_at_the_queue_of_their_calls() {
    let deployments = [
        fixtures::function("a", Some("mine")),
        fixtures::function("b", Some("mine")),
        fixtures::function("c", Some("nowhere")),
        fixtures::function("d", None),
        fixtures::function("e", Some("Not a queue")),
    ];
    let (functions, queues) = (index([], &deployments, []), [fixtures::owner("mine")]);
    let default: QueueName = "faas-request".parse().unwrap();
    let counts = counts_of(&functions, &queues, Some(&default));
    let of = |functions| QueueFunctions { functions, refused: RefusedFunctions::default() };
    assert_eq!(counts, [("mine".parse().unwrap(), of(2)), (default, of(3))].into());
    assert_eq!(counts_of(&functions, &queues, None).len(), 1);
}

#[test]
fn a_missing_queue_is_an_issue_and_a_new_one_is_not() {
    let deployments = [
        fixtures::function("a", Some("not-yet")),
        fixtures::function("b", Some("nowhere")),
        fixtures::function("c", None),
        fixtures::function("d", Some("elsewhere")),
    ];
    let mut elsewhere = fixtures::owner("elsewhere");
    elsewhere.spec.nats.url = Some("nats://elsewhere".to_owned());
    let issues = issues_of(&index([], &deployments, []), &[fixtures::queue("not-yet"), elsewhere]);
    let issue = |function: &str, kind| FunctionIssue { function: named(function), kind };
    let expected = [
        issue("b", IssueKind::QueueNotFound("nowhere".to_owned())),
        issue("d", IssueKind::QueueOnOtherNats("elsewhere".to_owned())),
    ];
    assert_eq!(issues, expected);
}
