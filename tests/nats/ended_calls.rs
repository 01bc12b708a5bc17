//! The status of calls that have ended.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use asyncqueue::{CallId, QueueName, worker_requests::end_request_subject};
use futures::future::join_all;
use serde_json::Value;
use test_support::{
    http::{HttpServer, respond, respond_after},
    program::run,
    raw::RawResponse,
    wait::until,
};
use tokio::time::sleep;

use crate::{
    gateway::Gateway,
    support::{Queue, callback_at},
};

const KEEP: (&str, &str) = ("x-keep-result", "1h");

async fn get(gateway: &Gateway, call: &str) -> RawResponse {
    gateway.call("GET", &format!("/async-function/{call}"), &[], "").await
}

async fn result_status(gateway: &Gateway, call: &str) -> u16 {
    get(gateway, &format!("{call}/result")).await.status
}

/// Returns the status of a call that has ended.
async fn ended(gateway: &Gateway, call: &str) -> Value {
    let answer = get(gateway, call).await;
    assert_eq!(answer.status, 200, "{call}: {}", answer.text());
    answer.json()
}

#[tokio::test]
async fn worker_remembers_status_duration_and_attempts() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    let runs = Arc::new(AtomicUsize::new(0));
    let function = HttpServer::answering(move |_| match runs.fetch_add(1, Ordering::SeqCst) {
        0 => respond(500, "no"),
        _ => respond_after(Duration::from_millis(20), 404, "not here"),
    })
    .await;
    let _worker = queue.worker(&function, &[("initial_retry_wait", "50ms")]);
    let id = gateway.submit(&[], "hi").await;
    queue.empties().await;
    for path in [id.clone(), format!("figlet/{id}"), format!("{id}?function=figlet")] {
        let status = ended(&gateway, &path).await;
        assert_eq!(
            (&status["state"], &status["status"], &status["attempt"]),
            (&"done".into(), &404.into(), &2.into()),
            "{status}"
        );
        assert_eq!((&status["callId"], &status["queue"]), (&id.clone().into(), &"jobs".into()));
        assert_eq!(status["function"], "figlet.openfaas-fn");
        let duration: asyncqueue::GoDuration =
            status["duration"].as_str().unwrap().parse().unwrap();
        assert!(duration.0 >= Duration::from_millis(20), "{status}");
        let at = |field: &str| status[field].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        assert!(at("submittedAt") < at("finishedAt"), "{status}");
        assert!(at("finishedAt") <= jiff::Timestamp::now(), "{status}");
        assert!(status["callback"].is_null(), "{status}");
    }
    assert_eq!(get(&gateway, &format!("other/{id}")).await.status, 404);
    assert_eq!(result_status(&gateway, &id).await, 410);
    // It can't be cancelled, and there is no record of it.
    let path = format!("/async-function/{id}");
    assert_eq!(gateway.call("DELETE", &path, &[], "").await.status, 404);
    let url = queue.nats.url();
    let shown = run("kubectl-aq", &["status", &id], &[("nats_url", &url)]).await.text();
    assert!(shown.contains("done with status 404") && shown.contains("attempt 2 took"), "{shown}");
}

#[tokio::test]
async fn each_worker_remembers_its_calls_until_it_ends() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    let function =
        HttpServer::answering(|_| respond_after(Duration::from_millis(50), 200, "")).await;
    let settings = [("max_inflight", "2")];
    let (mut one, mut two) =
        (queue.worker(&function, &settings), queue.worker(&function, &settings));
    let submit = |number: usize| {
        let id = format!("order-{number}");
        let gateway = &gateway;
        async move {
            match number % 2 {
                0 => gateway.submit(&[("x-call-id", &id)], "hi").await,
                _ => gateway.submit(&[], "hi").await,
            }
        }
    };
    let calls = join_all((0..20).map(submit)).await;
    queue.empties().await;
    let known = async || {
        let found = join_all(calls.iter().map(|id| get(&gateway, id))).await;
        found.into_iter().filter(|answer| answer.status == 200).count()
    };
    assert_eq!(known().await, 20);
    one.kill();
    let left = until("the first worker is gone", async || {
        let left = known().await;
        (left < 20).then_some(left)
    })
    .await;
    assert!(left > 0, "the second one has run some of them");
    two.kill();
    let _other = queue.worker(&function, &[]);
    until("all are forgotten", async || (known().await == 0).then_some(())).await;
    for id in &calls {
        assert_eq!(get(&gateway, id).await.status, 404);
        assert_eq!(result_status(&gateway, id).await, 404);
    }
}

#[tokio::test]
async fn newest_of_the_calls_with_one_id_is_reported() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    let function = HttpServer::answering(|request| {
        let status = str::from_utf8(&request.body).unwrap_or_default().parse();
        respond(status.unwrap_or(500), "")
    })
    .await;
    let (_one, _two) = (queue.worker(&function, &[]), queue.worker(&function, &[]));
    for (name, status) in [("figlet", "201"), ("figlet", "202"), ("other", "203")] {
        let headers = [("x-call-id", "order-7")];
        let path = format!("/async-function/{name}");
        assert_eq!(gateway.call("POST", &path, &headers, status).await.status, 202);
        queue.empties().await;
    }
    assert_eq!(ended(&gateway, "order-7").await["status"], 203);
    assert_eq!(ended(&gateway, "figlet/order-7").await["status"], 202);
}

#[tokio::test]
async fn kept_result_says_how_its_call_ended() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    let receiver = HttpServer::answering(|_| respond(200, "")).await;
    let busy = HttpServer::answering(|_| respond_after(Duration::from_secs(60), 200, "")).await;
    let function = HttpServer::answering(|request| match &request.body[..] {
        b"dead" => respond(500, "no"),
        _ => respond(201, "made"),
    })
    .await;
    let expired = gateway.submit(&[KEEP], "old").await;
    sleep(Duration::from_millis(2_200)).await;
    let settings = [("max_age", "2s"), ("max_retry_attempts", "1"), ("dead_letters", "false")];
    let mut worker = queue.worker(&function, &settings);
    let callback = |server: &HttpServer| callback_at(server).as_url().to_string();
    let (taken, slow) = (callback(&receiver), callback(&busy));
    let done = gateway.submit(&[KEEP], "hi").await;
    let called_back = gateway.submit(&[KEEP, ("x-callback-url", &taken)], "hi").await;
    let pending = gateway.submit(&[KEEP, ("x-callback-url", &slow)], "hi").await;
    let dead = gateway.submit(&[KEEP], "dead").await;
    queue.empties().await;
    receiver.receives(1).await;
    busy.receives(1).await;
    queue.holds("jobs-callbacks", 1).await;
    // Only the results are left.
    worker.kill();
    queue.js.get_stream("KV_asyncqueue-cancelled").await.unwrap().purge().await.unwrap();
    for (id, state) in [
        (&done, "done"),
        (&called_back, "done"),
        (&pending, "done"),
        (&dead, "dead"),
        (&expired, "expired"),
    ] {
        let status = ended(&gateway, id).await;
        assert_eq!(status["state"], state, "{status}");
        assert_eq!(status["function"], "figlet.openfaas-fn");
        let callback = (id == &pending).then_some("pending");
        assert_eq!(status["callback"].as_str(), callback, "{status}");
        if state == "done" {
            assert_eq!((&status["status"], &status["attempt"]), (&201.into(), &1.into()));
            assert!(status["duration"].is_string() && status["finishedAt"].is_string());
        }
        // Its end is known now, so it is no unknown call.
        let path = format!("/async-function/{id}");
        let answer = gateway.call("DELETE", &path, &[], "").await;
        assert_eq!(answer.status, 409, "{}", answer.text());
    }
    assert!(ended(&gateway, &done).await["submittedAt"].is_string());
}

#[tokio::test]
async fn workers_that_do_not_reply_delay_the_answer_by_little() {
    let queue = Queue::start().await;
    let gateway = Gateway::before(&queue, &[]).await;
    let name: QueueName = "jobs".parse().unwrap();
    let id = CallId::generate(&name).to_string();
    let answer = get(&gateway, &id).await;
    assert_eq!(answer.status, 404, "no worker listens: {}", answer.text());
    // A worker that is paused.
    let _mute = queue.js.client().subscribe(end_request_subject(&name)).await.unwrap();
    queue.js.client().flush().await.unwrap();
    let answers = join_all((0..40).map(|_| get(&gateway, &id))).await;
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [404; 40]);
    // Another worker has run the call, and says so.
    let function = HttpServer::start().await;
    let _worker = queue.worker(&function, &[]);
    let done = gateway.submit(&[], "hi").await;
    queue.empties().await;
    assert_eq!(ended(&gateway, &done).await["status"], 200);
}
