//! Functions in namespaces that are not called: by the gateway, and by a worker that calls
//! functions itself.

use asyncqueue::{FunctionName, message::dead_letter::H_REASON};
use test_support::{http::HttpServer, wait::until};

use crate::{
    gateway::{Gateway, messages},
    support::{Queue, callback_at},
};

/// A gateway in the namespace `openfaas`, by which each function of each namespace is at
/// `function`.
async fn start(queue: &Queue, function: &HttpServer, settings: &[(&str, &str)]) -> Gateway {
    let function_url = format!("{}/{{namespace}}/{{function}}", function.url());
    let mut all = vec![("POD_NAMESPACE", "openfaas"), ("function_url", &function_url)];
    all.extend_from_slice(settings);
    let directory = "queues: {jobs: }\nfunctions: {known.team-a: {}}";
    let gateway = Gateway::start(&queue.nats, directory, &all).await;
    gateway.is_ready().await;
    gateway
}

/// What a gateway answers for a function, called now and later.
async fn statuses(gateway: &Gateway, function: &str) -> (u16, u16) {
    let now = gateway.call("GET", &format!("/function/{function}/metrics"), &[], "").await;
    let later = gateway.call("POST", &format!("/async-function/{function}"), &[], "hi").await;
    if now.status == 403 {
        for text in [now.text(), later.text()] {
            assert!(text.contains("functions in the namespace `"), "{text}");
        }
    }
    (now.status, later.status)
}

const CALLED: (u16, u16) = (200, 202);
const REFUSED: (u16, u16) = (403, 403);

#[tokio::test]
async fn functions_of_other_namespaces_are_not_reached() {
    let (queue, function) = (Queue::start().await, HttpServer::start().await);
    let gateway = start(&queue, &function, &[("function_namespaces", "dev, staging")]).await;
    for good in [
        "figlet",
        "figlet.openfaas-fn",
        "figlet.dev",
        "figlet.staging",
        "known.team-a",
        "new.team-a",
    ] {
        assert_eq!(statuses(&gateway, good).await, CALLED, "{good}");
    }
    let reached = function.received().len();
    for bad in ["prometheus.monitoring", "figlet.default", "figlet.devs"] {
        assert_eq!(statuses(&gateway, bad).await, REFUSED, "{bad}");
    }
    let text = gateway.call("PUT", "/function/prometheus.monitoring", &[], "").await.text();
    assert!(
        text.contains("`monitoring` are not called: add it to the setting function_namespaces"),
        "{text}"
    );
    assert_eq!(function.received().len(), reached);
    queue.holds("jobs", 6).await;
    assert_eq!(gateway.metric(r#"gateway_submissions_total{outcome="namespace"}"#).await, 3);
}

#[tokio::test]
async fn functions_of_the_platform_are_never_reached() {
    let (queue, function) = (Queue::start().await, HttpServer::start().await);
    let gateway = start(&queue, &function, &[("function_namespaces", "*")]).await;
    assert_eq!(statuses(&gateway, "prometheus.monitoring").await, CALLED);
    for bad in [
        "kube-state-metrics.kube-system",
        "kube-state-metrics.KUBE-System",
        "x.kube-public",
        "x.kube-node-lease",
        "asyncqueue-gateway.openfaas",
        "nats.OpenFaaS",
    ] {
        assert_eq!(statuses(&gateway, bad).await, REFUSED, "{bad}");
    }
    for method in ["PUT", "DELETE", "OPTIONS", "PATCH", "HEAD"] {
        let answer =
            gateway.call(method, "/function/kube-state-metrics.kube-system/", &[], "").await;
        assert_eq!(answer.status, 403, "{method}");
    }
    assert_eq!(function.received().len(), 1);
    queue.holds("jobs", 1).await;
}

#[tokio::test]
async fn a_stored_call_of_another_namespace_is_dead_at_once() {
    let (queue, function) = (Queue::start().await, HttpServer::start().await);
    let client = HttpServer::start().await;
    let settings = [("function_namespaces", "dev"), ("platform_namespace", "openfaas")];
    let worker = queue.worker(&function, &settings);
    for function in
        ["figlet.dev", "dns.kube-system", "asyncqueue-gateway.openfaas", "figlet.monitoring"]
    {
        queue
            .submit(|call| {
                call.function = FunctionName::parse(function, "").unwrap();
                call.callback_url = Some(callback_at(&client));
            })
            .await;
    }
    queue.holds("jobs-dead", 3).await;
    queue.empties().await;
    let mut statuses = Vec::new();
    for callback in client.receives(4).await {
        let name = callback.header("x-function-name").to_owned();
        statuses.push((name, callback.header("x-function-status").to_owned()));
    }
    statuses.sort();
    let expected = [
        ("asyncqueue-gateway.openfaas", "403"),
        ("dns.kube-system", "403"),
        ("figlet.dev", "200"),
        ("figlet.monitoring", "403"),
    ];
    assert_eq!(statuses, expected.map(|(name, status)| (name.to_owned(), status.to_owned())));
    assert_eq!(function.received().len(), 1);
    for message in messages(&queue, "jobs-dead").await {
        let reason = message.headers.get(H_REASON).unwrap().as_str();
        assert!(reason.starts_with("functions in the namespace `"), "{reason}");
    }
    worker.logged("add it to the setting function_namespaces").await;
}

#[tokio::test]
async fn a_chain_into_another_namespace_ends_at_the_gateway() {
    let (queue, function) = (Queue::start().await, HttpServer::start().await);
    let gateway = start(&queue, &function, &[]).await;
    let _worker = queue.worker(&function, &[("callback_max_attempts", "1")]);
    let next = format!("http://{}/async-function/dns.kube-system", gateway.addr);
    gateway.submit(&[("X-Callback-Url", &next)], "hi").await;
    queue.holds("jobs-dead", 1).await;
    let reason = messages(&queue, "jobs-dead").await.remove(0);
    let reason = reason.headers.get(H_REASON).unwrap().as_str();
    assert!(reason.contains("403"), "{reason}");
    until("the function ran once", async || (function.received().len() == 1).then_some(())).await;
}
