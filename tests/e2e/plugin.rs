//! `kubectl aq` finds NATS by itself, with the rights of its user.

use std::process::Output;

use serde_json::{Value, json};
use test_support::{
    cluster::{self, Namespace, PODS, apply, is_true, kubectl, object_is},
    program,
    wait::until_in,
};

/// Where NATS runs.
const NATS_NAMESPACE: &str = "openfaas";

/// A user with rights of its own, and the kubeconfig to be it.
struct User {
    namespace: Namespace,
    kubeconfig: tempfile::NamedTempFile,
}

impl User {
    fn create() -> Self {
        let namespace = Namespace::create("plugin");
        let of = &namespace.name;
        let _ = kubectl(&["create", "serviceaccount", "user", "-n", of]);
        let token = kubectl(&["create", "token", "user", "-n", of]);
        let own = kubectl(&["config", "view", "--raw", "--flatten", "--minify", "-o", "json"]);
        let mut config: Value = serde_json::from_str(&own).unwrap();
        config["users"] = json!([{"name": "user", "user": {"token": token.trim()}}]);
        config["contexts"][0]["context"]["user"] = json!("user");
        config["contexts"][0]["context"]["namespace"] = json!(NATS_NAMESPACE);
        let kubeconfig = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(kubeconfig.path(), config.to_string()).unwrap();
        Self { namespace, kubeconfig }
    }

    /// Grants rights on pods in the namespace of NATS.
    fn may(&self, rules: &Value) {
        let name = &self.namespace.name;
        let metadata = json!({"name": name, "namespace": NATS_NAMESPACE});
        let group = "rbac.authorization.k8s.io";
        let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
            {
                "apiVersion": format!("{group}/v1"), "kind": "Role",
                "metadata": metadata, "rules": rules,
            },
            {
                "apiVersion": format!("{group}/v1"), "kind": "RoleBinding",
                "metadata": metadata,
                "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
                "subjects": [{"kind": "ServiceAccount", "name": "user", "namespace": name}],
            },
        ]});
        apply(&objects.to_string());
    }

    fn aq(&self, arguments: &[&str]) -> Output {
        let plugin = program::path("kubectl-aq");
        cluster::command(plugin.to_str().unwrap())
            .arg("--kubeconfig")
            .arg(self.kubeconfig.path())
            .args(arguments)
            .output()
            .unwrap()
    }

    fn aq_fails(&self, arguments: &[&str], reasons: &[&str]) {
        let Output { status, stderr, .. } = self.aq(arguments);
        let said = String::from_utf8(stderr).unwrap();
        assert_eq!(status.code(), Some(1), "{said}");
        for reason in reasons {
            assert!(said.contains(reason), "{reason}: {said}");
        }
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let name = &self.namespace.name;
        let _ = kubectl(&["delete", "role,rolebinding", name, "-n", NATS_NAMESPACE]);
    }
}

#[tokio::test]
async fn plugin_shows_the_log_of_a_call() {
    let (namespace, run) = (Namespace::create("logs"), |arguments: &[&str]| {
        let plugin = program::path("kubectl-aq");
        cluster::command(plugin.to_str().unwrap())
            .args(["-n", NATS_NAMESPACE])
            .args(arguments)
            .output()
            .unwrap()
    });
    let queue = &namespace.name;
    apply(&format!(
        "{{apiVersion: asyncqueue.io/v1alpha1, kind: AsyncQueue, metadata: {{namespace: {queue}, \
         name: {queue}}}, spec: {{}}}}"
    ));
    object_is(queue, &format!("asyncqueue/{queue}"), "ready", |queue| is_true(queue, "Ready"))
        .await;
    for id in ["log-1", "log-2"] {
        let invoked = run(&["invoke", "not-there", "--queue", queue, "--id", id]);
        assert!(invoked.status.success(), "{}", String::from_utf8_lossy(&invoked.stderr));
    }
    let logs = until_in(PODS, "the log has the call", async || {
        let logs = run(&["logs", "log-1", "--queue", queue]);
        logs.status.success().then(|| String::from_utf8(logs.stdout).unwrap())
    })
    .await;
    assert!(logs.lines().all(|line| line.contains("log-1")), "{logs}");
    let all = String::from_utf8(run(&["logs", queue]).stdout).unwrap();
    assert!(all.lines().count() > logs.lines().count(), "{all}");
    let unknown = run(&["logs", "unknown"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("no queue and no call `unknown`"));
}

#[test]
fn plugin_finds_nats_with_two_rights_in_one_namespace() {
    let user = User::create();
    let get_pods = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]});
    let forward =
        json!({"apiGroups": [""], "resources": ["pods/portforward"], "verbs": ["create"]});
    let missing = ["`get` of `pods`", "`create` of `pods/portforward`", "--nats-url"];

    user.may(&json!([]));
    user.aq_fails(&["queues"], &missing);
    user.may(&json!([get_pods]));
    user.aq_fails(&["queues"], &missing);

    user.may(&json!([get_pods, forward]));
    let Output { status, stdout, stderr } = user.aq(&["queues", "-o", "json"]);
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    let queues: Value = serde_json::from_slice(&stdout).unwrap();
    assert!(queues.is_array(), "{queues}");
    let no_pod = ["no pod `nats-9`", "--nats-pod"];
    user.aq_fails(&["queues", "--nats-pod", "nats-9"], &no_pod);
    user.aq_fails(&["queues", "-n", "default"], &missing);
}
