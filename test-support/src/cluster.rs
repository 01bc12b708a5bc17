//! The cluster that `make up` starts, through `kubectl`, as a user sees it.

pub mod installation;
pub mod nats;
pub mod prometheus_operator;
pub mod release;

use std::{
    fmt::Write as _,
    io::{BufRead, BufReader, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::OnceLock,
    time::Duration,
};

use serde_json::{Value, json};

use crate::wait::until_in;

/// Long enough for pods to start on a machine that does much else.
pub const PODS: Duration = Duration::from_secs(120);

/// Where `kubectl` is and what it needs: what `tests/cluster/env` says.
#[derive(Debug)]
struct Environment {
    variables: Vec<(String, String)>,
}

/// A namespace of a test's own, deleted when it is dropped.
#[derive(Debug)]
pub struct Namespace {
    /// Its name.
    pub name: String,
}

/// A port of this machine that leads to one in the cluster, until it is dropped.
#[derive(Debug)]
pub struct PortForward {
    process: Child,
    addr: SocketAddr,
}

/// A component of the node (see `tests/cluster/node/components`) that is stopped, until it is
/// dropped.
#[derive(Debug)]
pub struct Stopped(&'static str);

/// A Deployment without pods, until it is dropped.
#[derive(Debug)]
pub struct ScaledDown {
    namespace: &'static str,
    name: String,
    replicas: u64,
}

/// Runs kubectl and returns what it prints. A failure is a failure of the test.
#[must_use]
pub fn kubectl(arguments: &[&str]) -> String {
    let output = try_kubectl(arguments, None);
    assert!(output.status.success(), "kubectl {}: {}", arguments.join(" "), text(&output.stderr));
    text(&output.stdout)
}

/// Runs kubectl on these objects, which is expected to fail, and returns what it complains of.
#[must_use]
pub fn kubectl_refused(arguments: &[&str], objects: &str) -> String {
    let output = try_kubectl(arguments, Some(objects));
    assert!(!output.status.success(), "kubectl {} succeeded with {objects}", arguments.join(" "));
    text(&output.stderr)
}

/// Applies objects.
pub fn apply(objects: &str) {
    let output = try_kubectl(&["apply", "--server-side", "-f", "-"], Some(objects));
    assert!(output.status.success(), "{objects}: {}", text(&output.stderr));
}

/// What the API server says against these objects, none of which it creates; `None` if it accepts
/// them as they stand, without a warning.
#[must_use]
pub fn dry_run(objects: &str) -> Option<String> {
    let dry_run = ["apply", "--server-side", "--dry-run=server", "--force-conflicts", "-f", "-"];
    let output = try_kubectl(&dry_run, Some(objects));
    let complaints = text(&output.stderr);
    (!output.status.success() || complaints.contains("Warning")).then_some(complaints)
}

/// An object as JSON; `None` if it does not exist.
#[must_use]
pub fn get(namespace: &str, object: &str) -> Option<Value> {
    let output = try_kubectl(&["get", "-n", namespace, object, "-o", "json"], None);
    if output.status.success() {
        return Some(serde_json::from_slice(&output.stdout).expect("kubectl prints JSON"));
    }
    let error = text(&output.stderr);
    assert!(error.contains("NotFound"), "kubectl get {object}: {error}");
    None
}

/// Waits until an object is in the desired state, and returns it.
pub async fn object_is(
    namespace: &str,
    object: &str,
    what: &str,
    holds: impl Fn(&Value) -> bool,
) -> Value {
    let what = format!("{object} in {namespace}: {what}");
    until_in(PODS, &what, async || get(namespace, object).filter(&holds)).await
}

/// Waits until an object is gone.
pub async fn object_is_gone(namespace: &str, object: &str) {
    let what = format!("{object} in {namespace} is gone");
    until_in(PODS, &what, async || get(namespace, object).is_none().then_some(())).await;
}

/// The status of a condition of an object, its reason and its message; empty where it has none.
#[must_use]
pub fn condition(object: &Value, name: &str) -> (String, String, String) {
    let conditions = object["status"]["conditions"].as_array();
    let found = conditions.into_iter().flatten().find(|condition| condition["type"] == name);
    let field = |field: &str| {
        found.and_then(|condition| condition[field].as_str()).unwrap_or_default().to_owned()
    };
    (field("status"), field("reason"), field("message"))
}

/// Whether a condition of an object is true.
#[must_use]
pub fn is_true(object: &Value, name: &str) -> bool {
    condition(object, name).0 == "True"
}

/// The file that says how the cluster is reached.
#[must_use]
pub fn kubeconfig() -> String {
    let variables = &Environment::get().variables;
    let kubeconfig = variables.iter().find(|(name, _)| name == "KUBECONFIG");
    kubeconfig.map(|(_, path)| path.clone()).expect("KUBECONFIG is one of them")
}

/// A client of the cluster's API server.
pub async fn client() -> kube::Client {
    let kubeconfig =
        kube::config::Kubeconfig::read_from(kubeconfig()).expect("the kubeconfig is read");
    let options = kube::config::KubeConfigOptions::default();
    let config =
        kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.expect("it can be used");
    kube::Client::try_from(config).expect("a client")
}

/// Applies a file of this project as it stands.
pub fn apply_file(file: &str) {
    let path = repository().join(file);
    apply(
        &std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display())),
    );
}

/// Applies a folder of this project as it stands, with the images that were built from this tree,
/// over what others have set.
pub fn apply_folder(folder: &str) {
    run_apply(&[folder, "--force-conflicts"]);
}

/// Applies a folder of this project as it was at an earlier commit, with the programs of that
/// commit, over what others have set.
pub fn apply_folder_of(commit: &str, folder: &str) {
    run_apply(&[&format!("--commit={commit}"), folder, "--force-conflicts"]);
}

fn run_apply(arguments: &[&str]) {
    let output = script("apply")
        .args(arguments)
        .current_dir(repository())
        .output()
        .expect("the script runs");
    assert!(output.status.success(), "apply {}: {}", arguments.join(" "), text(&output.stderr));
}

/// A Secret with these texts.
#[must_use]
pub fn secret(namespace: &str, name: &str, data: &Value) -> String {
    let metadata = json!({ "name": name, "namespace": namespace });
    json!({ "apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data })
        .to_string()
}

/// An image that was built from this tree and loaded, with its tag.
#[must_use]
pub fn loaded_image(name: &str) -> String {
    format!("{name}:{}", run_file(&format!("images/{name}")).trim())
}

/// A file of the node, by its path from the node's root.
#[must_use]
pub fn node_file(path: &str) -> String {
    run_file(&format!("root/{path}"))
}

/// A file of the running cluster.
fn run_file(path: &str) -> String {
    let shell = format!(". {}/lib.sh && cat \"$run_dir/{path}\"", folder().display());
    let output = Command::new("bash").args(["-c", &shell]).output().expect("bash runs");
    assert!(output.status.success(), "the cluster has no {path}: {}", text(&output.stderr));
    text(&output.stdout)
}

// === impl Stopped ===

impl Stopped {
    /// Stops a component.
    #[must_use]
    pub fn component(name: &'static str) -> Self {
        let output = script("stop").arg(name).output().expect("the script runs");
        assert!(output.status.success(), "stopping {name}: {}", text(&output.stderr));
        Self(name)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let output = script("restart").arg(self.0).output().expect("the script runs");
        if !output.status.success() {
            eprintln!("{} is not there again: {}", self.0, text(&output.stderr));
        }
    }
}

// === impl ScaledDown ===

impl ScaledDown {
    /// Scales a Deployment to nothing, if there is one, and waits until its pods are gone.
    pub async fn deployment(namespace: &'static str, name: &str) -> Option<Self> {
        let name = format!("deployment/{name}");
        let replicas = get(namespace, &name)?["spec"]["replicas"].as_u64().unwrap_or_default();
        let _ = kubectl(&["scale", "-n", namespace, &name, "--replicas=0"]);
        let none = |deployment: &Value| deployment["status"].get("replicas").is_none();
        object_is(namespace, &name, "without pods", none).await;
        Some(Self { namespace, name, replicas })
    }
}

impl Drop for ScaledDown {
    fn drop(&mut self) {
        let replicas = format!("--replicas={}", self.replicas);
        let _ = try_kubectl(&["scale", "-n", self.namespace, &self.name, &replicas], None);
    }
}

// === impl Namespace ===

impl Namespace {
    /// A new namespace, in which only restricted pods are admitted.
    #[must_use]
    pub fn create(prefix: &str) -> Self {
        let suffix = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .expect("the clock is after 1970")
            .as_millis()
            % 100_000_000;
        let name = format!("{prefix}-{suffix}");
        apply(&format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}, labels: \
             {{pod-security.kubernetes.io/enforce: restricted}}}}}}"
        ));
        Self { name }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Not waited for: the next test has a namespace of its own. The queues go first, and with
        // them their finalizers, while the operator can still see to it.
        let _ = try_kubectl(
            &["delete", "asyncqueues", "--all", "-n", &self.name, "--timeout=60s"],
            None,
        );
        let _ = try_kubectl(&["delete", "namespace", &self.name, "--wait=false"], None);
    }
}

// === impl PortForward ===

impl PortForward {
    /// Forwards a free port of this machine to a port of `object`.
    #[must_use]
    pub fn to(namespace: &str, object: &str, port: u16) -> Self {
        let forward = Self::try_to(namespace, object, port);
        forward.unwrap_or_else(|| panic!("no port forwarded to {object} in {namespace}"))
    }

    /// As [`Self::to`]; `None` where no pod takes it now.
    #[must_use]
    pub fn try_to(namespace: &str, object: &str, port: u16) -> Option<Self> {
        let mut process = command("kubectl")
            .args(["port-forward", "-n", namespace, object, &format!(":{port}")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("kubectl starts");
        let stdout = BufReader::new(process.stdout.take().expect("stdout is piped"));
        let mut lines = stdout.lines().map_while(Result::ok);
        let addr = lines
            .find_map(|line| {
                Some(line.strip_prefix("Forwarding from ")?.split_once(" -> ")?.0.to_owned())
            })
            .and_then(|addr| addr.parse().ok());
        let Some(addr) = addr else {
            let _ = process.wait();
            return None;
        };
        // It goes on to print a line for each connection.
        std::thread::spawn(move || lines.for_each(drop));
        Some(Self { process, addr })
    }

    /// Host and port on this machine.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for PortForward {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn try_kubectl(arguments: &[&str], input: Option<&str>) -> Output {
    let mut process = command("kubectl")
        .args(arguments)
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kubectl starts");
    if let (Some(input), Some(mut stdin)) = (input, process.stdin.take()) {
        stdin.write_all(input.as_bytes()).expect("kubectl reads");
    }
    process.wait_with_output().expect("kubectl ends")
}

/// A command with the cluster's environment.
#[must_use]
pub fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.envs(Environment::get().variables.iter().map(|(name, value)| (name, value)));
    command
}

impl Environment {
    fn get() -> &'static Self {
        static ENVIRONMENT: OnceLock<Environment> = OnceLock::new();
        ENVIRONMENT.get_or_init(Self::read)
    }

    fn read() -> Self {
        let names = ["KUBECONFIG", "KUBECACHEDIR", "PATH"];
        let mut print = String::new();
        for name in names {
            // Writing to a string does not fail.
            let _ = writeln!(print, "printf '%s\\n' \"${name}\"");
        }
        let shell =
            format!("set -e; exports=$({}/env); eval \"$exports\"; {print}", folder().display());
        let output = Command::new("bash").args(["-c", &shell]).output().expect("bash runs");
        assert!(
            output.status.success(),
            "these tests need the cluster: `make up` starts it, and `make test` all of it ({})",
            text(&output.stderr).trim()
        );
        let values = text(&output.stdout);
        let variables = names
            .iter()
            .zip(values.lines())
            .map(|(n, v)| ((*n).to_owned(), v.to_owned()))
            .collect();
        Self { variables }
    }
}

fn script(name: &str) -> Command {
    Command::new(folder().join(name))
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/cluster")
}

/// This project's root folder.
#[must_use]
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
