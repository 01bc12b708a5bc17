//! Clients that wait for the result of a call that was submitted before.

use std::time::Duration;

use futures::future::join_all;
use test_support::{
    http::{HttpServer, respond, respond_after},
    raw::RawResponse,
    wait::until,
};

use crate::{gateway::Gateway, support::Queue};

/// Longer than any test.
const LONG: Duration = Duration::from_secs(60);

const KEEP: (&str, &str) = ("x-keep-result", "1h");

const WAITS_IN_PROGRESS: &str = "gateway_waits_in_progress";

async fn wait_for(gateway: &Gateway, call: &str, time: &str) -> RawResponse {
    gateway.call("GET", &format!("/async-function/{call}/result?wait={time}"), &[], "").await
}

fn says(answer: &RawResponse, state: &str, status: &str) {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(
        (answer.header("x-call-state"), answer.header("x-function-status")),
        (state, status)
    );
}

async fn waiting(gateway: &Gateway, count: u64) {
    until(&format!("{count} requests wait"), async || {
        (gateway.metric(WAITS_IN_PROGRESS).await == count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn client_of_another_gateway_gets_the_result_at_the_end() {
    let queue = Queue::start().await;
    let (first, second) = (Gateway::before(&queue, &[]).await, Gateway::before(&queue, &[]).await);
    let function = HttpServer::answering(|_| respond(201, "made")).await;
    let generated = first.submit(&[KEEP], "hi").await;
    first.submit(&[KEEP, ("x-call-id", "order-7")], "hi").await;
    let by_function = format!("figlet/{generated}");
    let starts = async {
        waiting(&second, 3).await;
        queue.worker(&function, &[])
    };
    let (one, other, third, _worker) = tokio::join!(
        wait_for(&second, &generated, "60s"),
        wait_for(&second, "order-7", "60s"),
        wait_for(&second, &by_function, "60s"),
        starts
    );
    for answer in [&one, &other, &third] {
        says(answer, "done", "201");
        assert_eq!(answer.text(), "made");
    }
    waiting(&second, 0).await;
    assert_eq!(second.metric(r#"gateway_waits_total{outcome="ended"}"#).await, 3);
    // A client that comes later does not wait.
    says(&wait_for(&first, &generated, "60s").await, "done", "201");
    says(&wait_for(&second, "order-7", "60s").await, "done", "201");
    assert_eq!(first.metric(r#"gateway_waits_total{outcome="ended"}"#).await, 0);
}

#[tokio::test]
async fn no_end_is_missed_next_to_the_first_lookup() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    let function = HttpServer::answering(|request| {
        let body = str::from_utf8(&request.body).unwrap_or_default();
        respond_after(Duration::from_millis(body.parse().unwrap_or(0)), 200, body)
    })
    .await;
    let _worker = queue.worker(&function, &[("max_inflight", "10")]);
    let call = |number: u64| {
        let gateway = &gateway;
        async move {
            let body = (number % 6).to_string();
            let id = gateway.submit(&[KEEP], &body).await;
            let answer = wait_for(gateway, &id, "60s").await;
            says(&answer, "done", "200");
            assert_eq!(answer.text(), body);
        }
    };
    for _ in 0..10 {
        join_all((0..10).map(call)).await;
    }
    waiting(&gateway, 0).await;
    assert_eq!(gateway.metric(r#"gateway_waits_total{outcome="timed_out"}"#).await, 0);
}

#[tokio::test]
async fn every_end_answers_a_client_that_attaches() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    let function = HttpServer::answering(|_| respond(500, "broken")).await;
    let cancelled = gateway.submit(&[KEEP], "hi").await;
    let cancel = async {
        waiting(&gateway, 1).await;
        let path = format!("/async-function/{cancelled}");
        assert_eq!(gateway.call("DELETE", &path, &[], "").await.status, 202);
    };
    let (answer, ()) = tokio::join!(wait_for(&gateway, &cancelled, "60s"), cancel);
    says(&answer, "cancelled", "499");
    let expired = gateway.submit(&[KEEP], "old").await;
    let starts = async {
        tokio::time::sleep(Duration::from_millis(2_200)).await;
        queue.worker(&function, &[("max_age", "2s"), ("max_retry_attempts", "2")])
    };
    let (answer, _worker) = tokio::join!(wait_for(&gateway, &expired, "60s"), starts);
    says(&answer, "expired", "504");
    let dead = gateway.submit(&[KEEP], "dead").await;
    let answer = wait_for(&gateway, &dead, "60s").await;
    says(&answer, "dead", "500");
    assert_eq!(answer.text(), "broken");
}

#[tokio::test]
async fn end_without_a_kept_result_is_answered_too() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    let function = HttpServer::answering(|_| respond(200, "made")).await;
    let done = gateway.submit(&[], "hi").await;
    let cancelled = gateway.submit(&[], "hi").await;
    let starts = async {
        waiting(&gateway, 2).await;
        let path = format!("/async-function/{cancelled}");
        assert_eq!(gateway.call("DELETE", &path, &[], "").await.status, 202);
        queue.worker(&function, &[])
    };
    let (one, other, mut worker) = tokio::join!(
        wait_for(&gateway, &done, "60s"),
        wait_for(&gateway, &cancelled, "60s"),
        starts
    );
    for answer in [one, other] {
        assert_eq!(answer.status, 410, "{}", answer.text());
        assert!(answer.text().contains("X-Keep-Result"), "{}", answer.text());
    }
    // It is remembered, and answered at once.
    assert_eq!(wait_for(&gateway, &done, "60s").await.status, 410);
    assert_eq!(wait_for(&gateway, "never-was", "60s").await.status, 404);

    // The worker ends before a client asks: its call was pending when the client came.
    worker.kill();
    let slow = gateway.submit(&[], "hi").await;
    let runs_and_ends = async {
        waiting(&gateway, 1).await;
        let mut worker = queue.worker(&function, &[]);
        queue.empties().await;
        worker.kill();
    };
    let (answer, ()) = tokio::join!(wait_for(&gateway, &slow, "60s"), runs_and_ends);
    assert_eq!(answer.status, 410, "{}", answer.text());
}

#[tokio::test]
async fn wait_is_bounded_by_its_time_and_by_max_wait() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[("max_wait", "1s")]).await;
    let id = gateway.submit(&[KEEP], "hi").await;
    for time in ["100ms", "1h"] {
        let answer = wait_for(&gateway, &id, time).await;
        assert_eq!((answer.status, answer.header("retry-after")), (202, "1"), "{time}");
    }
    assert_eq!(gateway.metric(r#"gateway_waits_total{outcome="timed_out"}"#).await, 2);
    let answer = wait_for(&gateway, &id, "0s").await;
    assert_eq!((answer.status, answer.header("retry-after")), (202, "1"));
    assert_eq!(gateway.metric(r#"gateway_waits_total{outcome="timed_out"}"#).await, 2);
    for invalid in ["soon", "30", "", "-1s", "1d"] {
        let answer = wait_for(&gateway, &id, invalid).await;
        assert_eq!(answer.status, 400, "{invalid}");
        let expected = format!("wait `{invalid}` is not valid: write a duration as 500ms, 30s");
        assert!(answer.text().contains(&expected), "{}", answer.text());
    }
}

#[tokio::test]
async fn attached_waits_are_limited_and_end_with_their_client() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[("max_waits", "1")]).await;
    let id = gateway.submit(&[KEEP], "hi").await;
    let mut first = gateway.connect().await;
    first
        .send(&format!("GET /async-function/{id}/result?wait=60s HTTP/1.1\r\nhost: a\r\n\r\n"))
        .await;
    waiting(&gateway, 1).await;
    let answer = wait_for(&gateway, &id, "60s").await;
    assert_eq!((answer.status, answer.header("retry-after")), (202, "1"));
    assert_eq!(gateway.metric(r#"gateway_waits_total{outcome="refused"}"#).await, 1);
    first.reset();
    waiting(&gateway, 0).await;
    queue.holds("jobs", 1).await;
    // The gateway answers those that wait before it ends.
    let stop = async {
        waiting(&gateway, 1).await;
        gateway.program.signal("TERM");
    };
    let (answer, ()) = tokio::join!(wait_for(&gateway, &id, "60s"), stop);
    assert_eq!(answer.status, 202);
}

#[tokio::test]
async fn hidden_result_is_not_waited_for() {
    let queue = Queue::standalone().await;
    let directory = "queues: {jobs: {results: {retention: 10m, requireGeneratedId: true}}}";
    let gateway = Gateway::start(&queue.nats, directory, &[("ensure_stream", "true")]).await;
    gateway.is_ready().await;
    let chosen = gateway.submit(&[("x-call-id", "order-7")], "hi").await;
    let answer = wait_for(&gateway, &chosen, "60s").await;
    assert_eq!(answer.status, 403, "{}", answer.text());
    let generated = gateway.submit(&[], "hi").await;
    let function = HttpServer::answering(|_| respond_after(LONG / 600, 200, "made")).await;
    let _worker = queue.worker(&function, &[]);
    let answer = wait_for(&gateway, &generated, "60s").await;
    says(&answer, "done", "200");
}
