//! What one namespace can't take from another: calls, streams, queues and Services.

use serde_json::Value;
use test_support::{
    cluster::{
        Namespace, PODS, PortForward, apply, condition, get, is_true, kubectl, kubectl_refused,
        object_is, object_is_gone,
    },
    wait::until_in,
};

use crate::support::{Gateway, Queue, function, object};

#[tokio::test]
async fn a_deleted_queues_calls_stay_with_its_namespace() {
    let spec = "{replicas: 0, deletionPolicy: Retain}";
    let queue = Queue::ready("heirless", spec).await;
    let (name, other) = (queue.name(), Namespace::create("heir"));
    let gateway = Gateway::connect();
    queue.deploy_functions(&["fast"]).await;
    assert_eq!(gateway.submit(name, "fast").await.status, 202);
    queue.is("its call pending", |queue| pending(queue) == Some(1)).await;
    let aq = format!("asyncqueue/{name}");
    let _ = kubectl(&["delete", "-n", name, &aq, "--timeout=60s"]);

    apply(&object(&other.name, name, spec));
    let refused = object_is(&other.name, &aq, "refused", |queue| {
        condition(queue, "Ready").1 == "ResourceConflict"
    })
    .await;
    let message = condition(&refused, "StreamReady").2;
    for part in
        [format!("deleted AsyncQueue {name}/{name}"), format!("release-to={}/{name}", other.name)]
    {
        assert!(message.contains(&part), "{message}");
    }
    assert_eq!(get(&other.name, &format!("deployment/{name}-worker")), None);
    let _ = kubectl(&["delete", "-n", &other.name, &aq, "--timeout=60s"]);

    // Its own namespace gets it back, and can give it away.
    queue.apply(spec);
    queue.is("its call pending again", |queue| pending(queue) == Some(1)).await;
    let grant = format!("asyncqueue.io/release-to={}/{name}", other.name);
    let _ = kubectl(&["annotate", "-n", name, &aq, &grant]);
    let _ = kubectl(&["delete", "-n", name, &aq, "--timeout=60s"]);
    apply(&object(&other.name, name, "{replicas: 0, deletionPolicy: Delete}"));
    object_is(&other.name, &aq, "the owner of the call", |queue| pending(queue) == Some(1)).await;
    let _ = kubectl(&["delete", "-n", &other.name, &aq, "--timeout=60s"]);
}

#[tokio::test]
async fn a_stream_of_another_program_is_not_adopted() {
    let namespace = Namespace::create("orders");
    let name = &namespace.name;
    let forward = PortForward::to("openfaas", "service/nats", 4222);
    let client = async_nats::connect(forward.addr().to_string()).await.unwrap();
    let js = test_support::nats::jetstream_context(client);
    let theirs = async_nats::jetstream::stream::Config {
        name: name.clone(),
        subjects: vec![name.clone(), format!("{name}.>")],
        retention: async_nats::jetstream::stream::RetentionPolicy::WorkQueue,
        ..Default::default()
    };
    let before = js.create_stream(theirs).await.unwrap().cached_info().config.clone();
    let queue = object(name, name, "{}");
    apply(&queue.replace("metadata: {", "metadata: {annotations: {asyncqueue.io/adopt: 'true'}, "));
    let refused = object_is(name, &format!("asyncqueue/{name}"), "refused", |queue| {
        condition(queue, "Ready").1 == "ResourceConflict"
    })
    .await;
    let message = condition(&refused, "StreamReady").2;
    assert!(message.contains("allowed_streams of the operator"), "{message}");
    assert_eq!(js.get_stream(name).await.unwrap().cached_info().config, before);
    js.delete_stream(name).await.unwrap();
}

#[tokio::test]
async fn a_function_of_another_namespace_is_not_admitted() {
    let queue = Queue::ready("admitting", "{replicas: 0}").await;
    let (name, other) = (queue.name(), Namespace::create("uninvited"));
    let gateway = Gateway::connect();
    apply(&function(&other.name, "fast", name));
    let refused = queue.is("says so", |queue| is_true(queue, "FunctionsRefused")).await;
    let message = condition(&refused, "FunctionsRefused").2;
    assert!(message.contains(&format!("fast.{}", other.name)), "{message}");
    assert_eq!(refused["status"]["functions"], 0);
    until_in(PODS, "an event on the function", async || {
        let events = ["get", "events", "-n", &other.name, "-o", "jsonpath={.items[*].message}"];
        let message = format!(
            "The AsyncQueue {name}/{name} does not take calls of functions in this namespace"
        );
        kubectl(&events).contains(&message).then_some(())
    })
    .await;
    // Its calls are accepted, and not here.
    assert_eq!(gateway.submit(&other.name, "fast").await.status, 202);
    queue.is("no call pending", |queue| pending(queue) == Some(0)).await;

    queue.apply(&format!("{{replicas: 0, functions: {{namespaces: [{}]}}}}", other.name));
    queue.is("the function known", |queue| queue["status"]["functions"] == 1).await;
    queue.is("without a refusal", |queue| !is_true(queue, "FunctionsRefused")).await;
    assert_eq!(gateway.submit(&other.name, "fast").await.status, 202);
    queue.is("a call pending", |queue| pending(queue) == Some(1)).await;
    let _ = kubectl(&["delete", "-n", &other.name, "deployment/fast", "--wait=false"]);
    object_is_gone(&other.name, "deployment/fast").await;
}

#[tokio::test]
async fn services_of_the_platform_are_not_reached() {
    let gateway = Gateway::connect();
    for target in [
        "/function/kube-dns.kube-system/metrics",
        "/function/asyncqueue-gateway.openfaas/function/x",
        "/function/kubernetes.default/",
    ] {
        let answer = gateway.request("GET", target, &[], "").await;
        assert_eq!(answer.status, 403, "{target}: {}", answer.body);
    }
    let answer = gateway.request("POST", "/async-function/kube-dns.kube-system", &[], "").await;
    assert_eq!(answer.status, 403, "{}", answer.body);
}

#[tokio::test]
async fn editors_of_a_namespace_do_not_edit_its_queues() {
    let namespace = Namespace::create("people");
    let name = namespace.name.as_str();
    for role in ["view", "edit", "admin"] {
        let (clusterrole, user) =
            (format!("--clusterrole={role}"), format!("--user={role}-{name}"));
        let _ = kubectl(&["create", "rolebinding", role, "-n", name, &clusterrole, &user]);
    }
    let ask = |verb: &str, user: &str, is_allowed: bool| {
        let user = format!("--as={user}-{name}");
        let arguments = ["auth", "can-i", verb, "asyncqueues.asyncqueue.io", "-n", name, &user];
        // It exits with an error where the answer is no.
        if is_allowed {
            let _ = kubectl(&arguments);
        } else {
            let _ = kubectl_refused(&arguments, "");
        }
    };
    for (user, may_edit) in [("view", false), ("edit", false), ("admin", true)] {
        ask("get", user, true);
        ask("create", user, may_edit);
        ask("patch", user, may_edit);
    }
}

fn pending(queue: &Value) -> Option<u64> {
    queue["status"]["pending"].as_u64()
}
