//! A queue on a NATS of its own, which refuses clients without credentials.

use std::time::Duration;

use asyncqueue::{CallId, FunctionName, Invocation, directory::QueueRoute, submit::Submitter};
use serde_json::json;
use test_support::{
    cluster::{PODS, PortForward, apply, condition, is_true, kubectl, nats, object_is, secret},
    nats_auth::Trust,
    wait::until_in,
};

use crate::support::{Queue, function};

/// Longer than this test.
const GOOD_FOR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn queue_on_nats_with_credentials_works_once_they_can_be_read() {
    let trust = Trust::default();
    let queue = Queue::create("guarded", "{replicas: 0, suspend: true}");
    let name = queue.name();
    nats::start(name, &trust.config(), json!({}));
    apply(&secret(name, "user", &json!({ "creds": trust.user(GOOD_FOR) })));
    let other = format!("{name}-2");
    let nats = format!(
        "{{url: 'nats://nats.{name}:4222', credentialsSecretRef: {{name: user, key: creds}}}}"
    );
    apply(&crate::support::object(name, &other, &format!("{{nats: {nats}}}")));
    let object = format!("asyncqueue/{other}");
    let refused =
        object_is(name, &object, "refused", |queue| condition(queue, "Ready").0 == "False").await;
    let message = condition(&refused, "StreamReady").2;
    assert!(message.contains("not permitted to read Secret"), "{message}");

    apply(&may_read(name));
    object_is(name, &object, "ready", |queue| is_true(queue, "Ready")).await;

    apply(&function(name, "fast", &other));
    let _ = kubectl(&["rollout", "status", "-n", name, "deployment/fast", "--timeout=120s"]);
    let forward = PortForward::to(name, "deployment/nats", 4222);
    let options = async_nats::ConnectOptions::with_credentials(&trust.user(GOOD_FOR)).unwrap();
    let client = options.connect(forward.addr().to_string()).await.unwrap();
    let submitter = Submitter::new(
        test_support::nats::jetstream_context(client),
        test_support::nats::ANSWER_TIMEOUT,
    );
    let route = QueueRoute::with_default_names(other.parse().unwrap());
    let call = Invocation::new(
        CallId::generate(&route.queue),
        FunctionName::new("fast", name).unwrap(),
        "hi",
    );
    submitter.submit_generated(call, &route).await.unwrap();
    until_in(PODS, "the call was made", async || {
        let log = kubectl(&["logs", "-n", name, &format!("deployment/{other}-worker")]);
        log.contains("Invoked fast [200]").then_some(())
    })
    .await;
}

/// What the condition says to do.
fn may_read(namespace: &str) -> String {
    format!(
        r"
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: asyncqueue-operator, namespace: {namespace}}}
rules: [{{apiGroups: [''], resources: [secrets], resourceNames: [user], verbs: [get]}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: asyncqueue-operator, namespace: {namespace}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: asyncqueue-operator}}
subjects: [{{kind: ServiceAccount, name: asyncqueue-operator, namespace: openfaas}}]
"
    )
}
