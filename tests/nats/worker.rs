//! What the worker does with calls.

use std::time::Duration;

use async_nats::HeaderMap as NatsHeaders;
use asyncqueue::{
    FunctionName,
    directory::{Directory, FunctionEntry, store::DirectoryStore},
    retry::RetryOverrides,
};
use test_support::{
    http::{HttpServer, respond, respond_after},
    wait::until,
};

use crate::support::{LEASE, Queue, callback_at};

#[tokio::test]
async fn a_call_reaches_its_function_and_its_result_the_callback() {
    let (queue, function, caller) =
        (Queue::start().await, HttpServer::start().await, HttpServer::start().await);
    let worker = queue.worker(&function, &[]);
    let id = queue
        .submit(|call| {
            call.path = "/a%2Fb//%3F%25".to_owned();
            call.query = Some("x=%2F&y".to_owned());
            call.headers.append("x-multi", "a".parse().unwrap());
            call.headers.append("x-multi", "b".parse().unwrap());
            call.headers.append("connection", "x-hop".parse().unwrap());
            call.headers.append("x-hop", "1".parse().unwrap());
            call.callback_url = Some(callback_at(&caller));
        })
        .await;

    let received = function.receives(1).await.remove(0);
    assert_eq!(received.method, "POST");
    assert_eq!(received.target, "/a%2Fb//%3F%25?x=%2F&y");
    assert_eq!(received.headers.get_all("x-multi").iter().count(), 2);
    assert_eq!(received.header("x-hop"), "");
    assert_eq!(received.header("x-call-id"), id.as_str());
    let message_id = received.header("idempotency-key");
    assert!(message_id.starts_with(&format!("{id}.")), "{message_id}");
    assert_eq!(received.header("x-async-depth"), "1");
    assert_eq!((received.header("x-retry"), received.header("x-retry-max")), ("1", "10"));
    assert!(received.header("x-start-time").parse::<u64>().is_ok());
    assert_eq!(&received.body[..], b"hi");

    let result = caller.receives(1).await.remove(0);
    assert_eq!((result.method.as_str(), result.target.as_str()), ("POST", "/callback"));
    assert_eq!(result.header("x-call-id"), id.as_str());
    assert_eq!(result.header("x-function-name"), "figlet.openfaas-fn");
    assert_eq!(result.header("x-function-status"), "200");
    assert_eq!(result.header("x-mine"), "1");
    assert!(result.header("x-duration-seconds").parse::<f64>().unwrap() > 0.0);
    assert_eq!(&result.body[..], b"ok");

    queue.empties().await;
    queue.holds("jobs-callbacks", 0).await;
    let line = worker.logged("Invoked figlet [200] in 0.").await;
    assert!(line.contains(id.as_str()), "{line}");
    assert_eq!(function.received().len(), 1);
}

#[tokio::test]
async fn a_message_of_an_existing_gateway_is_run_too() {
    let (queue, function) = (Queue::start().await, HttpServer::start().await);
    let _worker = queue.worker(&function, &[]);
    let request = r#"{"Header":{"X-Call-Id":["f5a9813d"],"Content-Type":["text/plain"]},
        "Host":"127.0.0.1:8080","Body":"aGkgdGhlcmU=","Method":"POST","Path":"/p",
        "QueryString":"x=1","Function":"figlet","QueueName":"jobs"}"#;
    queue.js.publish("jobs", request.into()).await.unwrap().await.unwrap();
    let received = function.receives(1).await.remove(0);
    assert_eq!(received.target, "/p?x=1");
    assert_eq!(received.header("x-call-id"), "f5a9813d");
    assert_eq!(&received.body[..], b"hi there");
    // With what OpenFaaS's own worker trims.
    let request = r#"{"Method":"POST","Path":"/p","QueryString":"?x=2","Function":"/figlet/"}"#;
    queue.js.publish("jobs", request.into()).await.unwrap().await.unwrap();
    assert_eq!(function.receives(2).await[1].target, "/p?x=2");
    queue.empties().await;
}

#[tokio::test]
async fn a_functions_own_retries_come_before_its_queues() {
    let queue = Queue::start().await;
    let function = HttpServer::answering(|_| respond(418, "tea")).await;
    let store = DirectoryStore::open(&queue.js, 1).await.unwrap();
    let mut directory = Directory::default();
    let retry = RetryOverrides {
        attempts: Some(2),
        codes: Some([418].into()),
        ..RetryOverrides::default()
    };
    let entry = FunctionEntry { retry, ..FunctionEntry::default() };
    directory.functions.insert(FunctionName::new("figlet", "openfaas-fn").unwrap(), entry);
    store.sync(&directory).await.unwrap();
    let _worker = queue.worker(&function, &[]);
    let call = |annotations: &str| {
        let annotations = format!(r#""com.openfaas.retry.attempts":"3"{annotations}"#);
        format!(r#"{{"Function":"other","Annotations":{{{annotations}}}}}"#)
    };
    // By its message: 418 is in no list, so that the first call is done.
    queue.js.publish("jobs", call("").into()).await.unwrap().await.unwrap();
    queue.empties().await;
    let with_codes = call(r#","com.openfaas.retry.codes":"418""#);
    queue.js.publish("jobs", with_codes.into()).await.unwrap().await.unwrap();
    queue.holds("jobs-dead", 1).await;
    assert_eq!(function.received().len(), 1 + 3);
    // By the directory, once the worker has read it.
    queue.submit(|_| {}).await;
    queue.holds("jobs-dead", 2).await;
    assert_eq!(function.received().len(), 1 + 3 + 2);
}

#[tokio::test]
async fn a_worker_never_holds_more_calls_than_it_has_slots() {
    const CALLS: usize = 12;
    let queue = Queue::start().await;
    let function =
        HttpServer::answering(|_| respond_after(Duration::from_millis(50), 200, "ok")).await;
    let _worker = queue.worker(&function, &[("max_inflight", "3")]);
    for _ in 0..CALLS {
        queue.submit(|_| {}).await;
    }
    let consumer = queue.consumer().await;
    let mut most_held = 0;
    until("all calls done", async || {
        most_held = most_held.max(consumer.get_info().await.unwrap().num_ack_pending);
        (function.received().len() == CALLS && function.running() == 0).then_some(())
    })
    .await;
    assert_eq!(function.most_running(), 3);
    assert!(most_held <= 3, "{most_held} messages held");
}

#[tokio::test]
async fn a_call_longer_than_the_lease_runs_once() {
    let (queue, caller) = (Queue::start().await, HttpServer::start().await);
    let function = HttpServer::answering(|_| respond_after(LEASE * 2, 200, "ok")).await;
    let _worker = queue.worker(&function, &[]);
    let _other = queue.worker(&function, &[]);
    queue.submit(|call| call.callback_url = Some(callback_at(&caller))).await;
    caller.receives(1).await;
    queue.empties().await;
    assert_eq!(function.received().len(), 1);
}

#[tokio::test]
async fn a_call_that_fails_is_tried_again_and_takes_no_slot_while_it_waits() {
    let queue = Queue::start().await;
    let function = HttpServer::answering(|request| match &request.body[..] {
        b"fails" => respond(503, "no"),
        _ => respond(200, "ok"),
    })
    .await;
    let settings =
        [("initial_retry_wait", "1s"), ("max_retry_attempts", "2"), ("max_inflight", "1")];
    let _worker = queue.worker(&function, &settings);
    queue.submit(|call| call.body = "fails".into()).await;
    function.receives(1).await;
    // The only slot is free while the first call waits.
    queue.submit(|call| call.body = "works".into()).await;
    let received = function.receives(3).await;
    assert_eq!(received[1].body, "works");
    assert_eq!(received[2].body, "fails");
    assert!(received[2].at - received[0].at >= Duration::from_secs(1));
    queue.empties().await;
    queue.holds("jobs-dead", 1).await;
}

#[tokio::test]
async fn exhausted_call_is_a_dead_letter_and_calls_back_once() {
    let (queue, caller) = (Queue::start().await, HttpServer::start().await);
    let function = HttpServer::answering(|_| respond(500, "sorry")).await;
    let _worker = queue.worker(&function, &[("max_retry_attempts", "3")]);
    let id = queue.submit(|call| call.callback_url = Some(callback_at(&caller))).await;
    queue.holds("jobs-dead", 1).await;
    assert_eq!(function.received().len(), 3);
    let stream = queue.js.get_stream("jobs-dead").await.unwrap();
    let letter = stream
        .get_last_raw_message_by_subject(&format!("jobs-dead.openfaas-fn.figlet.{id}"))
        .await
        .unwrap();
    let header = |name| letter.headers.get(name).map_or("", |value| value.as_str());
    assert_eq!(header("Async-Dead-Reason"), "the function answered 500 (attempt 3 of 3)");
    assert_eq!(header("Async-Dead-Attempts"), "3");
    assert_eq!(header("Async-Dead-Status"), "500");
    assert_eq!(header("Async-Call-Id"), id.as_str());
    assert_eq!(&letter.payload[..], b"hi");
    let result = caller.receives(1).await.remove(0);
    assert_eq!(result.header("x-function-status"), "500");
    assert_eq!(&result.body[..], b"sorry");
    queue.empties().await;
    assert_eq!(caller.received().len(), 1);
}

#[tokio::test]
async fn a_call_over_its_time_limit_is_cut_off_and_counts_as_504() {
    let (queue, caller) = (Queue::start().await, HttpServer::start().await);
    let function =
        HttpServer::answering(|_| respond_after(Duration::from_secs(60), 200, "late")).await;
    let _worker =
        queue.worker(&function, &[("upstream_timeout", "300ms"), ("max_retry_attempts", "1")]);
    queue.submit(|call| call.callback_url = Some(callback_at(&caller))).await;
    let result = caller.receives(1).await.remove(0);
    assert_eq!(result.header("x-function-status"), "504");
    until("the connection is closed", async || (function.running() == 0).then_some(())).await;
    queue.holds("jobs-dead", 1).await;
}

#[tokio::test]
async fn undecodable_message_is_a_dead_letter_at_once() {
    let (queue, function) = (Queue::start().await, HttpServer::start().await);
    let _worker = queue.worker(&function, &[]);
    queue.js.publish("jobs", "garbage".into()).await.unwrap().await.unwrap();
    let mut headers = NatsHeaders::new();
    headers.insert("Async-Version", "99");
    queue.js.publish_with_headers("jobs.x", headers, "later".into()).await.unwrap().await.unwrap();
    queue.holds("jobs-dead", 2).await;
    queue.empties().await;
    assert!(function.received().is_empty());
    let stream = queue.js.get_stream("jobs-dead").await.unwrap();
    let letter = stream.get_raw_message(queue.sequence("jobs-dead", 1).await).await.unwrap();
    let of_first = format!("jobs-dead.unknown.unknown.seq-{}", queue.sequence("jobs", 1).await);
    assert_eq!(letter.subject.as_str(), of_first);
    assert_eq!(&letter.payload[..], b"garbage");
}

#[tokio::test]
async fn failed_callback_is_retried_without_the_function() {
    let (queue, function) = (Queue::start().await, HttpServer::start().await);
    let caller = HttpServer::answering({
        let calls = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        move |_| match calls.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 | 1 => respond(503, "not now"),
            _ => respond(200, "ok"),
        }
    })
    .await;
    let _worker = queue.worker(&function, &[]);
    queue.submit(|call| call.callback_url = Some(callback_at(&caller))).await;
    caller.receives(3).await;
    queue.holds("jobs-callbacks", 0).await;
    queue.empties().await;
    assert_eq!((function.received().len(), caller.received().len()), (1, 3));
    assert_eq!(queue.info("jobs-dead").await.state.messages, 0);
}

#[tokio::test]
async fn a_callback_to_where_none_may_go_is_not_posted() {
    let (queue, function, caller) =
        (Queue::start().await, HttpServer::start().await, HttpServer::start().await);
    let worker = queue.worker(&function, &[("callback_allowed_hosts", "")]);
    queue.submit(|call| call.callback_url = Some(callback_at(&caller))).await;
    queue.holds("jobs-dead", 1).await;
    worker.logged("is a loopback address").await;
    assert_eq!((function.received().len(), caller.received().len()), (1, 0));
}

#[tokio::test]
async fn an_answer_longer_than_what_is_kept_is_cut_off() {
    let (queue, caller) = (Queue::start().await, HttpServer::start().await);
    let function = HttpServer::answering(|_| respond(200, &"x".repeat(1 << 20))).await;
    let worker = queue.worker(&function, &[("max_response_bytes", "1Ki")]);
    queue.submit(|call| call.callback_url = Some(callback_at(&caller))).await;
    assert_eq!(caller.receives(1).await.remove(0).body.len(), 1024);
    worker.logged("exceeds max_response_bytes").await;
    queue.empties().await;
}

#[tokio::test]
async fn platform_failure_is_retried_and_not_counted() {
    let queue = Queue::start().await;
    let function = HttpServer::answering(|_| {
        let answer = respond(404, "no endpoints");
        Box::pin(async {
            let mut response = answer.await;
            response.headers_mut().insert("x-openfaas-internal", "proxy".parse().unwrap());
            response
        })
    })
    .await;
    let _worker =
        queue.worker(&function, &[("max_retry_attempts", "2"), ("max_retry_wait", "100ms")]);
    queue.submit(|_| {}).await;
    let received = function.receives(5).await;
    assert!(received.iter().all(|request| request.header("x-retry") == "1"));
    assert_eq!(queue.info("jobs-dead").await.state.messages, 0);
}
