//! `make demo CLUSTER=current`, and the quick start in README.md.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;
use test_support::{
    cluster::{command, kubectl, loaded_image, repository},
    tools,
};

use crate::{
    documents::{Kind, pieces_of},
    known::REPEATED,
};

/// What stands for docker, kind, k3d and minikube: it writes down how it is called. As kubectl, it
/// has the context CONTEXT of an empty cluster, and fails as soon as something is applied.
const STAND_IN: &str = r#"#!/bin/bash
program=${0##*/}
echo "$program $*" >>"$CALLS"
[ "$program" = kubectl ] || exit 0
case "$1 $2" in
    "config current-context") echo "$CONTEXT" ;;
    "config view" | "get "*) ;;
    *) exit 1 ;;
esac
"#;

/// A demo on the current cluster, with a folder of its own for what it keeps.
fn demo(mut command: Command, folder: &TempDir) -> Command {
    command.current_dir(repository()).env("CLUSTER", "current").env("TMPDIR", folder.path());
    command.env_remove("TERM").stdin(Stdio::null());
    command
}

fn printed(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes)).concat()
}

/// A demo that ends before it has changed anything: what it prints, without color.
fn refused(demo: &mut Command, folder: &TempDir) -> String {
    let output = demo.output().unwrap();
    assert!(!output.status.success(), "{}", printed(&output));
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
    printed(&output)
}

#[test]
fn demo_of_another_cluster_is_refused_by_its_name() {
    let folder = TempDir::new().unwrap();
    let mut demo = demo(Command::new("examples/demo"), &folder);
    let text = refused(demo.env("CLUSTER", "mine"), &folder);
    assert!(text.contains("CLUSTER=mine is not known"), "{text}");
}

#[test]
fn demo_without_a_cluster_says_which_one_it_looked_for() {
    let (folder, kubeconfig) = (TempDir::new().unwrap(), tempfile::NamedTempFile::new().unwrap());
    let kubernetes = tools::program("kubernetes", "kubectl");
    let path = format!("{}:/usr/bin:/bin", kubernetes.parent().unwrap().display());
    let mut demo = demo(Command::new("examples/demo"), &folder);
    demo.env("PATH", path).env("KUBECONFIG", kubeconfig.path());
    let text = refused(&mut demo, &folder);
    assert!(text.contains("kubectl has no current context. Select one with"), "{text}");

    let server = "https://127.0.0.1:1";
    let config = format!(
        "{{apiVersion: v1, kind: Config, current-context: mine, \
         clusters: [{{name: c, cluster: {{server: '{server}'}}}}], \
         contexts: [{{name: mine, context: {{cluster: c, user: u}}}}], users: [{{name: u}}]}}"
    );
    fs::write(kubeconfig.path(), config).unwrap();
    let text = refused(&mut demo, &folder);
    assert!(text.contains(&format!("kubectl's context mine: {server}")), "{text}");
    let expected = format!("the cluster of the context mine can't be reached at {server}");
    assert!(text.contains(&expected), "{text}");
}

/// What the demo calls with a context of this name, and what it prints.
fn calls_with_context(context: &str) -> (Vec<String>, String) {
    let (folder, programs) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    for name in ["kubectl", "docker", "kind", "k3d", "minikube"] {
        let path = programs.path().join(name);
        fs::write(&path, STAND_IN).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let calls = programs.path().join("calls");
    let mut demo = demo(Command::new("examples/demo"), &folder);
    demo.env("PATH", format!("{}:/usr/bin:/bin", programs.path().display()));
    let text = refused(demo.env("CONTEXT", context).env("CALLS", &calls), &folder);
    (fs::read_to_string(calls).unwrap().lines().map(str::to_owned).collect(), text)
}

#[test]
fn demo_builds_images_and_loads_them_by_context() {
    for (context, load) in [
        ("kind-dev", "kind load docker-image --name dev"),
        ("k3d-dev", "k3d image import --cluster dev"),
        ("minikube", "minikube image load"),
    ] {
        let (calls, text) = calls_with_context(context);
        let of_images: Vec<_> = calls.iter().filter(|call| !call.starts_with("kubectl")).collect();
        let [build, asyncqueue, function] = &of_images[..] else { panic!("{calls:?}\n{text}") };
        assert!(build.starts_with("docker compose ") && build.ends_with(" build gateway fast"));
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(**asyncqueue, format!("{load} asyncqueue:{version}"));
        assert_eq!(**function, format!("{load} asyncqueue-example-function:{version}"));
    }
}

#[test]
fn demo_asks_for_images_of_other_clusters() {
    let (calls, text) = calls_with_context("production");
    assert!(calls.iter().all(|call| call.starts_with("kubectl ")), "{calls:?}");
    let changing = |call: &&String| ["apply", "delete"].iter().any(|word| call.contains(word));
    assert!(!calls.iter().any(|call| changing(&call)), "{calls:?}");
    assert!(text.contains("set IMAGE and FUNCTION_IMAGE to images"), "{text}");
}

/// Runs the demo on the cluster, which has no AsyncQueue and has none afterwards.
pub(crate) fn comes_and_goes() {
    let folder = TempDir::new().unwrap();
    let mut demo = demo(command("make"), &folder);
    demo.args(["demo", "CLUSTER=current"])
        .arg(format!("IMAGE={}", loaded_image("asyncqueue")))
        .arg(format!("FUNCTION_IMAGE={}", loaded_image("asyncqueue-example-function")));
    let output = demo.output().unwrap();
    let text = printed(&output);
    println!("{text}");
    assert!(output.status.success(), "the demo fails, see above");
    assert!(text.contains("Invoked slow [200]"), "it shows the worker's log");
    let left = kubectl(&["get", "crd,namespaces,clusterroles,clusterrolebindings", "-o", "name"]);
    let is_left = |line: &&str| line.contains("asyncqueue") || line.contains("openfaas");
    assert_eq!(left.lines().filter(is_left).collect::<Vec<_>>(), Vec::<&str>::new());
    assert!(is_empty(folder.path()), "the demo leaves files");
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).unwrap().next().is_none()
}

#[test]
fn quick_start_has_ten_commands_and_readme_repeats_it() {
    let (repeating, of) = REPEATED;
    let pieces = pieces_of(of);
    let quick_start = pieces.iter().find(|piece| piece.heading == "On kind").unwrap();
    let Kind::Commands(commands) = &quick_start.kind else { panic!("{quick_start:?}") };
    let chained = commands.iter().flat_map(|command| command.text.split("&&"));
    assert!(chained.count() <= 10, "{commands:?}");
    let callback = commands.iter().any(|command| command.text.contains("X-Callback-Url"));
    assert!(callback, "{commands:?}");
    let repeated = pieces_of(repeating).into_iter().any(|piece| piece.text == quick_start.text);
    assert!(repeated, "{repeating} has other commands than {of}");
}
