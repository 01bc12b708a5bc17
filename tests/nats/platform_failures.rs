//! Which failures are the function's, and which the platform's: the latter are no attempts for a
//! day.

use test_support::{
    http::{HttpServer, respond},
    nats::NatsServer,
    raw::Listener,
    wait::until,
};

use crate::{
    gateway::Gateway,
    support::{Queue, start_worker},
};

/// A URL at which no server listens.
async fn nowhere() -> String {
    Listener::start().await.url()
}

#[tokio::test]
async fn a_function_that_is_down_behind_our_gateway_uses_its_attempts() {
    let queue = Queue::standalone().await;
    // As docs/standalone.md has it: workers call functions through the gateway, which knows where
    // they are.
    let directory = format!(
        "queues: {{jobs: }}\nfunctions: {{figlet: {{queue: jobs, url: \"{}\", \
         retry: {{attempts: 2, minWait: 1s, maxWait: 1s}}}}}}",
        nowhere().await
    );
    let gateway = Gateway::start(&queue.nats, &directory, &[("ensure_stream", "true")]).await;
    gateway.is_ready().await;
    let function = HttpServer::start().await;
    let gateway_url = format!("http://{}", gateway.addr);
    let worker =
        queue.worker(&function, &[("gateway_url", &gateway_url), ("ensure_stream", "true")]);
    let id = gateway.submit(&[], "hi").await;
    queue.holds("jobs-dead", 1).await;
    queue.empties().await;
    let line = worker.logged("moving the call to the dead-letter stream").await;
    assert!(
        line.contains(&id) && line.contains("the function answered 502 (attempt 2 of 2)"),
        "{line}"
    );
    assert_eq!(worker.log().iter().filter(|line| line.contains("Invoked figlet [502]")).count(), 2);
    assert!(!worker.log().iter().any(|line| line.contains("not counted")));
}

#[tokio::test]
async fn a_failure_of_the_platform_says_until_when_it_is_not_counted() {
    let queue = Queue::start().await;
    // OpenFaaS's own gateway, where the function has no endpoint.
    let openfaas = HttpServer::answering(|_| {
        let answer = respond(503, "no endpoints available for: figlet\nat proxy.go");
        Box::pin(async {
            let mut response = answer.await;
            response.headers_mut().insert("x-openfaas-internal", "faas-netes".parse().unwrap());
            response
        })
    })
    .await;
    let worker = start_worker(
        &queue.nats,
        &openfaas,
        &[
            ("gateway_url", &openfaas.url()),
            ("initial_retry_wait", "20s"),
            ("max_retry_wait", "20s"),
        ],
    );
    let gateway = Gateway::before(&queue, &[]).await;
    let id = gateway.submit(&[], "hi").await;
    let line = worker.logged("not counted as an attempt until 20").await;
    assert!(
        line.contains("(X-OpenFaaS-Internal: faas-netes: no endpoints available for: figlet)"),
        "{line}"
    );
    let state = until("the call waits", async || {
        let answer = gateway.call("GET", &format!("/async-function/{id}"), &[], "").await;
        let state: serde_json::Value = serde_json::from_slice(&answer.body).ok()?;
        (state["state"] == "waiting").then_some(state)
    })
    .await;
    let time =
        |value: &serde_json::Value| value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let (submitted, until) = (time(&state["submittedAt"]), time(&state["notCountedUntil"]));
    let day = until.duration_since(submitted);
    assert!((86_395..=86_405).contains(&day.as_secs()), "{day}");
}

#[tokio::test]
async fn an_upstream_that_is_away_is_not_counted_as_the_functions_failure() {
    let queue = Queue::start().await;
    let nats = NatsServer::prepare();
    let gateway = Gateway::start(&nats, "", &[("upstream_url", &nowhere().await)]).await;
    let function = HttpServer::start().await;
    let gateway_url = format!("http://{}", gateway.addr);
    let worker =
        queue.worker(&function, &[("gateway_url", &gateway_url), ("max_retry_attempts", "1")]);
    queue.submit(|_| {}).await;
    let line = worker.logged("not counted as an attempt until").await;
    assert!(line.contains("can't reach the gateway at upstream_url"), "{line}");
    assert_eq!(queue.info("jobs-dead").await.state.messages, 0);
}
