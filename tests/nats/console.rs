//! The console: its pages, with a NATS user that may only read.

use std::{net::SocketAddr, time::Duration};

use async_nats::{ConnectOptions, Event, ServerError};
use test_support::{
    http::{HttpServer, respond},
    loopback::free_port,
    nats::NatsServer,
    program::{Program, run},
    raw::{self, RawResponse},
    wait::{WAIT_TIMEOUT, until},
};
use tokio::{sync::mpsc, time::timeout};

use crate::{gateway::Gateway, support::Queue};

/// What the documents give the user of the console.
const PERMISSIONS: &str = include_str!("../../manifests/console/nats-permissions.conf");

/// What they give it with the setting `actions`.
const ACTION_PERMISSIONS: &str =
    include_str!("../../manifests/console/nats-permissions-actions.conf");

/// The user of the console in NATS, the one with the permissions for actions, and their password.
pub(crate) const USER: &str = "console";
pub(crate) const ACTION_USER: &str = "actions";
const PASSWORD: &str = "secret";

/// A line of `auth_file`: the user `ada` with the password `right`.
pub(crate) const VIEWER: &str =
    "ada:$2b$04$abcdefghijklmnopqrstuuFmEfrkTQnczNzw475xE2VhDrK1uwJiC\n";

/// A text that a function sends.
const HOSTILE: &str = "<script>alert(1)</script>";

/// A queue on a nats-server that gives the console its permissions, and a gateway.
pub(crate) struct Stage {
    pub(crate) queue: Queue,
    pub(crate) gateway: Gateway,
    pub(crate) function: HttpServer,
    pub(crate) folder: tempfile::TempDir,
}

/// A console on loopback.
pub(crate) struct Console {
    pub(crate) program: Program,
    pub(crate) addr: SocketAddr,
    pub(crate) metrics_addr: SocketAddr,
}

impl Stage {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("nats.conf");
        let users = format!(
            "no_auth_user: test\nauthorization {{ users: [{{user: test}}, \
             {{user: {USER}, password: {PASSWORD}, permissions: {{ {PERMISSIONS} }} }}, \
             {{user: {ACTION_USER}, password: {PASSWORD}, \
             permissions: {{ {ACTION_PERMISSIONS} }} }}] }}"
        );
        std::fs::write(&config, users).unwrap();
        let mut nats = NatsServer::prepare().with(["-c".to_owned(), config.display().to_string()]);
        nats.run().await;
        let queue = Queue::start_on(nats).await;
        let gateway = Gateway::before(&queue, &[]).await;
        let function = HttpServer::answering(|request| match request.body.as_ref() {
            b"fail" => respond(500, "sorry"),
            b"busy" => respond(503, "later"),
            _ => respond(200, HOSTILE),
        })
        .await;
        Self { queue, gateway, function, folder }
    }

    /// A console that has read the queues, with the permissions to read.
    pub(crate) async fn console(&self, settings: &[(&str, &str)]) -> Console {
        self.console_as(USER, settings).await
    }

    /// A console that has read the queues, as a user of NATS.
    pub(crate) async fn console_as(&self, user: &str, settings: &[(&str, &str)]) -> Console {
        let address = || SocketAddr::from(([127, 0, 0, 1], free_port()));
        let url = self.queue.nats.url().replace("nats://", &format!("nats://{user}:{PASSWORD}@"));
        let (addr, metrics_addr) = (address(), address());
        let (http, metrics) = (addr.to_string(), metrics_addr.to_string());
        let mut all = vec![
            ("nats_url", url.as_str()),
            ("http_addr", &http),
            ("metrics_addr", &metrics),
            ("sample_interval", "100ms"),
        ];
        all.extend_from_slice(settings);
        let program = Program::start("asyncqueue-console", &all);
        let console = Console { program, addr, metrics_addr };
        until("the console is ready", async || {
            let ready = raw::try_request(metrics_addr, "GET", "/readyz", &[], b"").await.ok()?;
            (ready.status == 200).then_some(())
        })
        .await;
        console
    }
}

/// What the console may never do, whatever its settings are.
const NEVER: [&str; 12] = [
    "jobs-dead.openfaas-fn.figlet.call-1",
    "$KV.asyncqueue-directory.queue.jobs",
    "$KV.asyncqueue-slots.jobs",
    "$JS.API.STREAM.PURGE.jobs",
    "$JS.API.STREAM.DELETE.jobs",
    "$JS.API.STREAM.UPDATE.jobs",
    "$JS.API.STREAM.CREATE.other",
    "$JS.API.CONSUMER.CREATE.other.reader.>",
    "$JS.API.CONSUMER.DURABLE.CREATE.jobs.reader",
    "$JS.API.CONSUMER.DELETE.jobs.jobs-workers",
    "$JS.API.CONSUMER.MSG.NEXT.jobs.jobs-workers",
    "other.openfaas-fn.figlet.call-1",
];

impl Stage {
    /// Checks that NATS refuses what a user publishes to these subjects.
    async fn assert_refused(&self, user: &str, subjects: &[&'static str]) {
        let (sender, mut refusals) = mpsc::unbounded_channel();
        let options = ConnectOptions::with_user_and_password(user.to_owned(), PASSWORD.to_owned());
        let options = options.event_callback(move |event| {
            if let Event::ServerError(ServerError::Other(text)) = event {
                let _ = sender.send(text);
            }
            std::future::ready(())
        });
        let client = options.connect(self.queue.nats.url()).await.unwrap();
        for subject in subjects {
            client.publish(*subject, "{}".into()).await.unwrap();
            client.flush().await.unwrap();
            let refusal = timeout(WAIT_TIMEOUT, refusals.recv()).await;
            let text = refusal.unwrap_or_else(|_| panic!("{subject} is not refused")).unwrap();
            let named = format!("\"{subject}\"").to_lowercase();
            assert!(text.to_lowercase().contains(&named), "{subject}: {text}");
        }
    }
}

impl Console {
    pub(crate) async fn get(&self, target: &str) -> RawResponse {
        raw::request(self.addr, "GET", target, &[], b"").await
    }

    /// Returns a page that is there.
    pub(crate) async fn page(&self, target: &str) -> String {
        let response = self.get(target).await;
        assert_eq!(response.status, 200, "{target}: {}", response.text());
        response.text()
    }

    /// Waits until a page has a text, and returns it.
    pub(crate) async fn shows(&self, target: &str, text: &str) -> String {
        until(&format!("{target} shows `{text}`"), async || {
            let page = self.get(target).await;
            (page.status == 200).then(|| page.text()).filter(|page| page.contains(text))
        })
        .await
    }
}

#[tokio::test]
async fn all_pages_work_with_the_permissions_to_read() {
    let stage = Stage::start().await;
    let console = stage.console(&[("show_payloads", "true")]).await;
    let batch = [r#"{"function":"figlet","body":"a"}"#, r#"{"function":"figlet","body":"b"}"#];
    let headers = [("x-batch-id", "batch-7"), ("x-callback-url", "http://127.0.0.1:9/done")];
    let stored = stage.gateway.call("POST", "/async-batch", &headers, batch.join("\n")).await;
    assert_eq!(stored.status, 202, "{}", stored.text());
    let secret = [("authorization", "Bearer topsecret"), ("x-keep-result", "1h")];
    let call = stage.gateway.submit(&secret, HOSTILE).await;
    let failing = stage.gateway.submit(&[], "fail").await;
    let plain = stage.gateway.submit(&[], "plain").await;

    console.shows("/", "no worker is connected").await;
    let queue = console.page("/queues/jobs").await;
    assert!(queue.contains("No worker is connected") && queue.contains("<svg"), "{queue}");
    assert!(queue.contains("Sampled at"), "{queue}");
    assert!(queue.contains("<title>Waiting calls</title>"), "{queue}");
    console.shows("/queues/jobs", "now 0 per minute").await;
    let waiting = console.page(&format!("/calls/{call}")).await;
    assert!(waiting.contains("Waits in the queue"), "{waiting}");
    assert!(waiting.contains("&lt;script&gt;") && !waiting.contains(HOSTILE), "{waiting}");
    assert!(!waiting.contains("topsecret"), "{waiting}");
    assert!(console.page("/batches").await.contains("/batches/batch-7"));
    assert!(console.page("/batches/batch-7").await.contains("2 pending"));

    let worker = stage.queue.worker(&stage.function, &[("max_retry_attempts", "1")]);
    stage.queue.holds("jobs-dead", 1).await;
    stage.queue.holds("jobs", 0).await;
    let dead = console.shows("/queues/jobs/dead", "figlet.openfaas-fn").await;
    assert!(dead.contains("500") && dead.contains(&format!("/calls/{failing}")), "{dead}");
    let dead = console.page(&format!("/calls/{failing}")).await;
    assert!(dead.contains("Became a dead letter after 1 attempt, status 500"), "{dead}");
    let done = console.page(&format!("/calls/{call}")).await;
    assert!(done.contains("Done: attempt 1 of 1 answered 200"), "{done}");
    assert!(done.contains("&lt;script&gt;"), "{done}");
    assert!(!done.contains(HOSTILE) && !done.contains("topsecret"), "{done}");
    let remembered = console.page(&format!("/calls/{plain}")).await;
    assert!(remembered.contains("Done: attempt 1 answered 200"), "{remembered}");
    console.shows("/queues/jobs", "1 worker<").await;
    console.shows("/batches/batch-7", "2 done").await;
    let found = console.get(&format!("/search?id={call}")).await;
    assert_eq!((found.status, found.header("location")), (303, &*format!("/calls/{call}")));
    console.shows("/?sort=dead", "/queues/jobs/dead").await;
    drop(worker);
    let log = console.program.log();
    assert!(!log.iter().any(|line| line.contains("ermissions")), "{log:?}");
}

#[tokio::test]
async fn unknown_pages_and_writes_are_refused_with_a_remedy() {
    let stage = Stage::start().await;
    let console = stage.console(&[]).await;
    for (target, status, text) in [
        ("/nowhere", 404, "no such page"),
        ("/queues/other", 404, "There is no queue other"),
        ("/queues/a.b", 400, "is not valid"),
        ("/queues/other/dead", 404, "keeps no dead letters"),
        ("/calls/unknown", 404, "X-Keep-Result"),
        ("/calls/%3Cscript%3E", 400, "`&lt;script&gt;` is not an id"),
        ("/search?id=%3Cscript%3E", 400, "&lt;script&gt;"),
        ("/batches/unknown", 404, "There is no batch unknown"),
    ] {
        let response = console.get(target).await;
        assert_eq!(response.status, status, "{target}");
        assert!(response.text().contains(text), "{target}: {}", response.text());
        assert!(!response.text().contains("<script>"), "{target}");
    }
    let refused = raw::request(console.addr, "POST", "/queues/jobs/dead", &[], b"").await;
    assert_eq!(refused.status, 405);
    let page = console.get("/").await;
    let policy = page.header("content-security-policy");
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    for asset in ["style.css", "console.js", "htmx.min.js", "icon.svg"] {
        assert!(page.text().contains(&format!("/assets/{asset}")));
        assert_eq!(console.get(&format!("/assets/{asset}")).await.status, 200);
    }
    let metrics = raw::request(console.metrics_addr, "GET", "/metrics", &[], b"").await.text();
    for name in ["console_http_requests_total", "console_samples_total"] {
        assert!(metrics.contains(name), "{metrics}");
    }
}

#[tokio::test]
async fn actions_take_no_other_permissions_than_they_need() {
    let stage = Stage::start().await;
    stage.assert_refused(ACTION_USER, &NEVER).await;
    let lines: Vec<_> = ACTION_PERMISSIONS.lines().collect();
    for line in PERMISSIONS.lines().filter(|line| line.trim_start().starts_with('"')) {
        assert!(lines.contains(&line), "{line}");
    }
}

#[tokio::test]
async fn writes_of_the_console_user_are_refused_by_nats() {
    let stage = Stage::start().await;
    stage.gateway.submit(&[], "hi").await;
    let before = stage.queue.info("jobs").await;
    stage
        .assert_refused(
            USER,
            &[
                "jobs",
                "jobs.openfaas-fn.figlet.call-1",
                "$KV.asyncqueue-cancelled.jobs.call-1.1",
                "$JS.API.STREAM.MSG.DELETE.jobs",
                "asyncqueue.cancel.jobs",
            ],
        )
        .await;
    stage.assert_refused(USER, &NEVER).await;
    let after = stage.queue.info("jobs").await;
    assert_eq!(after.state.messages, before.state.messages);
    assert_eq!(after.state.consumer_count, before.state.consumer_count);
}

#[tokio::test]
async fn users_log_in_with_a_password_of_the_file() {
    let stage = Stage::start().await;
    let file = stage.folder.path().join("users");
    std::fs::write(&file, VIEWER).unwrap();
    let console = stage.console(&[("auth_file", file.to_str().unwrap())]).await;
    let ask =
        async |login: &[(&str, &str)]| raw::request(console.addr, "GET", "/", login, b"").await;
    let without = ask(&[]).await;
    assert_eq!(without.status, 401);
    assert!(without.header("www-authenticate").starts_with("Basic "));
    assert!(!without.text().contains("jobs"));
    // base64 of ada:right and ada:wrong.
    let (right, wrong) = ("Basic YWRhOnJpZ2h0", "Basic YWRhOndyb25n");
    assert_eq!(ask(&[("authorization", right)]).await.status, 200);
    let mut statuses = Vec::new();
    for _ in 0..12 {
        statuses.push(ask(&[("authorization", wrong)]).await.status);
    }
    assert_eq!(statuses[0], 401);
    assert_eq!(statuses.last(), Some(&429));
    assert_eq!(ask(&[("authorization", right)]).await.status, 200);
    let log = console.program.log();
    assert!(log.iter().any(|line| line.contains("login refused")), "{log:?}");
    assert!(!log.iter().any(|line| line.contains("wrong\"") || line.contains("right")), "{log:?}");
}

#[tokio::test]
async fn console_does_not_start_open_without_authentication() {
    let ended = timeout(
        Duration::from_secs(30),
        run("asyncqueue-console", &[], &[("http_addr", "0.0.0.0:0")]),
    );
    let ended = ended.await.unwrap();
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("auth_file"), "{}", ended.stderr);
}
