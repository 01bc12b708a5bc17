//! The value sets in `manifests/helm/ci`, as chart-testing names them. tests/install installs the
//! same files on the cluster.

use std::{collections::BTreeSet, fs};

use serde_json::Value;
use test_support::{chart::Example, tools::output};

use crate::{
    kubernetes_types,
    support::{
        helm_command, helm_package_template, helm_template, kustomize, name, objects, of_kind, pods,
    },
};

/// At least so many value sets are tested on the cluster.
const MINIMUM: usize = 10;

pub(crate) fn all() -> Vec<Example> {
    let examples = Example::all();
    assert!(examples.len() >= MINIMUM, "{} examples", examples.len());
    examples
}

fn rendered(example: &Example) -> Vec<Value> {
    helm_template(&[&example.argument()])
}

#[test]
fn each_example_has_only_fields_that_kubernetes_knows() {
    for example in all() {
        for object in rendered(&example) {
            if let Err(error) = kubernetes_types::validate(&object) {
                panic!("{}: {} {}: {error}", example.file_name(), object["kind"], name(&object));
            }
        }
    }
}

#[test]
fn each_kustomize_folder_has_only_fields_that_kubernetes_knows() {
    for folder in crate::support::folders() {
        for object in kustomize(&folder) {
            if let Err(error) = kubernetes_types::validate(&object) {
                panic!("{folder}: {} {}: {error}", object["kind"], name(&object));
            }
        }
    }
}

#[test]
fn helm_lint_accepts_each_example() {
    for example in all() {
        let arguments = ["lint", "--strict", "--kube-version=1.35.0", &example.argument()];
        let _ = output(&mut helm_command("helm", &arguments));
    }
}

#[test]
fn no_example_uses_the_tag_latest_or_an_image_without_a_tag() {
    for example in all() {
        for (workload, pod) in pods(&rendered(&example)) {
            let image = pod["spec"]["containers"][0]["image"].as_str().unwrap();
            let (_, version) = image.rsplit_once([':', '@']).unwrap();
            assert_ne!(version, "latest", "{}: {workload}: {image}", example.file_name());
        }
    }
}

#[test]
fn each_example_changes_what_the_chart_renders() {
    let default = helm_template(&[]);
    for example in all().iter().filter(|example| example.name() != "default") {
        assert_ne!(rendered(example), default, "{}", example.file_name());
    }
}

#[test]
fn releases_of_two_namespaces_share_no_cluster_object() {
    let second = Example::named("second-release");
    let cluster_objects = |objects: &[Value]| -> BTreeSet<(String, String)> {
        objects
            .iter()
            .filter(|object| object["metadata"]["namespace"].is_null())
            .map(|object| (object["kind"].to_string(), name(object).to_owned()))
            .collect()
    };
    // The same name of the release, in another namespace.
    let first = helm_template(&[]);
    let other =
        helm_template(&["--namespace=team-b", "--set=crds.install=false,rbac.userRoles=false"]);
    let example = helm_template(&["--namespace=team-b", &second.argument()]);
    let first = cluster_objects(&first);
    assert!(!cluster_objects(&other).is_empty());
    for objects in [other, example] {
        assert!(first.is_disjoint(&cluster_objects(&objects)));
        for object in &objects {
            let namespace = &object["metadata"]["namespace"];
            assert!(namespace.is_null() || namespace != "openfaas", "{object}");
        }
    }
}

#[test]
fn two_releases_in_one_namespace_select_pods_of_their_own() {
    let selectors = |release: &str| -> BTreeSet<String> {
        let mut helm = helm_command("helm", &["template", release, "--namespace=openfaas"]);
        let objects = objects(&output(&mut helm));
        let selectors = of_kind(&objects, "Deployment").into_iter().map(|object| {
            object["spec"]["selector"]["matchLabels"]["app.kubernetes.io/name"].to_string()
        });
        selectors.collect()
    };
    let (first, second) = (selectors("asyncqueue"), selectors("second"));
    assert_eq!((first.len(), second.len()), (2, 2));
    assert!(first.is_disjoint(&second));
}

#[test]
fn the_archive_of_the_chart_renders_as_the_folder() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let destination = format!("--destination={}", folder.path().display());
    let _ = output(&mut helm_command("helm", &["package", &destination]));
    let archive = fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
    assert_eq!(helm_package_template(&archive, &[]), helm_template(&[]));
}
