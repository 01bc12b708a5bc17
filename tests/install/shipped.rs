//! The API server accepts everything that ships, in a dry run and without a warning.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use serde_json::{Value, json};
use test_support::{
    chart::Example,
    cluster::{
        apply, command, dry_run, get, kubectl, prometheus_operator, release::make_manifests,
        repository,
    },
    tools::{self, output},
};

/// Kinds whose CRDs come with other software, and are applied by a test of their own.
const TESTED_ELSEWHERE: [&str; 1] = ["ScaledObject"];

/// Dry runs at once.
const THREADS: usize = 4;

/// Objects that ship together.
struct Shipped {
    /// The file, the folder or the value set that has them.
    name: String,
    objects: Vec<Value>,
}

/// Namespaces that the cluster did not have, until this is dropped.
struct Created(Vec<String>);

// === impl Shipped ===

impl Shipped {
    fn new(name: String, yaml: &str) -> Self {
        let mut objects: Vec<Value> = serde_saphyr::from_multiple(yaml).unwrap();
        objects.retain(|object| {
            let kind = object["kind"].as_str().unwrap_or_default();
            !kind.is_empty() && !TESTED_ELSEWHERE.contains(&kind)
        });
        assert!(!objects.is_empty(), "{name} has no objects");
        Self { name, objects }
    }

    fn folder(path: &Path) -> Self {
        Self::new(relative(path), &output(command("kubectl").arg("kustomize").arg(path)))
    }

    fn file(path: &Path) -> Self {
        Self::new(relative(path), &fs::read_to_string(path).unwrap())
    }

    fn chart(folder: &str, namespace: &str, arguments: &[&str]) -> Self {
        let mut helm = Command::new(tools::program("helm", "helm"));
        helm.args(["template", "asyncqueue", "--namespace", namespace])
            .arg(repository().join("manifests").join(folder))
            .args(arguments);
        Self::new(format!("{folder} {arguments:?}"), &output(&mut helm))
    }

    /// Everything that the project ships.
    fn all() -> Vec<Self> {
        let (mut folders, mut files) = (Vec::new(), Vec::new());
        for place in ["crds", "examples", "manifests"] {
            find(&repository().join(place), &mut folders, &mut files);
        }
        let mut all: Vec<_> = folders.iter().map(|folder| Self::folder(folder)).collect();
        all.extend(files.iter().map(|file| Self::file(file)));
        all.extend(
            Example::all()
                .iter()
                .map(|example| Self::chart("helm", example.namespace(), &[&example.argument()])),
        );
        all.push(Self::chart("helm-queue-worker", "openfaas", &[]));
        all.push(Self::release());
        all
    }

    /// `install.yaml` of a release.
    fn release() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let digest = format!("sha256:{}", "0a".repeat(32));
        make_manifests(folder.path(), "registry.example.com", &digest);
        let text = fs::read_to_string(folder.path().join("install.yaml")).unwrap();
        Self::new("install.yaml".to_owned(), &text)
    }

    fn namespaces(&self) -> impl Iterator<Item = &str> {
        self.objects.iter().filter_map(|object| object["metadata"]["namespace"].as_str())
    }

    /// What the API server says against the objects.
    fn complaint(&self) -> Option<String> {
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": self.objects });
        dry_run(&list.to_string()).map(|complaint| format!("{}: {complaint}", self.name))
    }
}

// === impl Created ===

impl Created {
    fn missing_of(shipped: &[Shipped]) -> Self {
        let names: BTreeSet<&str> = shipped.iter().flat_map(Shipped::namespaces).collect();
        let created = Self(names.into_iter().filter(is_missing).map(str::to_owned).collect());
        for name in &created.0 {
            apply(&format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}}}}}"));
            // No pod is accepted before its account exists.
            let account = ["wait", "--for=create", "serviceaccount/default", "--timeout=60s", "-n"];
            let _ = kubectl(&[&account[..], &[name]].concat());
        }
        created
    }
}

impl Drop for Created {
    fn drop(&mut self) {
        for name in &self.0 {
            let _ = command("kubectl").args(["delete", "namespace", name]).output();
        }
    }
}

/// Whether a namespace does not exist. One that is being deleted is waited for.
fn is_missing(name: &&str) -> bool {
    let object = format!("namespace/{name}");
    let namespace = get("", &object);
    if namespace
        .as_ref()
        .is_some_and(|namespace| namespace["metadata"]["deletionTimestamp"].is_string())
    {
        let _ = kubectl(&["wait", "--for=delete", &object, "--timeout=120s"]);
        return true;
    }
    namespace.is_none()
}

fn relative(path: &Path) -> String {
    path.strip_prefix(repository()).unwrap_or(path).display().to_string()
}

/// Finds kustomize folders, and files of objects that are in none.
fn find(path: &Path, folders: &mut Vec<PathBuf>, files: &mut Vec<PathBuf>) {
    if let Ok(kustomization) = fs::read_to_string(path.join("kustomization.yaml")) {
        // A component is not applied alone: the chart's network policies are the same.
        if kustomization.contains("kind: Kustomization") {
            folders.push(path.to_owned());
        }
    } else if path.is_dir() && !path.join("Chart.yaml").exists() {
        for entry in fs::read_dir(path).unwrap() {
            find(&entry.unwrap().path(), folders, files);
        }
    } else if path.extension().is_some_and(|extension| extension == "yaml") {
        let text = fs::read_to_string(path).unwrap();
        if text.contains("\napiVersion:") || text.starts_with("apiVersion:") {
            files.push(path.to_owned());
        }
    }
}

#[test]
fn the_api_server_accepts_everything_that_ships() {
    prometheus_operator::install_crds();
    let shipped = Shipped::all();
    let _created = Created::missing_of(&shipped);
    let complaints: Vec<String> = thread::scope(|scope| {
        let of_thread = |chunk: &[Shipped]| chunk.iter().filter_map(Shipped::complaint).collect();
        let threads: Vec<_> = shipped
            .chunks(shipped.len().div_ceil(THREADS))
            .map(|chunk| scope.spawn(move || -> Vec<String> { of_thread(chunk) }))
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    let names: Vec<_> = shipped.iter().map(|shipped| &shipped.name).collect();
    println!("{} accepted: {names:?}", names.len());
    // A dry run leaves nothing.
    let left = kubectl(&["get", "deployments", "-n", "openfaas", "-o", "name"]);
    assert!(!left.contains("team-queue"), "{left}");
}
