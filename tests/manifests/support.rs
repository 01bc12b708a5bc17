//! Objects as the folders of `manifests/` render them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use test_support::tools::{self, output};

/// The labels that objects select each other by, or any other fields.
pub(crate) type Labels = serde_json::Map<String, Value>;

/// Every folder of `manifests/` that can be applied, by its path from there.
pub(crate) fn folders() -> Vec<String> {
    let mut folders: Vec<_> = fs::read_dir(manifests())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let kustomization = fs::read_to_string(path.join("kustomization.yaml"));
            kustomization.is_ok_and(|text| text.contains("kind: Kustomization"))
        })
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    folders.sort();
    folders
}

/// The objects of a folder of `manifests/`.
pub(crate) fn kustomize(folder: &str) -> Vec<Value> {
    kustomize_path(&manifests().join(folder))
}

/// The objects of a folder of `manifests/` with a component next to it.
pub(crate) fn kustomize_with(folder: &str, component: &str) -> Vec<Value> {
    // kustomize takes only relative paths, which count from where a file really is.
    let overlay = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let up = "../".repeat(overlay.path().canonicalize().unwrap().components().count() - 1);
    let path = |name: &str| {
        let path = manifests().join(name).canonicalize().unwrap();
        format!("{up}{}", path.strip_prefix("/").unwrap().display())
    };
    let text =
        format!("resources: [\"{}\"]\ncomponents: [\"{}\"]\n", path(folder), path(component));
    fs::write(overlay.path().join("kustomization.yaml"), text).unwrap();
    kustomize_path(overlay.path())
}

/// The objects of the chart in the namespace `openfaas`, with these arguments of `helm template`.
pub(crate) fn helm_template(arguments: &[&str]) -> Vec<Value> {
    objects(&output(
        helm_command("helm", &["template", "asyncqueue", "--namespace=openfaas"]).args(arguments),
    ))
}

/// The objects of the chart of a queue in the namespace `openfaas`, as a release of this name.
pub(crate) fn queue_worker_template(release: &str, arguments: &[&str]) -> Vec<Value> {
    let mut helm =
        helm_command("helm-queue-worker", &["template", release, "--namespace=openfaas"]);
    objects(&output(helm.args(arguments)))
}

/// The objects of a packaged chart in the namespace `openfaas`.
pub(crate) fn helm_package_template(package: &Path, arguments: &[&str]) -> Vec<Value> {
    let mut helm = Command::new(tools::program("helm", "helm"));
    helm.args(["template", "asyncqueue", "--namespace=openfaas"]).args(arguments).arg(package);
    objects(&output(&mut helm))
}

/// Helm with these arguments and a chart of `manifests/`.
pub(crate) fn helm_command(chart: &str, arguments: &[&str]) -> Command {
    let mut helm = Command::new(tools::program("helm", "helm"));
    helm.args(arguments).arg(manifests().join(chart));
    helm
}

/// What Helm says of a chart that it refuses.
pub(crate) fn refusal(chart: &str, arguments: &[&str]) -> String {
    let refused = helm_command(chart, &["template", "refused"]).args(arguments).output().unwrap();
    assert!(!refused.status.success(), "{arguments:?} are not refused");
    String::from_utf8_lossy(&refused.stderr).into_owned()
}

pub(crate) fn manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests")
}

fn kustomize_path(folder: &Path) -> Vec<Value> {
    let mut kubectl = Command::new(tools::program("kubernetes", "kubectl"));
    objects(&output(kubectl.arg("kustomize").arg(folder)))
}

/// The objects of a text of several YAML documents.
pub(crate) fn objects(yaml: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(yaml).unwrap()
}

/// The objects of one kind.
pub(crate) fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

/// The one object of this kind and name.
pub(crate) fn the<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let found: Vec<_> = of_kind(objects, kind)
        .into_iter()
        .filter(|object| object["metadata"]["name"] == name)
        .collect();
    let [object] = found[..] else { panic!("{} of {kind} {name}", found.len()) };
    object
}

/// The pod templates, with the name of what makes pods of them.
pub(crate) fn pods(objects: &[Value]) -> Vec<(&str, &Value)> {
    let workload = |object: &&Value| object["spec"]["template"]["spec"]["containers"].is_array();
    let named = |object| (name(object), &object["spec"]["template"]);
    objects.iter().filter(workload).map(named).collect()
}

pub(crate) fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The value of a variable of a workload's first container; `Null` if it is missing.
pub(crate) fn variable<'a>(workload: &'a Value, name: &str) -> &'a Value {
    let variables = list(&workload["spec"]["template"]["spec"]["containers"][0]["env"]);
    variables.iter().find(|variable| variable["name"] == name).unwrap_or(&Value::Null)
}
