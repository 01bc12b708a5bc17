//! The value sets in `manifests/helm/ci`, installed on the cluster one after the other: operator
//! and gateway come up, the default queue is created and ready, and `helm test` passes.

use serde_json::{Value, json};
use test_support::{
    chart::Example,
    cluster::{
        Namespace, apply, command, installation::Restored, kubectl, nats, prometheus_operator,
        secret,
    },
};

use crate::{
    external_nats,
    helm::{chart, helm_in, image_arguments},
    support::{is_ready, remove_base},
};

const RELEASE: &str = "asyncqueue";

/// The value sets of each run of all tests: objects of other software and network policies, a NATS
/// that asks for most, and two releases in one cluster. All of them are installed by
/// `make test-chart`, which takes minutes.
const SELECTED: [&str; 3] = ["monitoring", "nats-client-certificate", "second-release"];

/// What a value set needs in the cluster, until it is dropped.
#[derive(Debug, Default)]
struct Surroundings {
    /// Values of the test cluster, which does not have all that the value sets name.
    arguments: Vec<String>,
    _secret: Option<Secret>,
    _namespace: Option<Namespace>,
}

/// A Secret in the namespace `openfaas`, until it is dropped.
#[derive(Debug)]
struct Secret(&'static str);

// === impl Surroundings ===

impl Surroundings {
    /// Creates what a value set names and the cluster does not have.
    fn create(example: &Example) -> Self {
        match example.name() {
            "high-availability" => Self {
                arguments: vec!["--set=nats.url=nats://nats.openfaas:4222".to_owned()],
                ..Self::default()
            },
            "monitoring" => {
                prometheus_operator::install_crds();
                Self::default()
            }
            "nats-client-certificate" => {
                let elsewhere = Namespace::create("nats");
                let data = external_nats::start_with_client_certificates(&elsewhere.name);
                Self {
                    arguments: vec![nats_url("tls", &elsewhere)],
                    _secret: Some(Secret::create("nats-tls", &data)),
                    _namespace: Some(elsewhere),
                }
            }
            "nats-credentials" => {
                let elsewhere = Namespace::create("nats");
                let data = external_nats::start(&elsewhere.name);
                Self {
                    _secret: Some(Secret::create("nats", &data)),
                    _namespace: Some(elsewhere),
                    ..Self::default()
                }
            }
            "nats-password" => {
                let elsewhere = Namespace::create("nats");
                let user = "authorization { user: queues, password: secret }";
                nats::start(&elsewhere.name, user, json!({}));
                let data = json!({ "credentials": "queues:secret" });
                Self {
                    arguments: vec![nats_url("nats", &elsewhere)],
                    _secret: Some(Secret::create("nats-login", &data)),
                    _namespace: Some(elsewhere),
                }
            }
            "second-release" => {
                let name = example.namespace().to_owned();
                // It may be on its way out, after another test.
                let _ = kubectl(&["delete", "namespace", &name, "--ignore-not-found"]);
                apply(&format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}}}}}"));
                nats::start(&name, "", json!({}));
                Self { _namespace: Some(Namespace { name }), ..Self::default() }
            }
            _ => Self::default(),
        }
    }
}

// === impl Secret ===

impl Secret {
    fn create(name: &'static str, data: &Value) -> Self {
        apply(&secret("openfaas", name, data));
        Self(name)
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        let _ = command("kubectl").args(["delete", "-n", "openfaas", "secret", self.0]).output();
    }
}

fn nats_url(scheme: &str, namespace: &Namespace) -> String {
    format!("--set=nats.url={scheme}://nats.{}:4222", namespace.name)
}

/// The default queue of a value set.
fn queue_of(example: &Example) -> &'static str {
    if example.name() == "default-queue" { "jobs" } else { "faas-request" }
}

/// Installs a value set, and returns when its default queue is ready and `helm test` has passed.
async fn install(example: &Example, arguments: &[String]) {
    let [name, tag] = image_arguments();
    let (values, chart) = (example.argument(), chart());
    // The CRD stays when a release is removed, and what a failed test left is replaced.
    let install = ["upgrade", "--install", RELEASE, &chart, "--wait", "--take-ownership"];
    let values = [values.as_str(), &name, &tag];
    let arguments = arguments.iter().map(String::as_str);
    let _ = helm_in(
        example.namespace(),
        &install.into_iter().chain(values).chain(arguments).collect::<Vec<_>>(),
    );
    is_ready(example.namespace(), queue_of(example)).await;
    passes_helm_test(example);
}

fn passes_helm_test(example: &Example) {
    let tested = helm_in(example.namespace(), &["test", RELEASE, "--logs"]);
    assert!(tested.contains("is ready"), "{}: {tested}", example.file_name());
}

/// Removes the queue while its stream can be reached, then the release.
fn remove(example: &Example) {
    delete_queue(example.namespace(), queue_of(example));
    let _ = helm_in(example.namespace(), &["uninstall", RELEASE, "--wait"]);
}

fn delete_queue(namespace: &str, name: &str) {
    let _ = kubectl(&["delete", "-n", namespace, "asyncqueue", name, "--timeout=60s"]);
}

/// Installs these value sets, one after the other.
async fn install_each(examples: impl IntoIterator<Item = Example>) {
    let restored = Restored;
    delete_queue("openfaas", "faas-request");
    remove_base();
    for example in examples {
        println!("{}", example.file_name());
        let surroundings = Surroundings::create(&example);
        // The release that installs the CRD and watches other namespaces.
        let first = (example.name() == "second-release").then(|| Example::named("namespaced"));
        if let Some(first) = &first {
            install(first, &[]).await;
        }
        install(&example, &surroundings.arguments).await;
        if let Some(first) = &first {
            passes_helm_test(first);
        }
        remove(&example);
        first.iter().for_each(remove);
    }
    drop(restored);
    is_ready("openfaas", "faas-request").await;
}

#[tokio::test]
async fn three_examples_of_the_chart_pass_helm_test() {
    install_each(SELECTED.map(Example::named)).await;
}

#[tokio::test]
#[ignore = "takes minutes: make test-chart"]
async fn each_example_of_the_chart_passes_helm_test() {
    install_each(Example::all()).await;
}
