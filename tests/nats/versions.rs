//! What programs of other versions have written: messages and entries of version 1 as they were, in
//! `versions/1`, those with the headers that version 0.2 added, in `versions/2`, and with what a
//! later one may add. The files stay as they are when the library changes.

use asyncqueue::{buckets, directory::store::DirectoryStore};
use test_support::{
    http::{HttpServer, Received, respond},
    program,
};

use crate::{
    gateway::messages,
    support::{Queue, publish_raw},
};

const CALL: &[u8] = include_bytes!("versions/1/call");
const RESULT: &[u8] = include_bytes!("versions/1/result");
const DEAD_LETTER: &[u8] = include_bytes!("versions/1/dead-letter");
const OPENFAAS: &[u8] = include_bytes!("versions/1/openfaas");
const CALL_2: &[u8] = include_bytes!("versions/2/call");
const DELAYED_CALL_2: &[u8] = include_bytes!("versions/2/delayed-call");
const KEPT_RESULT_2: &[u8] = include_bytes!("versions/2/kept-result");
const FUNCTION: &[u8] = include_bytes!("versions/1/directory-function.json");
const QUEUE: &[u8] = include_bytes!("versions/1/directory-queue.json");

/// A queue on which a program of another version has been, the function that its directory names,
/// and the receiver of callbacks.
struct Stage {
    queue: Queue,
    function: HttpServer,
    caller: HttpServer,
}

impl Stage {
    async fn set(function: HttpServer, change: impl Fn(Vec<u8>) -> Vec<u8>) -> Self {
        let (queue, caller) = (Queue::start().await, HttpServer::start().await);
        let stage = Self { queue, function, caller };
        DirectoryStore::open(&stage.queue.js, 1).await.unwrap();
        let bucket = stage.queue.js.get_key_value(buckets::DIRECTORY.name).await.unwrap();
        bucket
            .put("function.openfaas-fn.figlet", change(stage.filled(FUNCTION)).into())
            .await
            .unwrap();
        bucket.put("queue.jobs", change(stage.filled(QUEUE)).into()).await.unwrap();
        stage
    }

    /// A file, with the addresses of this test.
    fn filled(&self, file: &[u8]) -> Vec<u8> {
        let mut text = file.to_vec();
        for (name, url) in [("{caller}", self.caller.url()), ("{function}", self.function.url())] {
            while let Some(at) =
                text.windows(name.len()).position(|window| window == name.as_bytes())
            {
                text.splice(at..at + name.len(), url.bytes());
            }
        }
        text
    }

    /// Publishes a file on a subject, with these lines among its headers.
    async fn publish(&self, subject: &str, file: &[u8], more: &str) {
        let file = self.filled(file);
        let end = file.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 2;
        let (head, body) = (&file[..end], &file[end + 2..]);
        publish_raw(&self.queue, subject, &[head, more.as_bytes(), b"\r\n"].concat(), body).await;
    }

    /// What the function or the receiver got at a path.
    fn at(server: &HttpServer, path: &str) -> Received {
        let received = server.received();
        received.into_iter().find(|request| request.target.starts_with(path)).unwrap()
    }
}

#[tokio::test]
async fn messages_of_version_1_are_run_shown_and_replayed() {
    let stage = Stage::set(HttpServer::start().await, |entry| entry).await;
    let Stage { queue, function, caller } = &stage;
    stage.publish("jobs.openfaas-fn.figlet.order-6", CALL, "").await;
    stage.publish("jobs-callbacks.openfaas-fn.figlet.order-5", RESULT, "").await;
    stage.publish("jobs-dead.openfaas-fn.figlet.order-4", DEAD_LETTER, "").await;
    queue.js.publish("jobs", stage.filled(OPENFAAS).into()).await.unwrap().await.unwrap();
    // The directory alone says where the function is.
    let nowhere = ("function_url", "http://127.0.0.1:1");
    let _worker = queue.worker(function, &[nowhere]);
    function.receives(2).await;
    caller.receives(3).await;

    let call = Stage::at(function, "/big%20letters");
    assert_eq!(call.target, "/big%20letters?x=1&y=%2F");
    assert_eq!(&call.body[..], b"hi \x00\xff");
    assert_eq!(call.headers["x-name"].as_bytes(), "café, 100%".as_bytes());
    assert_eq!(call.headers.get_all("x-multi").iter().count(), 2);
    for (name, value) in [
        ("x-call-id", "order-6"),
        ("x-start-time", "1795515072123456789"),
        ("content-type", "text/plain"),
        // Of the directory.
        ("x-retry-max", "2"),
    ] {
        assert_eq!(call.header(name), value, "{name}");
    }
    let openfaas = Stage::at(function, "/p%20q");
    assert_eq!((openfaas.header("x-call-id"), &openfaas.body[..]), ("order-3", &b"hi there"[..]));

    assert_eq!(Stage::at(caller, "/of-call").header("x-call-id"), "order-6");
    assert_eq!(Stage::at(caller, "/of-openfaas").header("x-call-id"), "order-3");
    let result = Stage::at(caller, "/of-result");
    assert_eq!(&result.body[..], b"the answer");
    for (name, value) in [
        ("x-call-id", "order-5"),
        ("x-function-status", "200"),
        ("x-duration-seconds", "0.002843"),
        ("x-retry", "2"),
        ("x-retry-max", "10"),
    ] {
        assert_eq!(result.header(name), value, "{name}");
    }

    let aq = async |arguments: &[&str]| {
        let ended = program::run("kubectl-aq", arguments, &[("nats_url", &queue.nats.url())]).await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        ended.text()
    };
    let listed = aq(&["dead", "list", "jobs"]).await;
    assert!(listed.contains("order-4") && listed.contains("the function answered 500"), "{listed}");
    aq(&["dead", "replay", "jobs", "order-4"]).await;
    let again = function.receives(3).await.remove(2);
    assert_eq!((again.header("x-call-id"), &again.body[..]), ("order-4", &b"dead"[..]));
    queue.empties().await;
    queue.holds("jobs-dead", 0).await;
}

#[tokio::test]
async fn messages_with_the_headers_of_version_2_keep_their_meaning() {
    let stage = Stage::set(HttpServer::answering(|_| respond(202, "made")).await, |entry| entry);
    let stage = stage.await;
    let Stage { queue, function, .. } = &stage;
    stage.publish("jobs.openfaas-fn.figlet.order-10", DELAYED_CALL_2, "").await;
    stage.publish("jobs.openfaas-fn.figlet.order-9", CALL_2, "").await;
    let _worker = queue.worker(function, &[("function_url", "http://127.0.0.1:1")]);
    let call = function.receives(1).await.remove(0);
    assert_eq!((call.header("x-call-id"), &call.body[..]), ("order-9", &b"hi"[..]));
    // The other call stays, and is not due for a hundred years.
    queue.holds("jobs", 1).await;
    queue.holds("jobs-results", 1).await;
    stage.publish("jobs-results.openfaas-fn.figlet.order-8.7", KEPT_RESULT_2, "").await;
    queue.holds("jobs-results", 2).await;

    let aq = async |arguments: &[&str]| {
        program::run("kubectl-aq", arguments, &[("nats_url", &queue.nats.url())]).await
    };
    let shown = aq(&["status", "order-10", "-o", "json"]).await.text();
    assert!(shown.contains(r#""state": "scheduled""#) && shown.contains("2126-11-24"), "{shown}");
    for (id, status) in [("order-9", 202), ("order-8", 201)] {
        let result = aq(&["result", id]).await;
        let said = format!("call {id} is done, status {status}");
        assert!(result.stderr.contains(&said), "{}", result.stderr);
        assert_eq!((result.code, result.text().as_str()), (Some(0), "made"));
    }
}

#[tokio::test]
async fn additions_of_later_versions_are_kept_or_ignored() {
    const LATER: &str = "Async-Later: of the future\r\n";
    let later_field = |entry: Vec<u8>| {
        let entry = String::from_utf8(entry).unwrap();
        format!("{},\"later\":{{\"a\":1}}}}", entry.strip_suffix('}').unwrap()).into_bytes()
    };
    let stage =
        Stage::set(HttpServer::answering(|_| respond(503, "sorry")).await, later_field).await;
    let Stage { queue, function, caller } = &stage;
    let bucket = queue.js.get_key_value(buckets::DIRECTORY.name).await.unwrap();
    bucket.put("later.of.another.kind", "anything".into()).await.unwrap();
    stage.publish("jobs.openfaas-fn.figlet.order-6", CALL, LATER).await;
    stage.publish("jobs-callbacks.openfaas-fn.figlet.order-5", RESULT, LATER).await;
    let _worker = queue.worker(function, &[("function_url", "http://127.0.0.1:1")]);
    // Twice, as the directory says.
    queue.holds("jobs-dead", 1).await;
    queue.empties().await;
    assert_eq!(function.received().len(), 2);
    caller.receives(2).await;
    assert_eq!(&Stage::at(caller, "/of-result").body[..], b"the answer");
    // A worker of that version can read it when it is replayed.
    let letter = messages(queue, "jobs-dead").await.remove(0);
    assert_eq!(letter.headers.get("Async-Later").unwrap().as_str(), "of the future");
}
