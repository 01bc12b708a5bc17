//! A nats-server that was started without `-js`: each program says so, and what to do, and works
//! once it is enabled.

use async_nats::ConnectOptions;
use test_support::{
    http::HttpServer, loopback::free_port, nats::NatsServer, program, raw, wait::until,
};

use crate::{
    gateway::Gateway,
    support::{start_operator, start_worker},
};

/// A server without JetStream, which asks for a password.
async fn server() -> (NatsServer, String) {
    let mut nats =
        NatsServer::prepare().without_jetstream().with(["--user", "u", "--pass", "hunter2"]);
    nats.launch();
    let url = nats.url().replace("nats://", "nats://u:hunter2@");
    answers(&nats, "u", "hunter2").await;
    (nats, url)
}

/// Waits until the server takes a connection.
async fn answers(nats: &NatsServer, user: &str, password: &str) {
    until("the server answers", async || {
        let options = ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned());
        options.connect(nats.url()).await.ok()
    })
    .await;
}

/// What is to be said of the server.
fn message(nats: &NatsServer) -> String {
    format!("JetStream is not enabled on {}: start nats-server with -js", nats.url())
}

fn assert_no_password(lines: &[String]) {
    assert!(!lines.iter().any(|line| line.contains("hunter2")), "{lines:?}");
}

#[tokio::test]
async fn a_gateway_says_that_jetstream_is_not_enabled() {
    let (nats, url) = server().await;
    for settings in [&[("ensure_stream", "true")][..], &[("directory_file", "")]] {
        let gateway = Gateway::start_at(&url, "queues: {jobs: }", settings).await;
        gateway.program.logged(&message(&nats)).await;
        let readiness = until("it is not ready for that", async || {
            let answer = gateway.call("GET", "/readyz", &[], "").await;
            answer.text().contains("jetstream: ").then_some(answer)
        })
        .await;
        assert_eq!(readiness.status, 503);
        assert!(
            readiness.text().contains(&format!("jetstream: {}", message(&nats))),
            "{}",
            readiness.text()
        );
        for (method, path) in
            [("POST", "/async-function/figlet"), ("GET", "/async-function/order-7")]
        {
            let answer =
                gateway.call(method, path, &[("accept", "application/problem+json")], "").await;
            assert_eq!(
                (answer.status, &answer.json()["code"]),
                (503, &"no_jetstream".into()),
                "{settings:?}"
            );
            assert!(answer.text().contains("start nats-server with -js"), "{}", answer.text());
        }
        let log = gateway.program.log();
        assert_no_password(&log);
        assert!(!log.iter().any(|line| line.contains("resource does not exist")), "{log:?}");
    }
}

#[tokio::test]
async fn a_worker_says_that_jetstream_is_not_enabled_and_works_once_it_is() {
    let (mut nats, url) = server().await;
    let function = HttpServer::start().await;
    let admin = format!("127.0.0.1:{}", free_port());
    let settings = [("nats_url", &*url), ("http_addr", &admin), ("ensure_stream", "true")];
    let worker = start_worker(&nats, &function, &settings);
    worker.logged(&message(&nats)).await;
    let readiness = async || {
        let answer =
            raw::try_request(admin.parse().unwrap(), "GET", "/readyz", &[], b"").await.ok()?;
        Some((answer.status, answer.text()))
    };
    until("it is not ready for that", async || {
        let (status, text) = readiness().await?;
        (status == 503 && text.contains(&format!("jetstream: {}", message(&nats)))).then_some(())
    })
    .await;
    assert!(
        !worker.log().iter().any(|line| line.contains("resource does not exist")),
        "{:?}",
        worker.log()
    );

    nats.kill();
    nats = nats.with_jetstream();
    nats.launch();
    until("the worker is ready", async || readiness().await.filter(|(status, _)| *status == 200))
        .await;
    assert_no_password(&worker.log());
}

#[tokio::test]
async fn the_cli_says_that_jetstream_is_not_enabled() {
    let (nats, url) = server().await;
    for arguments in [
        &["queues"][..],
        &["dead", "list", "jobs"],
        &["status", "order-7"],
        &["cancel", "jobs", "x"],
    ] {
        let ended = program::run("kubectl-aq", arguments, &[("nats_url", &url)]).await;
        assert_eq!((ended.code, ended.text().as_str()), (Some(1), ""), "{arguments:?}");
        assert_eq!(ended.stderr, format!("kubectl aq: {}\n", message(&nats)), "{arguments:?}");
    }
}

#[tokio::test]
async fn an_operator_says_that_jetstream_is_not_enabled() {
    let (nats, url) = server().await;
    let admin = format!("127.0.0.1:{}", free_port());
    // It waits for its API server, and says what it knows of NATS.
    let settings = [("nats_url", &*url), ("http_addr", &admin)];
    let (operator, _kubeconfig) = start_operator("http://127.0.0.1:1", &settings);
    let line = operator.logged(&message(&nats)).await;
    assert!(line.contains("WARN"), "{line}");
    until("it is not ready for that", async || {
        let answer =
            raw::try_request(admin.parse().unwrap(), "GET", "/readyz", &[], b"").await.ok()?;
        answer.text().contains(&format!("jetstream: {}", message(&nats))).then_some(())
    })
    .await;
    assert_no_password(&operator.log());
}

#[tokio::test]
async fn an_account_without_jetstream_is_named() {
    let folder = tempfile::TempDir::new().unwrap();
    let config = folder.path().join("accounts");
    let accounts = "accounts { A { jetstream: enabled, users: [{user: a, password: a}] }, \
                    B { users: [{user: b, password: b}] } }";
    std::fs::write(&config, accounts).unwrap();
    let mut nats = NatsServer::prepare().with(["-c", config.to_str().unwrap()]);
    nats.launch();
    let url = |user: &str| nats.url().replace("nats://", &format!("nats://{user}:{user}@"));
    answers(&nats, "a", "a").await;
    let queues =
        async |user| program::run("kubectl-aq", &["queues"], &[("nats_url", &url(user))]).await;
    let ended = queues("b").await;
    let expected =
        format!("JetStream is not enabled for the account of this program on {}", nats.url());
    assert!(ended.code == Some(1) && ended.stderr.contains(&expected), "{}", ended.stderr);
    assert_eq!(queues("a").await.code, Some(0));
}
