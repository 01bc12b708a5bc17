//! The value sets in `manifests/helm/ci`, installed on the cluster one after the other: operator
//! and gateway come up, the default queue is ready, and `helm test` passes.

use serde_json::json;
use test_support::{
    chart::Example,
    cluster::{
        Namespace, apply, installation::Restored, kubectl, nats, object_is_gone,
        prometheus_operator, secret,
    },
};

use crate::{
    external_nats,
    helm::{chart, helm_in, image_arguments},
    support::{is_ready, remove_base},
};

const RELEASE: &str = "asyncqueue";

/// What a value set needs in the cluster.
#[derive(Debug, Default)]
struct Surroundings {
    /// The namespace of the release, if it is not `openfaas`.
    namespace: Option<&'static str>,
    /// Values of the test cluster, which has one NATS and one image.
    arguments: Vec<&'static str>,
    /// The default queue, if it is not `faas-request`.
    queue: Option<&'static str>,
    /// A namespace that is deleted after the test.
    elsewhere: Option<Namespace>,
}

// === impl Surroundings ===

impl Surroundings {
    /// Creates what a value set names and the cluster does not have.
    fn create(example: &Example) -> Self {
        let mut surroundings = Self::default();
        match example.name() {
            "high-availability" => {
                surroundings.arguments.push("--set=nats.url=nats://nats.openfaas:4222");
            }
            "nats-credentials" => {
                let elsewhere = Namespace::create("nats");
                let data = external_nats::start(&elsewhere.name);
                apply(&secret("openfaas", "nats", &data));
                surroundings.elsewhere = Some(elsewhere);
            }
            "nats-password" => {
                // The NATS of the cluster accepts any credentials.
                let data = json!({ "credentials": "user:password" });
                apply(&secret("openfaas", "nats-login", &data));
            }
            "monitoring" => prometheus_operator::install_crds(),
            "default-queue" => surroundings.queue = Some("jobs"),
            "second-release" => {
                apply("{apiVersion: v1, kind: Namespace, metadata: {name: team-b}}");
                nats::start("team-b", "", json!({}));
                surroundings.namespace = Some("team-b");
            }
            _ => {}
        }
        surroundings
    }

    fn namespace(&self) -> &'static str {
        self.namespace.unwrap_or("openfaas")
    }

    fn queue(&self) -> &'static str {
        self.queue.unwrap_or("faas-request")
    }
}

#[tokio::test]
async fn each_example_of_the_chart_installs_and_passes_helm_test() {
    let restored = Restored;
    remove_base();
    let [name, tag] = image_arguments();
    for example in Example::all() {
        println!("{}", example.file_name());
        let surroundings = Surroundings::create(&example);
        let namespace = surroundings.namespace();
        let (values, chart) = (example.argument(), chart());
        // The definition stays when a release is removed, and what a failed test left is replaced.
        let install = [
            "upgrade",
            "--install",
            RELEASE,
            &chart,
            "--wait",
            "--take-ownership",
            &values,
            &name,
            &tag,
        ];
        let _ = helm_in(namespace, &[&install, &surroundings.arguments[..]].concat());
        is_ready(namespace, surroundings.queue()).await;
        let tested = helm_in(namespace, &["test", RELEASE, "--logs"]);
        assert!(tested.contains("is ready"), "{}: {tested}", example.file_name());

        if surroundings.queue.is_some() || surroundings.namespace.is_some() {
            // While its stream can be reached.
            let queue = format!("asyncqueue/{}", surroundings.queue());
            let _ = kubectl(&["delete", "-n", namespace, &queue, "--timeout=60s"]);
        }
        let _ = helm_in(namespace, &["uninstall", RELEASE, "--wait"]);
        object_is_gone(namespace, "deployment/asyncqueue-operator").await;
    }
    drop(restored);
    let secrets = ["secret/nats", "secret/nats-login"];
    let _ = kubectl(&[&["delete", "-n", "openfaas"], &secrets[..]].concat());
    let _ = kubectl(&["delete", "namespace", "team-b", "--wait=false"]);
}
