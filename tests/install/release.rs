//! The files of a release alone, on a cluster that has nothing of AsyncQueue.

use std::time::{Duration, Instant};

use test_support::{
    cluster::{
        apply,
        installation::{Restored, remove_all},
        kubectl, loaded_image, object_is,
        release::Release,
    },
    wait::until_in,
};

use crate::{
    e2e::{Gateway, function},
    helm::helm_in,
    support::remove_base,
};

/// From `kubectl apply` to the result of the first call.
const FIRST_CALL: Duration = Duration::from_secs(120);

/// The namespace of functions that `install.yaml` creates.
const FUNCTIONS: &str = "openfaas-fn";

/// Functions that the test deploys there. They must not stay: those of examples have such names.
const FUNCTION_NAMES: [&str; 2] = ["fast", "callbacks"];

struct Deployed;

impl Drop for Deployed {
    fn drop(&mut self) {
        let kinds = ["delete", "deployments,services", "--ignore-not-found", "-n", FUNCTIONS];
        let _ = kubectl(&[&kinds[..], &FUNCTION_NAMES[..]].concat());
    }
}

#[tokio::test]
async fn the_files_of_a_release_take_a_call_within_two_minutes() {
    let release = Release::make();
    let _restored = Restored;
    remove_all();
    release.load_images();

    let begun = Instant::now();
    let install = release.install_yaml();
    let _ = kubectl(&["apply", "--server-side", "-f", install.to_str().unwrap()]);
    let _deployed = Deployed;
    for name in FUNCTION_NAMES {
        apply(&released_function(name, &release));
    }
    object_is("openfaas", "deployment/asyncqueue-gateway", "available", |gateway| {
        gateway["status"]["availableReplicas"] == 1
    })
    .await;
    let gateway = Gateway::connect();
    let call = until_in(FIRST_CALL, "the first call is accepted", async || {
        let call = gateway.submit(FUNCTIONS, "fast").await;
        (call.status == 202).then_some(call)
    })
    .await;
    gateway.callback(FUNCTIONS, &call.call_id).await;
    let took = begun.elapsed();
    println!("from kubectl apply to the first callback: {:.0} s", took.as_secs_f64());
    assert!(took < FIRST_CALL, "it took {took:?}");

    let image = released_image(&release, "asyncqueue");
    run_image(&image).await;

    // The chart names the same image by its version.
    remove_base();
    let chart = release.chart().display().to_string();
    let _ = helm_in("openfaas", &["install", "asyncqueue", &chart, "--wait", "--take-ownership"]);
    let (by_version, _) = image.split_once('@').unwrap();
    run_image(by_version).await;
    let _ = helm_in("openfaas", &["test", "asyncqueue"]);
    let _ = helm_in("openfaas", &["uninstall", "asyncqueue", "--wait"]);
    // Helm keeps the pod of a test for its log.
    let _ = kubectl(&["delete", "pod", "-n", "openfaas", "asyncqueue-test"]);
}

/// Waits until all programs run this image, the worker that the operator starts too.
async fn run_image(image: &str) {
    for deployment in ["asyncqueue-operator", "asyncqueue-gateway", "faas-request-worker"] {
        object_is("openfaas", &format!("deployment/{deployment}"), image, |deployment| {
            deployment["spec"]["template"]["spec"]["containers"][0]["image"] == image
                && deployment["status"]["availableReplicas"] == 1
        })
        .await;
    }
}

/// The name, version and digest of an image of the release.
fn released_image(release: &Release, name: &str) -> String {
    let images = release.images();
    images.into_iter().find(|image| image.contains(&format!("/{name}:"))).unwrap()
}

/// A function of the default queue, with the release's own image.
fn released_function(name: &str, release: &Release) -> String {
    let image = "asyncqueue-example-function";
    function(FUNCTIONS, name, "faas-request")
        .replace(&loaded_image(image), &released_image(release, image))
}
