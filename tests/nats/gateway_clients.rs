//! Clients that exist, byte for byte: what they send today is taken, and what they look for in the answer is there.

use asyncqueue_tests::raw::RawResponse;

use crate::{
    gateway::{Gateway, calls},
    support::Queue,
};

/// Sends a request as it stands here, with lines as on the wire.
async fn replay(gateway: &Gateway, request: &str) -> RawResponse {
    let (head, body) = request.split_once("\n\n").unwrap();
    let mut connection = gateway.connect().await;
    connection.send(format!("{}\r\n\r\n{body}", head.replace('\n', "\r\n"))).await;
    connection.response().await
}

#[tokio::test]
async fn faas_cli_invoke_async() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    let request = "POST /async-function/figlet.openfaas-fn HTTP/1.1\n\
                   Host: 127.0.0.1:8080\n\
                   User-Agent: faas-cli/0.17.0\n\
                   Content-Length: 3\n\
                   Content-Type: text/plain\n\
                   X-Callback-Url: http://caller:9000/cb\n\
                   Accept-Encoding: gzip\n\n\
                   hi\n";
    // It prints `Function submitted asynchronously.` for exactly 202, and fails for any other.
    assert_eq!(replay(&gateway, request).await.status, 202);
    let call = calls(&queue).await.remove(0);
    assert_eq!((call.function.to_string().as_str(), &call.body[..]), ("figlet.openfaas-fn", &b"hi\n"[..]));
    assert_eq!(call.callback_url.unwrap().to_string(), "http://caller:9000/cb");
    assert_eq!(call.headers["user-agent"], "faas-cli/0.17.0");
}

#[tokio::test]
async fn faas_cli_with_its_input_from_a_pipe() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    // Go does not know the length of what it reads from a pipe.
    let request = "POST /async-function/figlet.openfaas-fn?a=1&b=2 HTTP/1.1\n\
                   Host: 127.0.0.1:8080\n\
                   User-Agent: Go-http-client/1.1\n\
                   Transfer-Encoding: chunked\n\
                   Accept-Encoding: gzip\n\n\
                   3\r\nhi\n\r\n0\r\n\r\n";
    assert_eq!(replay(&gateway, request).await.status, 202);
    let call = calls(&queue).await.remove(0);
    assert_eq!((call.query.as_deref(), &call.body[..]), (Some("a=1&b=2"), &b"hi\n"[..]));
}

#[tokio::test]
async fn the_python_sdk() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    // Names of headers as Python's requests writes them, JSON, and an empty body in the second.
    let request = "POST /async-function/env.openfaas-fn HTTP/1.1\n\
                   Host: 127.0.0.1:8080\n\
                   User-Agent: python-requests/2.32.3\n\
                   Accept-Encoding: gzip, deflate\n\
                   Accept: */*\n\
                   Connection: keep-alive\n\
                   X-Callback-Url: https://caller.example/cb?x=1\n\
                   Content-Length: 13\n\
                   Content-Type: application/json\n\n\
                   {\"key\": \"v1\"}";
    let answer = replay(&gateway, request).await;
    assert_eq!(answer.status, 202);
    // It looks for the id under the name that OpenFaaS gives it, in any case.
    assert_eq!(answer.header("x-call-id").len(), 36);
    let empty = "POST /async-function/env.openfaas-fn HTTP/1.1\n\
                 Host: 127.0.0.1:8080\n\
                 User-Agent: python-requests/2.32.3\n\
                 Accept-Encoding: gzip, deflate\n\
                 Accept: */*\n\
                 Connection: keep-alive\n\
                 Content-Length: 0\n\n";
    assert_eq!(replay(&gateway, empty).await.status, 202);
    let calls = calls(&queue).await;
    assert_eq!((&calls[0].body[..], calls[1].body.len()), (&br#"{"key": "v1"}"#[..], 0));
    assert!(!calls[0].headers.contains_key("connection"));
}

#[tokio::test]
async fn airflows_http_hook() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    let request = "POST /async-function/report HTTP/1.1\n\
                   Host: gateway.openfaas:8080\n\
                   User-Agent: python-requests/2.31.0\n\
                   Accept-Encoding: gzip, deflate\n\
                   Accept: */*\n\
                   Connection: keep-alive\n\
                   Content-Length: 21\n\
                   Content-Type: application/x-www-form-urlencoded\n\n\
                   day=2026-11-24&full=1";
    // Any 2xx will do for it; its body is kept for the log.
    let answer = replay(&gateway, request).await;
    assert_eq!((answer.status, answer.text().as_str()), (202, ""));
    let call = calls(&queue).await.remove(0);
    assert_eq!(&call.body[..], b"day=2026-11-24&full=1");
    assert_eq!(call.headers["content-type"], "application/x-www-form-urlencoded");
}

#[tokio::test]
async fn the_cron_connector() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    let request = "POST /async-function/nightly.openfaas-fn HTTP/1.1\n\
                   Host: gateway.openfaas.svc.cluster.local:8080\n\
                   User-Agent: openfaas/cron-connector\n\
                   Transfer-Encoding: chunked\n\
                   Content-Type: text/plain\n\
                   X-Connector: cron-connector\n\
                   X-Topic: cron-function\n\
                   Accept-Encoding: gzip\n\n\
                   0\r\n\r\n";
    assert_eq!(replay(&gateway, request).await.status, 202);
    let call = calls(&queue).await.remove(0);
    assert_eq!((call.headers["x-connector"].as_bytes(), call.body.len()), (&b"cron-connector"[..], 0));
    assert_eq!(call.headers["x-topic"], "cron-function");
}

#[tokio::test]
async fn curl_with_credentials_that_the_gateway_never_asked_for() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    let request = "POST /async-function/figlet HTTP/1.1\n\
                   Host: 127.0.0.1:8080\n\
                   Authorization: Basic YWRtaW46c2VjcmV0\n\
                   User-Agent: curl/7.88.1\n\
                   Accept: */*\n\
                   Content-Length: 8\n\
                   Content-Type: application/x-www-form-urlencoded\n\n\
                   hi there";
    let answer = replay(&gateway, request).await;
    assert_eq!((answer.status, answer.header("content-length")), (202, "0"));
    assert!(answer.header("x-start-time").parse::<u64>().is_ok());
    assert_eq!(calls(&queue).await[0].headers["authorization"], "Basic YWRtaW46c2VjcmV0");
}

#[tokio::test]
async fn a_worker_of_openfaas_that_comes_back_with_a_start_time_of_its_own() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    let request = "POST /async-function/chained HTTP/1.1\n\
                   Host: gateway:8080\n\
                   User-Agent: openfaas-ce/nats-queue-worker\n\
                   Content-Length: 2\n\
                   X-Call-Id: f5a9813d-4d11-4a4c-9f0c-2f1f0e0f5d3b\n\
                   X-Function-Status: 200\n\
                   X-Start-Time: 1795493048888321044\n\n\
                   hi";
    let answer = replay(&gateway, request).await;
    assert_eq!(answer.header("x-call-id"), "f5a9813d-4d11-4a4c-9f0c-2f1f0e0f5d3b");
    let call = calls(&queue).await.remove(0);
    let times: Vec<_> = call.headers.get_all("x-start-time").iter().collect();
    assert_eq!(times, ["1795493048888321044", answer.header("x-start-time")]);
}
