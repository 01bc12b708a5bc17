//! Without Kubernetes: the demo that users run, and the examples of docs/wire.md for other
//! programs. The texts of the examples are taken from the document itself, so that they can't
//! differ.

use std::{
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use async_nats::HeaderMap as NatsHeaders;
use asyncqueue::{
    buckets,
    message::{digest::message_id, native},
};
use tempfile::TempDir;
use test_support::{
    clients,
    documents::section,
    http::{HttpServer, Received},
    loopback::free_port,
    nats::NatsServer,
    program::{self, Program},
    wait::until,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    gateway::{Gateway, calls, messages},
    support::Queue,
};

const WIRE: &str = include_str!("../../docs/wire.md");

/// A file of the repository.
fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// Where cargo puts the programs: next to the folder of the test that runs.
fn programs() -> PathBuf {
    std::env::current_exe().unwrap().ancestors().nth(2).unwrap().to_owned()
}

/// The fenced block of a section that begins with this line.
fn fenced<'a>(section: &'a str, fence: &str) -> &'a str {
    let (_, rest) = section.split_once(&format!("\n{fence}\n")).unwrap();
    rest.split_once("\n```").unwrap().0
}

/// The first indented block of a section.
fn indented(section: &str) -> String {
    let lines = section.lines().skip_while(|line| !line.starts_with("    "));
    lines.map_while(|line| line.strip_prefix("    ")).flat_map(|line| [line, "\n"]).collect()
}

/// The demo, with a folder of its own for what it keeps.
fn demo(folder: &TempDir) -> Command {
    let mut demo = Command::new(file("examples/standalone/demo"));
    demo.env("TMPDIR", folder.path()).env("ASYNCQUEUE_BIN", programs()).env_remove("TERM");
    demo.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    demo
}

/// Fails if a demo has left a file or a process.
fn assert_nothing_is_left(folder: &TempDir) {
    let files: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().flatten().map(|f| f.path()).collect();
    assert!(files.is_empty(), "{files:?}");
    // All that it started have its environment.
    let mark = format!("TMPDIR={}", folder.path().display());
    let of_the_demo = |process: &Path| {
        let environment = std::fs::read(process.join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
    };
    let processes: Vec<_> = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter(|process| of_the_demo(&process.path()))
        .map(|process| std::fs::read_to_string(process.path().join("cmdline")).unwrap_or_default())
        .collect();
    assert!(processes.is_empty(), "{processes:?}");
}

/// Runs a command to its end, while the other tasks of the test run.
async fn finished(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_shows_what_it_promises_and_leaves_nothing_behind() {
    let folder = TempDir::new().unwrap();
    let output = finished(demo(&folder)).await;
    let (text, errors) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
    println!("{text}\n{errors}");
    assert!(output.status.success(), "{}", output.status);

    // Three calls and a cancellation, each taken.
    assert_eq!(text.matches("HTTP/1.1 202 Accepted").count(), 4);
    let ids: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("x-call-id: ")).collect();
    let [running, queued, quick, cancelled] = ids[..] else { panic!("{ids:?}") };
    assert_eq!(cancelled, queued);
    for (id, state) in [(running, "running"), (queued, "queued"), (queued, "cancelled")] {
        let (id, state) = (format!(r#""callId":"{id}""#), format!(r#""state":"{state}""#));
        assert!(
            text.lines().any(|line| line.contains(&id) && line.contains(&state)),
            "{id} {state}"
        );
    }
    // The ends, in their order: the fast call was not held up by the slow one before it.
    let end = |line: &str| text.find(&format!("\n{line}\n")).unwrap_or_else(|| panic!("no {line}"));
    let slow = end(&format!("{running} slow 200"));
    assert!(end(&format!("{quick} fast 200")) < slow);
    assert!(end(&format!("{queued} slow 499")) < slow);
    let invoked: Vec<_> = text.lines().filter(|line| line.contains("Invoked ")).collect();
    let [fast, slow] = invoked[..] else { panic!("{invoked:?}") };
    assert!(fast.contains("Invoked fast [200] in ") && fast.contains(quick), "{fast}");
    assert!(slow.contains("Invoked slow [200] in ") && slow.contains(running), "{slow}");

    assert_nothing_is_left(&folder);
}

#[tokio::test(flavor = "multi_thread")]
async fn interrupted_demo_leaves_nothing_behind() {
    let folder = TempDir::new().unwrap();
    let mut demo = demo(&folder).spawn().unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap());
    let pid = demo.id().to_string();
    let ended = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        while !line.contains("202 Accepted") {
            line.clear();
            assert!(lines.read_line(&mut line).unwrap() > 0, "the demo ended early");
        }
        // A closed output does not hold up what it still prints.
        let rest = std::thread::spawn(move || lines.read_to_end(&mut Vec::new()));
        assert!(Command::new("kill").args(["-s", "TERM", &pid]).status().unwrap().success());
        let ended = demo.wait().unwrap();
        rest.join().unwrap().unwrap();
        ended
    });
    assert_eq!(ended.await.unwrap().code(), Some(143));
    assert_nothing_is_left(&folder);
}

#[tokio::test]
async fn the_gateway_takes_the_directory_file_of_the_example() {
    let nats = NatsServer::start().await;
    let http = format!("127.0.0.1:{}", free_port());
    let gateway = Program::start(
        "asyncqueue-gateway",
        &[
            ("nats_url", &nats.url()),
            ("directory_file", file("examples/standalone/directory.yaml").to_str().unwrap()),
            ("ensure_stream", "true"),
            ("http_addr", &http),
            ("metrics_addr", "127.0.0.1:0"),
        ],
    );
    gateway.logged("created stream fast-queue queue").await;
    gateway.logged("created stream slow-queue queue").await;
}

/// The headers of a message by which it is a call, without those that speak to the stream or come
/// from it.
fn of_the_call(headers: &NatsHeaders) -> NatsHeaders {
    let mut own = NatsHeaders::new();
    for (name, values) in headers.iter() {
        let text = name.to_string();
        if text.starts_with("Async-") || text == "Nats-Msg-Id" {
            for value in values {
                own.append(name.clone(), value.clone());
            }
        }
    }
    own
}

/// Lets a worker make the one call that is stored, and returns what its function received.
async fn made(queue: &Queue) -> Received {
    let function = HttpServer::start().await;
    let _worker = queue.worker(&function, &[]);
    let received = function.receives(1).await.remove(0);
    // Before the worker ends: what it has not acknowledged would stay.
    queue.empties().await;
    assert_eq!(received.body, "hi there");
    assert_eq!(received.header("content-type"), "text/plain");
    assert_eq!(received.headers["x-name"].as_bytes(), "café, 100%".as_bytes());
    received
}

#[tokio::test]
async fn the_documented_bytes_are_those_that_the_library_writes() {
    let queue = Queue::start().await;
    let frame = fenced(section(WIRE, "### Byte for byte"), "```").replace('\n', "\r\n");
    let address = queue.nats.url().replace("nats://", "");
    let mut connection = TcpStream::connect(address).await.unwrap();
    let hello = "CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true}\r\n\
                 SUB _INBOX.order-6 1\r\n";
    connection.write_all(format!("{hello}{frame}\r\n{frame}\r\n").as_bytes()).await.unwrap();
    let mut answers = String::new();
    while !answers.contains("10071") {
        let mut bytes = [0; 4096];
        let count = connection.read(&mut bytes).await.unwrap();
        assert!(count > 0 && !answers.contains("-ERR"), "{answers}");
        answers.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
    }
    // The first is stored, and the second is not: a call with its id is pending.
    let sequence = queue.sequence("jobs", 1).await;
    assert!(answers.contains(&format!(r#"{{"stream":"jobs","seq":{sequence}}}"#)), "{answers}");

    let message = messages(&queue, "jobs").await.remove(0);
    assert_eq!(message.subject.as_str(), "jobs.openfaas-fn.figlet.order-6");
    let call = native::decode(&message.headers, message.payload).unwrap();
    assert_eq!(of_the_call(&message.headers), native::encode(&call));
    assert_eq!(made(&queue).await.target, "/big%20letters?font=slant");
}

#[tokio::test]
async fn the_documented_command_stores_a_call_and_a_repeat_is_known() {
    let queue = Queue::start().await;
    // What `nats` is given, by the shell that a user types it into.
    let script = format!(
        "nats() {{ printf '%s\\0' \"$@\"; }}\n{}",
        indented(section(WIRE, "### With the nats CLI"))
    );
    let mut shell = Command::new("bash");
    shell.args(["-euc", &script]);
    let output = finished(shell).await;
    assert!(output.status.success());
    let words = String::from_utf8(output.stdout).unwrap();
    let words: Vec<_> = words.split_terminator('\0').collect();
    let ["pub", "--jetstream", subject, body, options @ ..] = &words[..] else {
        panic!("{words:?}")
    };
    let mut headers = NatsHeaders::new();
    for option in options.chunks(2) {
        let ["-H", header] = option else { panic!("{option:?}") };
        let (name, value) = header.split_once(':').unwrap();
        headers.append(name, value);
    }
    let publish = async || {
        let (subject, body) = ((*subject).to_owned(), (*body).to_owned());
        queue.js.publish_with_headers(subject, headers.clone(), body.into()).await.unwrap().await
    };
    publish().await.unwrap();
    let repeat = publish().await.unwrap_err().to_string();
    assert!(repeat.contains("wrong last sequence"), "{repeat}");

    // The gateway takes the same for a repeat too, by its content.
    let gateway = Gateway::before(&queue, &[]).await;
    let answer = gateway
        .call("POST", "/async-function/figlet", &[("x-call-id", "order-7")], "hi there")
        .await;
    assert_eq!((answer.status, answer.header("x-call-duplicate")), (202, "true"));
    made(&queue).await;
}

#[tokio::test]
async fn the_documented_program_in_python_stores_a_call_once() {
    let queue = Queue::start().await;
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("submit.py");
    std::fs::write(&path, fenced(section(WIRE, "### In Python"), "```python")).unwrap();
    let submit = async |body: &str| {
        let mut program = Command::new(clients::python());
        program.arg(&path).args([&queue.nats.url(), "figlet", "order-8", body]);
        let output = finished(program).await;
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(submit("hi there").await, ("stored\n".to_owned(), String::new()));
    assert_eq!(submit("hi there").await.0, "stored before\n");
    let message = messages(&queue, "jobs").await.remove(0);
    let call = calls(&queue).await.remove(0);
    assert_eq!(message.headers.get("Nats-Msg-Id").unwrap().as_str(), message_id(&call));
    made(&queue).await;
    // Another call with the id, and a repeat of each.
    for (body, said) in [("one", "stored\n"), ("other", "stored\n"), ("other", "stored before\n")] {
        assert_eq!(submit(body).await, (said.to_owned(), String::new()), "{body}");
    }
    assert_eq!(submit("one").await.0, "stored before\n");
    queue.holds("jobs", 2).await;
    assert_eq!(
        submit("hi there").await.0,
        "stored before\n",
        "it ended within the duplicate window"
    );
}

#[tokio::test]
async fn submit_example_stores_a_call_on_the_queue_of_its_function() {
    const SUBMIT: &str = "examples/submit";
    let path = programs().join(SUBMIT);
    assert!(
        path.exists(),
        "{} is missing: `cargo build --package asyncqueue --examples` makes it",
        path.display()
    );
    let queue = Queue::start().await;
    let url = queue.nats.url();
    let submit = async |arguments: &'static [&str]| {
        program::run(SUBMIT, arguments, &[("nats_url", &url), ("queue_name", "jobs")]).await
    };
    let new = submit(&["figlet.dev", "hi there"]).await;
    let stored = calls(&queue).await.remove(0);
    assert_eq!(new.text(), format!("stored: {} on jobs\n", stored.call_id));
    assert_eq!(
        (stored.function.to_string().as_str(), &stored.body[..]),
        ("figlet.dev", &b"hi there"[..])
    );

    let own = &["figlet", "hi there", "order-9"];
    assert_eq!(submit(own).await.text(), "stored: order-9 on jobs\n");
    assert_eq!(submit(own).await.text(), "stored before: order-9 on jobs\n");
    assert_eq!(submit(&["figlet", "other", "order-9"]).await.text(), "stored: order-9 on jobs\n");
    assert_eq!(submit(&["figlet"]).await.code, Some(2));

    // It follows the directory, where there is one.
    let bucket = buckets::DIRECTORY.ensure(&queue.js, 1).await.unwrap();
    let entry = r#"{"stream":"jobs","subject":"jobs.elsewhere"}"#;
    bucket.put("queue.elsewhere", entry.into()).await.unwrap();
    bucket.put("function.openfaas-fn.figlet", r#"{"queue":"elsewhere"}"#.into()).await.unwrap();
    bucket.put("complete", "{}".into()).await.unwrap();
    assert!(submit(&["figlet", "hi there"]).await.text().ends_with(" on elsewhere\n"));
    until("the call is below its queue's subject", async || {
        let subject = messages(&queue, "jobs").await.pop()?.subject;
        subject.starts_with("jobs.elsewhere.openfaas-fn.figlet.").then_some(())
    })
    .await;
}
