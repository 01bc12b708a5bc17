//! Every row of the tables of bad inputs ([`test_support::bad_inputs`]) on real parts, but for
//! those of the cluster.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use async_nats::HeaderMap;
use asyncqueue::message::dead_letter::H_REASON;
use tempfile::NamedTempFile;
use test_support::{
    bad_inputs::{
        clients::{self, Door, Step},
        expand,
        messages::{self, Message},
        programs,
        requests::{self, Request},
    },
    http::HttpServer,
    program,
    raw::Connection,
    wait::{WAIT_TIMEOUT, until, until_in},
};

use crate::{
    gateway::Gateway,
    support::{Queue, publish_raw},
};

#[tokio::test]
async fn requests_are_refused_as_the_table_says() {
    let queue = Queue::start().await;
    let directory = "queues: {jobs: }\nfunctions: {figlet: {}}";
    let mut gateway = Gateway::start(&queue.nats, directory, &requests::SETTINGS).await;
    until("the gateway is ready", async || {
        let answer = gateway.try_call("GET", "/readyz", &[], b"").await.ok()?;
        (answer.status == 200).then_some(())
    })
    .await;
    for request in requests::REQUESTS {
        let mut connection = gateway.connect().await;
        connection.send(written(request)).await;
        let (answer, Request { what, status, says, .. }) = (connection.response().await, request);
        let text = answer.text();
        assert_eq!(answer.status, *status, "{what}: {text}");
        assert!(text.contains(says), "{what}: {text}");
        assert_eq!(text.lines().count(), usize::from(!says.is_empty()), "{what}: {text}");
    }
    queue.holds("jobs", 0).await;
    assert!(gateway.program.is_running());
}

#[tokio::test]
async fn odd_clients_are_answered_as_the_table_says() {
    let queue = Queue::start().await;
    let mut gateway = Gateway::before(&queue, &clients::SETTINGS).await;
    let mut stored = 0;
    for client in clients::CLIENTS {
        let addr = if client.door == Door::Metrics { gateway.metrics_addr } else { gateway.addr };
        let mut connection = Connection::open(addr).await;
        let mut answers = Vec::new();
        for step in client.steps {
            match step {
                Step::Send(bytes) => drop(connection.try_send(bytes).await),
                Step::Trickle(bytes) => {
                    for byte in *bytes {
                        connection.send([*byte]).await;
                        tokio::task::yield_now().await;
                    }
                }
                Step::Pause => tokio::time::sleep(Duration::from_millis(30)).await,
                Step::Await => answers.push(connection.response().await.status),
                Step::CloseSide => connection.close_side().await,
            }
        }
        while answers.len() < client.answers.len()
            && let Ok(answer) = connection.try_response().await
        {
            answers.push(answer.status);
        }
        assert_eq!(answers, client.answers, "{}", client.what);
        connection.close_side().await;
        let rest = connection.closed().await;
        assert!(rest.is_empty(), "{}: {}", client.what, rest.escape_ascii());
        stored += client.stored;
        let messages = queue.info("jobs").await.state.messages;
        assert_eq!(messages, stored, "{}", client.what);
    }
    assert!(gateway.program.is_running());
}

/// A request to the byte.
fn written(request: &Request) -> Vec<u8> {
    let fields = match str::from_utf8(request.fields) {
        Ok(text) => expand(text).into_bytes(),
        Err(_) => request.fields.to_owned(),
    };
    let (line, body) = (expand(request.line), expand(request.body));
    let said = String::from_utf8_lossy(&fields).to_ascii_lowercase();
    let is_framed = said.contains("content-length") || said.contains("transfer-encoding");
    let length =
        if is_framed { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let head = format!("{line} HTTP/1.1\r\nHost: gateway\r\n{length}");
    [head.as_bytes(), &fields, b"\r\n", body.as_bytes()].concat()
}

#[tokio::test]
async fn messages_become_dead_letters_as_the_table_says() {
    let (queue, function) = (Queue::start().await, HttpServer::start().await);
    let mut worker = queue.worker(&function, &[("callback_allowed_hosts", "")]);
    let result = "jobs-callbacks.openfaas-fn.figlet.order-7";
    all_become_dead_letters(&queue, "jobs", &messages::CALL, messages::CALLS).await;
    all_become_dead_letters(&queue, result, &messages::RESULT, messages::RESULTS).await;
    assert!(function.received().is_empty() && worker.is_running());
}

/// Publishes each message on a subject, and compares the reason of the dead letter that it becomes.
async fn all_become_dead_letters(
    queue: &Queue,
    subject: &'static str,
    usual: &[(&str, &str)],
    messages: &[Message],
) {
    for message in messages {
        let sequence = queue.info("jobs-dead").await.state.last_sequence + 1;
        let mut headers = HeaderMap::new();
        if !message.headers.is_empty() {
            for (name, value) in usual.iter().chain(message.headers) {
                headers.insert(*name, expand(value));
            }
        }
        let payload = expand(message.payload).into();
        queue.js.publish_with_headers(subject, headers, payload).await.unwrap().await.unwrap();
        let what = format!("a dead letter of {message:?}");
        until(&what, async || {
            (queue.info("jobs-dead").await.state.last_sequence == sequence).then_some(())
        })
        .await;
        let letter = queue
            .js
            .get_stream("jobs-dead")
            .await
            .unwrap()
            .get_raw_message(sequence)
            .await
            .unwrap();
        let reason = letter.headers.get(H_REASON).unwrap().as_str();
        assert!(reason.contains(message.reason), "{message:?}: {reason}");
    }
    queue.empties().await;
}

/// Waits until a message has become the dead letter with this number.
async fn is_dead_letter(queue: &Queue, number: u64, why: &str) {
    let what = format!("a dead letter, since {why}");
    until_in(WAIT_TIMEOUT * 3, &what, async || {
        (queue.info("jobs-dead").await.state.messages == number).then_some(())
    })
    .await;
    let sequence = queue.sequence("jobs-dead", number).await;
    let letter =
        queue.js.get_stream("jobs-dead").await.unwrap().get_raw_message(sequence).await.unwrap();
    assert_eq!(&letter.payload[..], b"hi");
    let reason = letter.headers.get(H_REASON).unwrap().as_str();
    assert!(reason.contains(why), "{reason}");
}

#[tokio::test]
async fn headers_that_can_not_be_read_hold_up_nothing_for_long() {
    let (queue, function) = (Queue::start().await, HttpServer::start().await);
    let mut worker = queue.worker(&function, &[]);
    let all = [
        (
            &b"NATS/1.0\r\nAsync-Function: \xff\r\n\r\n"[..],
            "headers can't be read: they are not UTF-8",
        ),
        (b"NATS/1.0\r\nno colon\r\n\r\n", "headers can't be read: a line has no colon"),
    ];
    for (number, (headers, why)) in (1..).zip(all) {
        publish_raw(&queue, "jobs.raw", headers, b"hi").await;
        queue.submit(|_| {}).await;
        is_dead_letter(&queue, number, why).await;
        function.receives(usize::try_from(number).unwrap()).await;
    }
    assert!(worker.is_running());
}

#[tokio::test]
async fn a_subject_that_can_not_be_read_costs_its_neighbours_no_attempt() {
    const CALLS: usize = 4;
    let headers = &b"NATS/1.0\r\nA: b\r\n\r\n"[..];
    for (subject, headers, why) in [
        (&b"jobs.\xff\xfe.figlet.id-1"[..], &b""[..], "it is not UTF-8"),
        (b"jobs.\xff", headers, "it is not UTF-8"),
        ("jobs.a\u{2003}b".as_bytes(), headers, "it holds white space"),
    ] {
        let (queue, function) = (Queue::start().await, HttpServer::start().await);
        for _ in 0..CALLS {
            queue.submit(|_| {}).await;
        }
        publish_raw(&queue, subject, headers, b"hi").await;
        for _ in 0..CALLS {
            queue.submit(|_| {}).await;
        }
        // All are delivered at once, to a worker for which one attempt is all.
        let mut worker =
            queue.worker(&function, &[("max_inflight", "20"), ("max_retry_attempts", "1")]);
        is_dead_letter(&queue, 1, &format!("undecodable: subject can't be read: {why}")).await;
        queue.empties().await;
        assert!(worker.is_running());
        worker
            .logged(
                "undecodable message, moving it to the dead-letter stream: subject can't be read",
            )
            .await;
        // Each ran once: none was given up, and none ran again.
        assert_eq!(function.received().len(), 2 * CALLS, "{}", subject.escape_ascii());
        assert_eq!(queue.info("jobs-dead").await.state.messages, 1);
    }
}

#[tokio::test]
async fn headers_that_can_not_be_read_cost_their_neighbours_no_attempt() {
    let (queue, function) = (Queue::start().await, HttpServer::start().await);
    queue.submit(|_| {}).await;
    publish_raw(&queue, "jobs.raw", b"NATS/1.0\r\nno colon\r\n\r\n", b"hi").await;
    queue.submit(|_| {}).await;
    let _worker = queue.worker(&function, &[("max_inflight", "20"), ("max_retry_attempts", "1")]);
    is_dead_letter(&queue, 1, "headers can't be read: a line has no colon").await;
    queue.empties().await;
    assert_eq!((function.received().len(), queue.info("jobs-dead").await.state.messages), (2, 1));
}

#[tokio::test]
async fn headers_that_panic_the_nats_client_become_a_dead_letter() {
    let (queue, function) = (Queue::start().await, HttpServer::start().await);
    publish_raw(&queue, "jobs.raw", b"NATS/1.0\r\nA: b\rc\r\n\r\n", b"hi").await;
    queue.submit(|_| {}).await;
    let (started, mut ended) = (Instant::now(), 0);
    let mut worker = queue.worker(&function, &[]);
    while queue.info("jobs-dead").await.state.messages == 0 {
        assert!(started.elapsed() < WAIT_TIMEOUT * 4, "it is no dead letter");
        if !worker.is_running() {
            // As Kubernetes does, which waits longer from time to time.
            ended += 1;
            worker = queue.worker(&function, &[]);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    is_dead_letter(&queue, 1, "headers can't be read: a line holds a carriage return").await;
    function.receives(1).await;
    assert!(ended > 0 && worker.is_running());
}

#[tokio::test]
async fn invalid_status_question_is_not_answered() {
    let (queue, function) = (Queue::start().await, HttpServer::start().await);
    let worker = queue.worker(&function, &[]);
    // One that is answered, so that the worker is known to listen.
    queue.submit(|_| {}).await;
    function.receives(1).await;
    let client = queue.js.client();
    for subject in ["asyncqueue.cancel.jobs", "asyncqueue.status.jobs", "asyncqueue.end.jobs"] {
        for payload in
            [&b""[..], b"id", b"id seq", b"id 1 2", b" 1", b"a.b 1", b"id -1", b"\xff\xfe 1"]
        {
            // An id alone is a question for the end of a call.
            if (subject, payload) == ("asyncqueue.end.jobs", b"id") {
                continue;
            }
            let asked = client.request(subject, payload.to_vec().into());
            let answer = tokio::time::timeout(Duration::from_millis(200), asked).await;
            assert!(!matches!(answer, Ok(Ok(_))), "{subject} {payload:?}: {answer:?}");
        }
    }
    queue.submit(|_| {}).await;
    function.receives(2).await;
    drop(worker);
}

#[tokio::test]
async fn settings_are_refused_as_the_table_says() {
    for row in programs::SETTINGS {
        let ended = program::run(row.program, &[], &[(row.name, row.value)]).await;
        let flag = row.name.replace('_', "-");
        assert_eq!(ended.code, Some(row.code), "{row:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(row.says), "{row:?}: {}", ended.stderr);
        assert!(
            ended.stderr.contains(row.name) || ended.stderr.contains(&flag),
            "{row:?}: {}",
            ended.stderr
        );
    }
}

#[tokio::test]
async fn directory_files_are_refused_as_the_table_says() {
    for row in programs::DIRECTORY_FILES {
        let mut file = NamedTempFile::with_suffix(".yaml").unwrap();
        file.write_all(row.yaml.as_bytes()).unwrap();
        let path = file.path().to_str().unwrap();
        let ended = program::run("asyncqueue-gateway", &[], &[("directory_file", path)]).await;
        assert_eq!(ended.code, Some(1), "{row:?}: {}", ended.stderr);
        for says in row.says.iter().chain([&"is not valid", &path]) {
            assert!(ended.stderr.contains(says), "{row:?}: {}", ended.stderr);
        }
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    }
}

#[tokio::test]
async fn arguments_are_refused_as_the_table_says() {
    let queue = Queue::start().await;
    for row in programs::ARGUMENTS {
        let ended =
            program::run("kubectl-aq", row.arguments, &[("nats_url", &queue.nats.url())]).await;
        assert_eq!(ended.code, Some(row.code), "{row:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(row.says), "{row:?}: {}", ended.stderr);
    }
}
