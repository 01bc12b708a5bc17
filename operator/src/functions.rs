//! Finds the functions and the queues that they name: an index of what the watches have seen, and
//! the directory that follows from it. Pure.
//!
//! A function is one of these:
//! - an `OpenFaaS` Function
//! - a Deployment whose pods have the label `faas_function`, however it was deployed
//! - any Service with the annotation `com.openfaas.queue`
//!
//! Its queue is the value of this annotation in the Function's spec, on the Deployment's pods,
//! where `OpenFaaS` copies it, or on the Service.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use asyncqueue::{
    FunctionName, QueueName,
    directory::{Directory, FunctionEntry, QueueEntry},
    function_namespaces::{FunctionNamespaces, NamespaceRefused},
    retry::RetryOverrides,
};
use k8s_openapi::{
    api::core::v1::{ObjectReference, Service, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};
use kube::{Resource, ResourceExt};

use crate::{
    cache::deployment::{Pods, Workload},
    crd::AsyncQueue,
    labels::{FUNCTION_LABEL, QUEUE_ANNOTATION},
    nats::queue_spec::queue_spec,
};

pub(crate) mod openfaas;
pub(crate) mod publisher;
pub(crate) mod unknown;

/// The port of `OpenFaaS` functions. A function on another port needs a URL in the directory.
const DEFAULT_PORT: i32 = 8080;

/// The `clusterIP` of a headless Service. Its name resolves to its pods, and its ports are not
/// translated.
pub(crate) const HEADLESS: &str = "None";

/// A function, as its objects describe it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Function {
    /// The queue that it names, as it is written.
    pub(crate) queue: Option<String>,
    /// Its base URL, if it differs from the one that follows from its name.
    pub(crate) url: Option<String>,
    /// Its retry settings, which override those of its queue.
    pub(crate) retry: RetryOverrides,
    /// Its retry settings that can't be read.
    pub(crate) unread: BTreeSet<String>,
    /// The name of the target port of its headless Service. Only the pods know the number.
    pub(crate) named_target_port: Option<String>,
    /// The object to which events about the function refer.
    pub(crate) object: ObjectReference,
}

/// An annotation of a function that does not take effect.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Fault {
    pub(crate) function: FunctionName,
    pub(crate) why: Why,
}

/// Reason why an annotation does not take effect.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Why {
    /// There is no `AsyncQueue` of this name: calls go to the default queue.
    Missing(String),
    /// For this reason, the functions of the namespace are never called, and the function is not in
    /// the directory.
    Namespace(NamespaceRefused),
    /// This `AsyncQueue`, as `namespace/name`, does not take calls of the function's namespace:
    /// calls go to the default queue.
    NotAdmitted(String),
    /// This queue is on another NATS than the gateway's: calls go to the default queue.
    Elsewhere(String),
    /// This retry setting can't be read: that of the queue applies.
    Unread(String),
    /// Its Service is headless and names its target port, whose number is not known here: the
    /// Service's port is called.
    NamedTargetPort(String),
}

/// All functions, by name.
pub(crate) type Functions = BTreeMap<FunctionName, Function>;

/// The functions of each queue.
pub(crate) type Counts = HashMap<QueueName, Count>;

/// The functions of a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// Number of functions that send their calls to it.
    pub(crate) functions: usize,
    /// The functions that name it and are not admitted.
    pub(crate) refused: Refused,
}

/// Functions that name a queue and are not admitted to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Refused {
    /// Number of these functions.
    pub(crate) count: usize,
    /// The first of these functions, at most [`SHOWN_REFUSED`].
    pub(crate) first: Vec<FunctionName>,
}

/// Maximum number of refused functions that a condition names.
const SHOWN_REFUSED: usize = 3;

/// Decides which functions the queues admit.
#[derive(Clone, Debug)]
pub(crate) struct Admission<'a> {
    namespaces: &'a FunctionNamespaces,
    /// The default queue admits all functions: it takes the calls of those that no other queue
    /// takes.
    default_queue: Option<&'a QueueName>,
    /// For each name, the queue that counts.
    queues: HashMap<String, &'a AsyncQueue>,
}

/// Returns the functions among Services, Deployments and Functions. If several objects describe one
/// function, a later kind takes precedence. Its Deployment and its Service are created from the
/// Function, and only a Service has a port.
pub(crate) fn index<'a>(
    services: impl IntoIterator<Item = &'a Service>,
    deployments: impl IntoIterator<Item = &'a Workload>,
    functions: impl IntoIterator<Item = &'a openfaas::Function>,
) -> Functions {
    let services = services.into_iter().filter_map(from_service);
    let deployments = deployments.into_iter().filter_map(from_deployment);
    let functions = functions.into_iter().filter_map(from_function);
    let mut index = Functions::new();
    for (name, function) in services.chain(deployments).chain(functions) {
        let function = match index.remove(&name) {
            Some(before) => function.over(before),
            None => function,
        };
        index.insert(name, function);
    }
    index
}

/// Returns the directory of functions and queues. It contains a queue that has its stream, on the
/// NATS of the gateway, and is not being deleted. It contains a function whose namespace may be
/// called.
pub(crate) fn directory<'a>(
    functions: &Functions,
    queues: impl IntoIterator<Item = &'a AsyncQueue>,
    admission: &Admission<'_>,
) -> Directory {
    let functions = functions.iter().filter(|(name, _)| admission.check_namespace(name).is_ok());
    let functions = functions.map(|(name, function)| {
        let queue =
            function.queue.as_ref().filter(|queue| admission.refusing(name, queue).is_none());
        let queue = queue.and_then(|queue| queue.parse().ok());
        let entry =
            FunctionEntry { queue, url: function.url.clone(), retry: function.retry.clone() };
        (name.clone(), entry)
    });
    let queues = queues
        .into_iter()
        .filter(|queue| queue.owns_stream() && queue.spec.nats.url.is_none())
        .filter(|queue| queue.metadata.deletion_timestamp.is_none())
        .filter_map(|queue| queue_spec(queue).ok())
        .map(|spec| {
            let max_payload = spec.limits.max_payload;
            (spec.queue, QueueEntry { stream: spec.stream, subject: spec.subject, max_payload })
        });
    Directory { functions: functions.collect(), queues: queues.collect() }
}

/// Returns how many functions send their calls to each queue, and which are not admitted to the
/// queue that they name.
pub(crate) fn count(
    directory: &Directory,
    default_queue: Option<&QueueName>,
    functions: &Functions,
    admission: &Admission<'_>,
) -> Counts {
    let mut counts = Counts::new();
    for entry in directory.functions.values() {
        let named = entry.queue.as_ref().filter(|queue| directory.queues.contains_key(queue));
        if let Some(queue) = named.or(default_queue) {
            counts.entry(queue.clone()).or_default().functions += 1;
        }
    }
    for (name, function) in functions {
        let refusing =
            function.queue.as_ref().filter(|queue| admission.refusing(name, queue).is_some());
        let Some(queue) = refusing.and_then(|queue| queue.parse().ok()) else { continue };
        let refused = &mut counts.entry(queue).or_default().refused;
        refused.count += 1;
        if refused.first.len() < SHOWN_REFUSED {
            refused.first.push(name.clone());
        }
    }
    counts
}

/// Returns what is wrong with the annotations of functions. A queue that is not ready yet is not a
/// fault.
pub(crate) fn faults<'a>(
    functions: &Functions,
    queues: impl IntoIterator<Item = &'a AsyncQueue>,
    admission: &Admission<'_>,
) -> Vec<Fault> {
    let mut here: HashMap<String, bool> = HashMap::new();
    for queue in queues {
        *here.entry(queue.name_any()).or_default() |= queue.spec.nats.url.is_none();
    }
    let faults = functions.iter().flat_map(|(name, function)| {
        let lost = function.queue.iter().filter_map(|queue| match here.get(queue) {
            Some(true) => admission.refusing(name, queue).map(Why::NotAdmitted),
            Some(false) => Some(Why::Elsewhere(queue.clone())),
            None => Some(Why::Missing(queue.clone())),
        });
        let unread = function.unread.iter().cloned().map(Why::Unread);
        let port = function.named_target_port.clone().map(Why::NamedTargetPort);
        let namespace = admission.check_namespace(name).err().map(Why::Namespace);
        let whys: Vec<Why> = match namespace {
            Some(why) => vec![why],
            None => lost.chain(unread).chain(port).collect(),
        };
        whys.into_iter().map(|why| Fault { function: name.clone(), why })
    });
    faults.collect()
}

// === impl Admission ===

impl<'a> Admission<'a> {
    /// Creates the admission of functions to these queues. Of several queues with one name, the one
    /// that has its stream counts.
    pub(crate) fn new(
        namespaces: &'a FunctionNamespaces,
        default_queue: Option<&'a QueueName>,
        queues: impl IntoIterator<Item = &'a AsyncQueue>,
    ) -> Self {
        let mut by_name: HashMap<String, &AsyncQueue> = HashMap::new();
        for queue in queues {
            let known = by_name.entry(queue.name_any()).or_insert(queue);
            if queue.owns_stream() && !known.owns_stream() {
                *known = queue;
            }
        }
        Self { namespaces, default_queue, queues: by_name }
    }

    /// Returns the queue of this name, as `namespace/name`, if it does not take calls of a
    /// function.
    fn refusing(&self, function: &FunctionName, queue: &str) -> Option<String> {
        if self.default_queue.is_some_and(|default| default.as_str() == queue) {
            return None;
        }
        let queue = self.queues.get(queue).copied()?;
        let (namespace, own) = (function.namespace(), queue.namespace().unwrap_or_default());
        let listed = &queue.spec.functions.namespaces;
        let is_admitted = namespace == own
            || namespace == self.namespaces.default_namespace()
            || listed.iter().any(|name| name == "*" || name == namespace);
        (!is_admitted).then(|| queue.namespaced_name())
    }

    /// Checks whether functions of a namespace are called at all.
    fn check_namespace(&self, function: &FunctionName) -> Result<(), NamespaceRefused> {
        self.namespaces.check_never(function.namespace())
    }
}

// === impl Function ===

impl Function {
    /// Returns these settings, with those of `other` for what is missing.
    fn over(mut self, other: Self) -> Self {
        // Mostly the same, since one is copied from the other.
        self.unread.extend(other.unread);
        Self {
            queue: self.queue.or(other.queue),
            url: self.url.or(other.url),
            retry: self.retry.or(&other.retry),
            unread: self.unread,
            named_target_port: self.named_target_port.or(other.named_target_port),
            object: self.object,
        }
    }
}

fn from_function(function: &openfaas::Function) -> Option<(FunctionName, Function)> {
    let spec = &function.spec;
    let name = spec.name.clone().unwrap_or_else(|| function.name_any());
    let name = FunctionName::new(&name, &function.namespace()?).ok()?;
    Some((name, annotated(spec.annotations.as_ref(), function.object_ref(&()))))
}

fn from_deployment(deployment: &Workload) -> Option<(FunctionName, Function)> {
    let Pods::Function(pods) = &deployment.rest else { return None };
    let name = pods.labels.get(FUNCTION_LABEL)?;
    let name = FunctionName::new(name, &deployment.meta.namespace).ok()?;
    Some((name, annotated(Some(&pods.annotations), deployment.object_ref())))
}

fn from_service(service: &Service) -> Option<(FunctionName, Function)> {
    let annotations = service.annotations();
    annotations.get(QUEUE_ANNOTATION)?;
    let name = FunctionName::new(&service.name_any(), &service.namespace()?).ok()?;
    let (port, named_target_port) = port(service).unzip();
    let url = port.filter(|port| *port != DEFAULT_PORT).map(|port| {
        format!("http://{}.{}.svc.cluster.local:{port}", name.name(), name.namespace())
    });
    let function = annotated(Some(annotations), service.object_ref(&()));
    Some((name, Function { url, named_target_port: named_target_port.flatten(), ..function }))
}

/// Returns a function as the annotations of one of its objects describe it.
fn annotated(annotations: Option<&BTreeMap<String, String>>, object: ObjectReference) -> Function {
    // `kubectl annotate` and block scalars of YAML leave line breaks at the end of values.
    let annotation = |name: &str| Some(annotations?.get(name)?.trim());
    // For a retry setting that can't be read, that of the queue applies, as with OpenFaaS.
    let (retry, unread) = RetryOverrides::from_annotations(annotation);
    Function {
        queue: annotation(QUEUE_ANNOTATION).map(str::to_owned),
        url: None,
        retry,
        unread: unread.into_iter().collect(),
        named_target_port: None,
        object,
    }
}

/// Returns the port to call, and the name of the target port if it has no number. Of several ports,
/// it is that of `OpenFaaS`, or the one with the name `http`, or the first.
fn port(service: &Service) -> Option<(i32, Option<String>)> {
    let spec = service.spec.as_ref()?;
    let ports = spec.ports.as_deref()?;
    let default = ports.iter().find(|port| port.port == DEFAULT_PORT);
    let named = || ports.iter().find(|port| port.name.as_deref() == Some("http"));
    let port = default.or_else(named).or_else(|| ports.first())?;
    Some(if is_headless(spec) { target_port(port) } else { (port.port, None) })
}

fn is_headless(spec: &ServiceSpec) -> bool {
    spec.cluster_ip.as_deref() == Some(HEADLESS)
}

/// Returns the port of the pods: the Service's own if it names no target port, or one without a
/// number.
fn target_port(port: &ServicePort) -> (i32, Option<String>) {
    match &port.target_port {
        None => (port.port, None),
        Some(IntOrString::Int(number)) => (*number, None),
        Some(IntOrString::String(name)) => match name.parse() {
            Ok(number) => (number, None),
            Err(_) => (port.port, Some(name.clone())),
        },
    }
}

#[cfg(test)]
mod tests {
    use asyncqueue::function_namespaces::NamespaceList;

    use super::*;
    use crate::{
        cache::{deployment::PodMeta, watch::Watched},
        crd::Size,
        fixtures,
    };

    fn named(name: &str) -> FunctionName {
        FunctionName::new(name, "openfaas-fn").unwrap()
    }

    fn namespaces() -> FunctionNamespaces {
        let platform = Some("openfaas".to_owned());
        FunctionNamespaces::new("openfaas-fn".to_owned(), NamespaceList::default(), platform)
            .unwrap()
    }

    fn directory_of(functions: &Functions, queues: &[AsyncQueue]) -> Directory {
        directory(functions, queues, &Admission::new(&namespaces(), None, queues))
    }

    fn faults_of(functions: &Functions, queues: &[AsyncQueue]) -> Vec<Fault> {
        faults(functions, queues, &Admission::new(&namespaces(), None, queues))
    }

    fn counts_of(
        functions: &Functions,
        queues: &[AsyncQueue],
        default: Option<&QueueName>,
    ) -> Counts {
        let (namespaces, directory) = (namespaces(), directory_of(functions, queues));
        count(&directory, default, functions, &Admission::new(&namespaces, default, queues))
    }

    fn entry(functions: &Functions, name: &str) -> FunctionEntry {
        directory_of(functions, &[]).functions[&named(name)].clone()
    }

    #[test]
    fn a_deployment_with_the_label_is_a_function_and_others_are_not() {
        let mut other = fixtures::deployment("web", None);
        other.spec.template.metadata = PodMeta::default();
        let deployments = [
            fixtures::function("slow", Some("slow-queue")),
            fixtures::function("fast", None),
            Workload::of(other),
        ];
        let functions = index([], &deployments, []);
        assert_eq!(functions.len(), 2);
        let slow = FunctionEntry {
            queue: Some("slow-queue".parse().unwrap()),
            ..FunctionEntry::default()
        };
        assert_eq!(entry(&functions, "slow"), slow);
        assert_eq!(entry(&functions, "fast"), FunctionEntry::default());
    }

    #[test]
    fn an_annotation_on_the_deployment_itself_does_not_count() {
        let mut deployment = fixtures::deployment("fast", None);
        deployment.annotations_mut().insert(QUEUE_ANNOTATION.to_owned(), "slow-queue".to_owned());
        assert_eq!(entry(&index([], [&Workload::of(deployment)], []), "fast").queue, None);
    }

    #[test]
    fn a_service_with_the_annotation_is_a_function_of_its_own_port() {
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
            assert_eq!(faults_of(&functions, &queues), [], "{written:?}");
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
            // What the operator keeps of a Service gives the same result.
            for service in [service.clone(), Service::of(service)] {
                let functions = index([&service], [], []);
                let url = port.map(|port| format!("http://f.openfaas-fn.svc.cluster.local:{port}"));
                assert_eq!(entry(&functions, "f").url, url, "{case:?}");
                let expected = named.map(|name| Why::NamedTargetPort(name.to_owned()));
                let whys = faults_of(&functions, &[fixtures::owner("q")])
                    .into_iter()
                    .map(|fault| fault.why);
                assert_eq!(whys.collect::<Vec<_>>(), Vec::from_iter(expected), "{case:?}");
            }
        }
        // A cluster IP translates the port.
        let mut service = headless(80, number(3000));
        service.spec.as_mut().unwrap().cluster_ip = Some("10.43.0.7".to_owned());
        let url = entry(&index([&service], [], []), "f").url.unwrap();
        assert!(url.ends_with(":80"), "{url}");
    }

    #[test]
    fn where_both_exist_the_pods_name_the_queue_and_the_service_the_port() {
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
    fn a_function_of_openfaas_needs_no_deployment_and_is_called_what_its_spec_says() {
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
    fn a_function_of_openfaas_has_the_last_word_over_what_is_made_from_it() {
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
    fn what_a_function_says_of_its_retries_is_in_the_directory() {
        let mut deployment = fixtures::deployment("f", None);
        let annotations = &mut deployment.spec.template.metadata.annotations;
        annotations.insert(asyncqueue::retry::ATTEMPTS.to_owned(), "3".to_owned());
        annotations.insert(asyncqueue::retry::CODES.to_owned(), "what?".to_owned());
        let functions = index([], [&Workload::of(deployment)], []);
        let retry = entry(&functions, "f").retry;
        assert_eq!((retry.attempts, retry.codes), (Some(3), None));
        // A setting that can't be read is reported as a fault.
        let why = Why::Unread("com.openfaas.retry.codes `what?`".to_owned());
        assert_eq!(faults_of(&functions, &[]), [Fault { function: named("f"), why }]);
    }

    /// Returns a Service in a namespace that names a queue.
    fn service_in(namespace: &str, queue: &str) -> Service {
        let mut service = fixtures::service("f", Some(queue), 8080);
        service.metadata.namespace = Some(namespace.to_owned());
        service
    }

    #[test]
    fn a_queue_takes_the_functions_of_its_namespaces_and_refuses_others() {
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
            let faults = faults_of(&functions, &queues);
            assert!(
                faults
                    .iter()
                    .all(|fault| fault.why == Why::NotAdmitted("team-a/payroll".to_owned()))
            );
            let count = counts_of(&functions, &queues, None)[&name].clone();
            let refused = functions.len() - admitted.len();
            assert_eq!((count.functions, count.refused.count), (admitted.len(), refused));
            assert_eq!((count.refused.first.len(), faults.len()), (refused, refused));
        };
        check(&queue, &["team-a", "openfaas-fn"]);
        queue.spec.functions.namespaces = vec!["team-b".to_owned()];
        check(&queue, &["team-a", "openfaas-fn", "team-b"]);
        queue.spec.functions.namespaces = vec!["*".to_owned()];
        check(&queue, &["team-a", "openfaas-fn", "team-b", "team-c"]);
    }

    #[test]
    fn the_default_queue_admits_all() {
        let functions = index(&[service_in("team-b", "faas-request")], [], []);
        let queues = [fixtures::owner("faas-request")];
        let (namespaces, default) = (namespaces(), "faas-request".parse().unwrap());
        let admission = Admission::new(&namespaces, Some(&default), &queues);
        assert!(
            directory(&functions, &queues, &admission)
                .functions
                .values()
                .all(|f| f.queue.is_some())
        );
        assert_eq!(faults(&functions, &queues, &admission), []);
    }

    #[test]
    fn of_two_queues_of_a_name_the_one_with_the_stream_admits() {
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
    fn what_runs_where_the_platform_does_is_no_function() {
        let services = ["openfaas", "kube-system"].map(|namespace| service_in(namespace, "mine"));
        let functions = index(&services, [], []);
        let queues = [fixtures::owner("mine")];
        assert!(directory_of(&functions, &queues).functions.is_empty());
        let faults = faults_of(&functions, &queues);
        assert!(
            matches!(&faults[..], [a, b] if [a, b].iter().all(|f| matches!(f.why, Why::Namespace(_))))
        );
    }

    #[test]
    fn a_queue_is_in_the_directory_while_it_has_its_stream_here() {
        let mut elsewhere = fixtures::owner("elsewhere");
        elsewhere.spec.nats.url = Some("nats://elsewhere".to_owned());
        let mut going = fixtures::owner("going");
        going.metadata.deletion_timestamp = Some(fixtures::second(300));
        let mut renamed = fixtures::owner("renamed");
        renamed.spec.stream.subject = Some("jobs".to_owned());
        renamed.spec.limits.max_payload = Some(Size(64 << 10));
        let queues =
            [fixtures::owner("mine"), fixtures::queue("not-yet"), elsewhere, going, renamed];
        let queues = directory_of(&Functions::new(), &queues).queues;
        let limited =
            QueueEntry { max_payload: Some(64 << 10), ..QueueEntry::new("renamed", "jobs") };
        let expected = [("mine", QueueEntry::new("mine", "mine")), ("renamed", limited)];
        assert_eq!(queues, expected.map(|(name, entry)| (name.parse().unwrap(), entry)).into());
    }

    #[test]
    fn functions_are_counted_where_their_calls_go() {
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
        let of = |functions| Count { functions, refused: Refused::default() };
        assert_eq!(counts, [("mine".parse().unwrap(), of(2)), (default, of(3))].into());
        assert_eq!(counts_of(&functions, &queues, None).len(), 1);
    }

    #[test]
    fn a_function_is_lost_if_the_gateway_can_not_reach_its_queue_and_not_while_that_gets_ready() {
        let deployments = [
            fixtures::function("a", Some("not-yet")),
            fixtures::function("b", Some("nowhere")),
            fixtures::function("c", None),
            fixtures::function("d", Some("elsewhere")),
        ];
        let mut elsewhere = fixtures::owner("elsewhere");
        elsewhere.spec.nats.url = Some("nats://elsewhere".to_owned());
        let faults =
            faults_of(&index([], &deployments, []), &[fixtures::queue("not-yet"), elsewhere]);
        let fault = |function: &str, why| Fault { function: named(function), why };
        let expected = [
            fault("b", Why::Missing("nowhere".to_owned())),
            fault("d", Why::Elsewhere("elsewhere".to_owned())),
        ];
        assert_eq!(faults, expected);
    }
}
