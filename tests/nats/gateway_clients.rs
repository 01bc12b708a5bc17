//! Clients of `OpenFaaS`, byte for byte: their requests in `tests/clients/requests` are taken, and
//! what each client looks for in the answer is there.

use std::iter::zip;

use asyncqueue::{CallbackUrl, Invocation};
use http::HeaderMap;
use test_support::{
    clients::{Recording, recordings},
    http::{HttpServer, respond},
    nats::NatsServer,
    raw::RawResponse,
};

use crate::{
    gateway::{Gateway, calls},
    support::Queue,
};

const CALLS: &str = "/async-function/";

/// The call that the recorded cancellations are for.
const CANCELLED: &str = "ee7fcaeb-82b7-4834-b677-45005c5f0b1b";

/// Headers that speak of a connection and not of the call.
const OF_THE_CONNECTION: [&str; 4] = ["host", "connection", "content-length", "transfer-encoding"];

/// A gateway that calls functions of the namespaces that the clients name.
async fn start() -> (Queue, Gateway) {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[("function_namespaces", "dev")]).await;
    (queue, gateway)
}

/// Sends a recorded request as it is.
async fn replay(gateway: &Gateway, recording: &Recording) -> RawResponse {
    let mut connection = gateway.connect().await;
    connection.send(&recording.bytes).await;
    connection.response().await
}

/// Sends a recorded call, and returns the answer and the call as it is stored.
async fn submit(queue: &Queue, gateway: &Gateway, name: &str) -> (RawResponse, Invocation) {
    let recording = Recording::load(name);
    let answer = replay(gateway, &recording).await;
    assert_taken(&answer, name);
    let call = calls(queue).await.pop().unwrap();
    assert_stored_as_sent(&call, &recording);
    (answer, call)
}

/// What OpenFaaS answers to a call: 202 without a body, and the call's id.
fn assert_taken(answer: &RawResponse, name: &str) {
    assert_eq!((answer.status, answer.text().as_str()), (202, ""), "{name}");
    assert_eq!(answer.header("content-length"), "0", "{name}");
    assert_eq!(answer.header("x-call-id").len(), 36, "{name}");
    assert!(answer.header("x-start-time").parse::<u64>().is_ok(), "{name}");
}

fn assert_stored_as_sent(call: &Invocation, sent: &Recording) {
    let target = sent.target.strip_prefix(CALLS).unwrap();
    let (function, query) =
        target.split_once('?').map_or((target, None), |(name, query)| (name, Some(query)));
    let namespace = if function.contains('.') { "" } else { ".openfaas-fn" };
    assert_eq!(call.function.to_string(), format!("{function}{namespace}"), "{}", sent.name);
    assert_eq!((call.path.as_str(), call.query.as_deref()), ("", query), "{}", sent.name);
    assert_eq!(call.body, sent.body, "{}", sent.name);
    let callback = sent.header("x-callback-url").pop().map(|url| CallbackUrl::parse(url).unwrap());
    assert_eq!(call.callback_url, callback, "{}", sent.name);
    assert_headers(&call.headers, sent);
    for name in OF_THE_CONNECTION {
        assert!(!call.headers.contains_key(name), "{}: {name}", sent.name);
    }
}

/// All that the client said is there, in its order.
fn assert_headers(headers: &HeaderMap, sent: &Recording) {
    for (name, _) in
        sent.headers.iter().filter(|(name, _)| !OF_THE_CONNECTION.contains(&name.as_str()))
    {
        let values: Vec<_> =
            headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect();
        assert_eq!(values, sent.header(name), "{}: {name}", sent.name);
    }
}

#[tokio::test]
async fn every_recorded_call_is_stored_as_it_was_sent() {
    let (queue, gateway) = start().await;
    let mut sent = recordings();
    sent.retain(|recording| recording.target.starts_with(CALLS) && recording.method == "POST");
    for recording in &sent {
        assert_taken(&replay(&gateway, recording).await, &recording.name);
    }
    let stored = calls(&queue).await;
    assert_eq!(stored.len(), sent.len());
    zip(&stored, &sent).for_each(|(call, recording)| assert_stored_as_sent(call, recording));
}

#[tokio::test]
async fn every_recorded_request_for_openfaas_reaches_it() {
    let openfaas = HttpServer::answering(|_| respond(202, "of OpenFaaS")).await;
    let nats = NatsServer::prepare();
    let gateway = Gateway::start(&nats, "queues: {}", &[("upstream_url", &openfaas.url())]).await;
    let mut sent = recordings();
    sent.retain(|recording| !recording.target.starts_with(CALLS));
    for recording in &sent {
        let answer = replay(&gateway, recording).await;
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (202, "of OpenFaaS"),
            "{}",
            recording.name
        );
        let received = openfaas.received().pop().unwrap();
        let line = (received.method.as_str(), received.target.as_str());
        assert_eq!(
            line,
            (recording.method.as_str(), recording.target.as_str()),
            "{}",
            recording.name
        );
        assert_eq!(received.body, recording.body, "{}", recording.name);
        assert_headers(&received.headers, recording);
    }
    assert_eq!(openfaas.received().len(), sent.len());
    assert!(
        sent.iter().any(|recording| recording.target == "/system/functions?namespace=openfaas-fn")
    );
}

#[tokio::test]
async fn every_recorded_cancellation_ends_the_call() {
    let (queue, gateway) = start().await;
    let mut sent = recordings();
    sent.retain(|recording| recording.method == "DELETE");
    assert!(sent.len() >= 2, "curl and python-requests");
    for recording in &sent {
        assert_eq!(recording.target, format!("{CALLS}{CANCELLED}"));
        assert_eq!(replay(&gateway, recording).await.status, 404, "{}", recording.name);
    }
    for recording in &sent {
        gateway.submit(&[("x-call-id", CANCELLED)], &recording.name).await;
        queue.holds("jobs", 1).await;
        // Both take 202 for done.
        assert_eq!(replay(&gateway, recording).await.status, 202, "{}", recording.name);
        queue.holds("jobs", 0).await;
    }
}

#[tokio::test]
async fn faas_cli_gets_202_for_its_calls() {
    // It prints `Function submitted asynchronously.` for exactly 202.
    let (queue, gateway) = start().await;
    let (_, call) = submit(&queue, &gateway, "faas-cli-from-source/invoke_async").await;
    assert_eq!(
        (call.function.to_string().as_str(), &call.body[..]),
        ("figlet.openfaas-fn", &b"hi\n"[..])
    );
    assert_eq!(call.callback_url.unwrap().to_string(), "http://caller:9000/cb");
    let (_, call) = submit(&queue, &gateway, "faas-cli-from-source/invoke_async_with_query").await;
    assert_eq!((call.function.to_string().as_str(), call.body.len()), ("figlet.dev", 0));
    assert_eq!(call.query.as_deref(), Some("a=1+%C3%BC&b=2"));
    let (_, call) = submit(&queue, &gateway, "faas-cli-from-source/invoke_async_signed").await;
    assert!(call.headers["x-hub-signature"].to_str().unwrap().starts_with("sha1="));
    let (_, call) =
        submit(&queue, &gateway, "faas-cli-before-go-sdk-from-source/invoke_async").await;
    assert_eq!(call.function.to_string(), "figlet.openfaas-fn");
    assert_eq!(call.query.as_deref(), Some("a=1&b=2"));
}

#[tokio::test]
async fn faas_cli_has_a_line_to_print_for_a_refusal() {
    let queue = Queue::start().await;
    let gateway =
        Gateway::start(&queue.nats, "queues: {jobs: }", &[("unknown_function", "reject")]).await;
    gateway.is_ready().await;
    // It prints status and body for all that is not 2xx.
    let answer = replay(&gateway, &Recording::load("faas-cli-from-source/invoke_async")).await;
    assert_eq!((answer.status, answer.header("content-type")), (404, "text/plain; charset=utf-8"));
    assert!(answer.text().contains("`figlet.openfaas-fn` not found"), "{}", answer.text());
}

#[tokio::test]
async fn go_sdk_calls_are_stored_whole_or_streamed() {
    let (queue, gateway) = start().await;
    let (answer, call) = submit(&queue, &gateway, "go-sdk-from-source/invoke_async").await;
    // The program gets the answer as it is, and with it the id.
    assert_eq!(answer.header("x-call-id"), call.call_id.as_str());
    assert_eq!(call.headers["user-agent"], "openfaas-go-sdk");
    let (_, call) = submit(&queue, &gateway, "go-sdk-from-source/invoke_async_of_a_stream").await;
    assert_eq!(&call.body[..], b"hi\n");
}

#[tokio::test]
async fn python_sdk_gets_the_id_of_its_call() {
    let (queue, gateway) = start().await;
    let (answer, call) =
        submit(&queue, &gateway, "python-sdk-0.1.0-from-source/invoke_function_async").await;
    assert_eq!(answer.header("x-call-id"), call.call_id.as_str());
    assert_eq!(call.callback_url.unwrap().to_string(), "https://a.example/cb");
    let name = "python-sdk-0.1.0-from-source/invoke_function_async_without_payload";
    let (_, call) = submit(&queue, &gateway, name).await;
    assert_eq!((call.query.as_deref(), call.body.len()), (Some("verbose=1"), 0));
}

#[tokio::test]
async fn cron_connector_runs_functions_without_body_and_headers() {
    let (queue, gateway) = start().await;
    // It logs the status, and looks at nothing else.
    let (_, call) = submit(&queue, &gateway, "cron-connector-from-source/invoke_async").await;
    assert_eq!((call.function.to_string().as_str(), call.body.len()), ("nightly.openfaas-fn", 0));
    assert!(!call.headers.contains_key("content-type"));
}

#[tokio::test]
async fn cron_connector_finds_functions_through_the_gateway() {
    const FUNCTIONS: &str =
        r#"[{"name":"nightly","annotations":{"topic":"cron-function","schedule":"0 2 * * *"}}]"#;
    let openfaas = HttpServer::answering(|request| match request.target.as_str() {
        "/system/namespaces" => respond(200, r#"["openfaas-fn"]"#),
        "/system/functions?namespace=openfaas-fn" => respond(200, FUNCTIONS),
        _ => respond(404, ""),
    })
    .await;
    let nats = NatsServer::prepare();
    let gateway = Gateway::start(&nats, "queues: {}", &[("upstream_url", &openfaas.url())]).await;
    // Without them it ends.
    let answer =
        replay(&gateway, &Recording::load("cron-connector-from-source/list_namespaces")).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, r#"["openfaas-fn"]"#));
    let answer =
        replay(&gateway, &Recording::load("cron-connector-from-source/list_functions")).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, FUNCTIONS));
    assert_eq!(openfaas.received()[1].header("authorization"), "Basic YWRtaW46c2VjcmV0");
}

#[tokio::test]
async fn connector_sdk_says_topic_and_connector() {
    let (queue, gateway) = start().await;
    let (_, call) = submit(&queue, &gateway, "connector-sdk-from-source/invoke_async").await;
    assert!(!call.headers.contains_key("user-agent"));
    assert_eq!(
        (&call.headers["x-topic"], &call.body[..]),
        (&"payment".parse().unwrap(), &b"{\"order\":7}"[..])
    );
    let name = "connector-sdk-from-source/invoke_async_by_a_named_connector";
    let (_, call) = submit(&queue, &gateway, name).await;
    let connectors: Vec<_> = call.headers.get_all("x-connector").iter().collect();
    assert_eq!(connectors, ["connector-sdk", "cron-connector"]);
    assert_eq!(call.body.len(), 0);
}

#[tokio::test]
async fn curl_sends_credentials_that_no_gateway_asked_for() {
    let (queue, gateway) = start().await;
    let mut sent = recordings();
    sent.retain(|recording| {
        recording.name.starts_with("curl-") && recording.name.ends_with("_credentials")
    });
    let (_, call) = submit(&queue, &gateway, &sent[0].name).await;
    assert_eq!(call.headers["authorization"], "Basic YWRtaW46c2VjcmV0");
}

#[tokio::test]
async fn openfaas_worker_that_calls_back_keeps_its_start_time() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    let request = Recording::by_hand(
        "POST /async-function/chained HTTP/1.1\n\
         Host: gateway:8080\n\
         User-Agent: openfaas-ce/nats-queue-worker\n\
         Content-Length: 2\n\
         X-Call-Id: f5a9813d-4d11-4a4c-9f0c-2f1f0e0f5d3b\n\
         X-Function-Status: 200\n\
         X-Start-Time: 1795493048888321044\n\n\
         hi",
    );
    let answer = replay(&gateway, &request).await;
    assert_eq!(answer.header("x-call-id"), "f5a9813d-4d11-4a4c-9f0c-2f1f0e0f5d3b");
    let call = calls(&queue).await.remove(0);
    let times: Vec<_> = call.headers.get_all("x-start-time").iter().collect();
    assert_eq!(times, ["1795493048888321044", answer.header("x-start-time")]);
}
