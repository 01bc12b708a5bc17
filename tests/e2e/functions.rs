//! Functions find their queues, and change them.

use serde_json::Value;
use test_support::cluster::{apply, apply_file, get, kubectl, object_is, object_is_gone};
use test_support::{cluster::PODS, wait::until_in};

use crate::support::{Gateway, Queue, function, object};

#[tokio::test]
async fn functions_of_openfaas_are_found_while_their_crd_is_there() {
    let queue = Queue::ready("function-cr", "{replicas: 0}").await;
    let namespace = queue.name();
    let (gateway, crd) = (Gateway::connect(), "customresourcedefinition/functions.openfaas.com");
    // Twice: what is forgotten when it goes is found again when it comes.
    for calls in 1..=2 {
        apply_file("tests/e2e/functions-crd.yaml");
        let _ = kubectl(&["wait", "--for=condition=Established", crd, "--timeout=60s"]);
        apply(&openfaas_function(namespace, "figlet", namespace));
        queue.is("a function known", |queue| functions(queue) == Some(1)).await;
        assert_eq!(gateway.submit(namespace, "figlet").await.status, 202);
        queue.is("its calls pending", |queue| pending(queue) == Some(calls)).await;
        let _ = kubectl(&["delete", crd, "--timeout=60s"]);
        queue.is("no function known", |queue| functions(queue) == Some(0)).await;
    }
    object_is("openfaas", "deployment/asyncqueue-operator", "still ready", |operator| {
        operator["status"]["readyReplicas"].as_u64() >= Some(1)
    })
    .await;
}

#[tokio::test]
async fn only_new_calls_follow_a_changed_annotation() {
    let first = Queue::ready("moving", "{replicas: 0}").await;
    let namespace = first.name();
    let second = format!("{namespace}-b");
    apply(&object(namespace, &second, "{replicas: 0}"));
    let (gateway, second) = (Gateway::connect(), format!("asyncqueue/{second}"));
    object_is(namespace, &second, "its stream there", |queue| {
        queue["status"]["stream"].is_string()
    })
    .await;

    apply(&function(namespace, "fast", namespace));
    apply(&function(namespace, "callbacks", namespace));
    first.is("functions known", |queue| functions(queue) == Some(2)).await;
    let stays = gateway.submit(namespace, "fast").await;
    first.is("a call pending", |queue| pending(queue) == Some(1)).await;

    apply(&function(namespace, "fast", &format!("{namespace}-b")));
    object_is(namespace, &second, "the function known", |queue| functions(queue) == Some(1)).await;
    let moves = gateway.submit(namespace, "fast").await;
    object_is(namespace, &second, "a call pending", |queue| pending(queue) == Some(1)).await;
    first.is("the first call still pending", |queue| pending(queue) == Some(1)).await;

    // Each is run by the workers of its queue, and of no other.
    first.apply("{replicas: 1}");
    gateway.callback(namespace, &stays.call_id).await;
    assert_eq!(pending(&get(namespace, &second).unwrap()), Some(1));
    apply(&object(namespace, &format!("{namespace}-b"), "{replicas: 1}"));
    gateway.callback(namespace, &moves.call_id).await;
}

#[tokio::test]
async fn calls_go_to_the_default_queue_if_the_named_queue_is_missing() {
    let queue = Queue::ready("lost", "{replicas: 0}").await;
    let namespace = queue.name();
    apply(&function(namespace, "callbacks", namespace));
    apply(&function(namespace, "fast", "no-such-queue, com.openfaas.retry.attempts: many"));
    until_in(PODS, "events that name the queue and the attempts", async || {
        let events =
            kubectl(&["get", "events", "-n", namespace, "-o", "jsonpath={.items[*].message}"]);
        let unread = "Invalid annotation com.openfaas.retry.attempts `many`: the setting of the \
                      queue applies";
        let warning = "com.openfaas.queue names `no-such-queue`, and there is no AsyncQueue of \
                    that name: calls go to faas-request";
        (events.contains(warning) && events.contains(unread)).then_some(())
    })
    .await;
    let gateway = Gateway::connect();
    let call = gateway.submit(namespace, "fast").await;
    gateway.callback(namespace, &call.call_id).await;

    // A function that is gone is not counted any more.
    queue.is("a function known", |queue| functions(queue) == Some(1)).await;
    let _ = kubectl(&["delete", "-n", namespace, "deployment/callbacks", "--wait=false"]);
    object_is_gone(namespace, "deployment/callbacks").await;
    queue.is("no function known", |queue| functions(queue) == Some(0)).await;
}

#[tokio::test]
async fn a_misspelt_function_is_an_event_on_the_default_queue() {
    let (gateway, name) = (Gateway::connect(), format!("slwo-{}", std::process::id()));
    let call = gateway.request("POST", &format!("/async-function/{name}"), &[], "secret").await;
    assert_eq!(call.status, 202, "{call:?}");
    until_in(PODS, "an event that names the function", async || {
        let described = kubectl(&["describe", "-n", "openfaas", "asyncqueue/faas-request"]);
        let (_, events) = described.split_once("Events:")?;
        let is_it = |line: &&str| {
            line.contains("Warning") && line.contains("FunctionNotFound") && line.contains(&name)
        };
        let event = events.lines().find(is_it)?;
        assert!(event.contains("unknown_function=reject") && !event.contains("secret"), "{event}");
        Some(())
    })
    .await;
    // It would be tried until its attempts are used up.
    let _ = gateway.request("DELETE", &format!("/async-function/{}", call.call_id), &[], "").await;
}

#[tokio::test]
async fn a_headless_service_is_called_on_its_target_port() {
    let queue = Queue::ready("headless", "{replicas: 1}").await;
    let namespace = queue.name();
    queue.deploy_functions(&["callbacks"]).await;
    // A workload that is not OpenFaaS's: no label of a function, and the annotation as a block
    // scalar writes it.
    let deployed = function(namespace, "web", namespace).replace("faas_function: web", "app: web");
    apply(deployed.split("---").next().unwrap_or_default());
    apply(&headless_service(namespace, "web", "8080"));
    queue.is("functions known", |queue| functions(queue) == Some(2)).await;
    let _ = kubectl(&["rollout", "status", "-n", namespace, "deployment/web", "--timeout=120s"]);
    let gateway = Gateway::connect();
    let call = gateway.submit(namespace, "web").await;
    let callback = gateway.callback(namespace, &call.call_id).await;
    assert_eq!(callback["headers"]["x-function-status"], "200", "{callback}");

    // Only the pods know the number of a port that is named.
    apply(&headless_service(namespace, "web", "web"));
    until_in(PODS, "an event that names the port", async || {
        let events =
            kubectl(&["get", "events", "-n", namespace, "-o", "jsonpath={.items[*].message}"]);
        events.contains("headless and its targetPort `web` is a name").then_some(())
    })
    .await;
}

/// A headless Service with port 80 and this target, whose annotation ends with a line break.
fn headless_service(namespace: &str, name: &str, target: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: {name}, namespace: {namespace}, \
         annotations: {{com.openfaas.queue: \"{namespace}\\n\"}}}}, spec: {{clusterIP: None, \
         selector: {{app: {name}}}, ports: [{{port: 80, targetPort: {target}}}]}}}}"
    )
}

fn functions(queue: &Value) -> Option<u64> {
    queue["status"]["functions"].as_u64()
}

fn pending(queue: &Value) -> Option<u64> {
    queue["status"]["pending"].as_u64()
}

fn openfaas_function(namespace: &str, name: &str, queue: &str) -> String {
    format!(
        "{{apiVersion: openfaas.com/v1, kind: Function, metadata: {{name: {name}, \
         namespace: {namespace}}}, spec: {{name: {name}, image: none, \
         annotations: {{com.openfaas.queue: {queue}}}}}}}"
    )
}
