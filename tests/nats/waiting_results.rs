//! Clients that wait for the result of their call.

use std::time::Duration;

use test_support::{
    http::{HttpServer, respond, respond_after},
    raw::RawResponse,
    wait::until,
};

use crate::{gateway::Gateway, support::Queue};

/// Longer than any test.
const LONG: Duration = Duration::from_secs(60);

async fn wait_for(gateway: &Gateway, seconds: &str, headers: &[(&str, &str)]) -> RawResponse {
    let prefer = format!("wait={seconds}");
    let mut all = vec![("prefer", prefer.as_str())];
    all.extend_from_slice(headers);
    gateway.call("POST", "/async-function/figlet", &all, "hi").await
}

fn ended(answer: &RawResponse, status: u16, state: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(
        (answer.header("preference-applied"), answer.header("x-call-state")),
        ("wait", state)
    );
}

async fn no_wait_is_left(gateway: &Gateway) {
    until("no request waits", async || {
        (gateway.metric("gateway_waits_in_progress").await == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn client_that_waits_gets_the_response_of_the_function() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    let function = HttpServer::answering(|_| respond(201, "made")).await;
    let _worker = queue.worker(&function, &[]);
    for headers in [&[][..], &[("x-call-id", "order-7")], &[("idempotency-key", "key-7")]] {
        let answer = wait_for(&gateway, "30", headers).await;
        ended(&answer, 201, "done");
        assert_eq!(answer.text(), "made");
        // It is kept too, and a repeat gets it.
        let path = format!("/async-function/{}/result", answer.header("x-call-id"));
        assert_eq!(gateway.call("GET", &path, &[], "").await.status, 200);
        if !headers.is_empty() {
            ended(&wait_for(&gateway, "30", headers).await, 201, "done");
        }
    }
    queue.empties().await;
    assert_eq!(function.received().len(), 3);
    no_wait_is_left(&gateway).await;
    assert_eq!(gateway.metric(r#"gateway_waits_total{outcome="ended"}"#).await, 3);
}

#[tokio::test]
async fn client_gets_202_if_the_call_takes_longer() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[("max_wait", "1s")]).await;
    let answer = wait_for(&gateway, "30", &[]).await;
    assert_eq!(answer.status, 202);
    let id = answer.header("x-call-id").to_owned();
    assert_eq!(answer.header("location"), format!("/async-function/{id}"));
    for invalid in ["soon", "0", "-1"] {
        let answer = wait_for(&gateway, invalid, &[]).await;
        assert_eq!(answer.status, 202, "{invalid}");
        assert!(!answer.headers.iter().any(|(name, _)| name == "location"), "{invalid}");
    }
    no_wait_is_left(&gateway).await;
    assert_eq!(gateway.metric(r#"gateway_waits_total{outcome="timed_out"}"#).await, 1);
    // Its result is kept for a while.
    let function = HttpServer::start().await;
    let _worker = queue.worker(&function, &[]);
    until("the result is there", async || {
        let path = format!("/async-function/{id}/result");
        (gateway.call("GET", &path, &[], "").await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn every_end_answers_a_client_that_waits() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    let cancelled = async {
        let answer = wait_for(&gateway, "30", &[("x-call-id", "order-7")]).await;
        ended(&answer, 499, "cancelled");
    };
    let cancel = async {
        queue.holds("jobs", 1).await;
        let answer = gateway.call("DELETE", "/async-function/order-7", &[], "").await;
        assert_eq!(answer.status, 202);
    };
    tokio::join!(cancelled, cancel);
    let expired = async {
        ended(&wait_for(&gateway, "30", &[]).await, 504, "expired");
    };
    let function = HttpServer::answering(|_| respond(500, "broken")).await;
    let settings = [("max_age", "1s"), ("max_retry_attempts", "2")];
    let late_worker = async {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        queue.worker(&function, &settings)
    };
    let ((), _worker) = tokio::join!(expired, late_worker);
    let answer = wait_for(&gateway, "30", &[]).await;
    ended(&answer, 500, "dead");
    assert_eq!(answer.text(), "broken");
}

#[tokio::test]
async fn calls_with_one_id_get_their_own_results() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    let function = HttpServer::answering(|request| {
        respond(200, str::from_utf8(&request.body).unwrap_or_default())
    })
    .await;
    let headers = [("prefer", "wait=30"), ("x-call-id", "order-7")];
    let call = async |body: &'static str| {
        let answer = gateway.call("POST", "/async-function/figlet", &headers, body).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, body));
    };
    let worker = async {
        queue.holds("jobs", 3).await;
        queue.worker(&function, &[("max_inflight", "3")])
    };
    let ((), (), (), _worker) = tokio::join!(call("a"), call("b"), call("c"), worker);
}

#[tokio::test]
async fn waits_are_limited_and_end_with_their_client() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[("max_waits", "1")]).await;
    let function = HttpServer::answering(|_| respond_after(LONG, 200, "late")).await;
    let _worker = queue.worker(&function, &[]);
    let mut first = gateway.connect().await;
    first
        .send(
            "POST /async-function/figlet HTTP/1.1\r\nhost: a\r\nprefer: wait=60\r\n\
             content-length: 0\r\n\r\n",
        )
        .await;
    until("the first request waits", async || {
        (gateway.metric("gateway_waits_in_progress").await == 1).then_some(())
    })
    .await;
    let answer = wait_for(&gateway, "60", &[]).await;
    assert_eq!((answer.status, answer.header("location").is_empty()), (202, false));
    assert_eq!(gateway.metric(r#"gateway_waits_total{outcome="refused"}"#).await, 1);
    first.reset();
    no_wait_is_left(&gateway).await;
    queue.holds("jobs", 2).await;
}

#[tokio::test]
async fn waits_are_answered_at_a_shutdown() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    let waiting = wait_for(&gateway, "60", &[]);
    let stop = async {
        queue.holds("jobs", 1).await;
        gateway.program.signal("TERM");
    };
    let (answer, ()) = tokio::join!(waiting, stop);
    assert_eq!(answer.status, 202);
}
