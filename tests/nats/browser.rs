//! The console in a real browser: scripts of `tests/browser` open its pages, and click its actions.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde_json::{Value, json};
use test_support::tools::output;
use tokio::{process::Command, time::timeout};

use crate::console::{ACTION_USER, Stage, VIEWER};

/// Maximum time for all checks.
const BROWSER_TIMEOUT: Duration = Duration::from_secs(240);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Installs the browser and the packages of its script, and returns where they are.
fn install() -> [String; 2] {
    let mut install = std::process::Command::new(root().join("tests/browser/install"));
    let printed = output(install.stderr(Stdio::inherit()));
    let lines: Vec<_> = printed.lines().map(ToOwned::to_owned).collect();
    lines.try_into().unwrap()
}

/// Runs a script of `tests/browser`. What it checks and clicks is printed as it goes.
async fn run(script: &str, installed: &[String; 2], folder: &Path, input: &Value) {
    let mut browser = Command::new("node");
    browser.arg(root().join("tests/browser").join(script)).args(installed).arg(folder);
    let status = browser.arg(input.to_string()).kill_on_drop(true).status();
    let status = timeout(BROWSER_TIMEOUT, status).await.unwrap().unwrap();
    assert!(status.success(), "a check has failed, see above");
}

#[tokio::test]
#[ignore = "takes chromium and Node.js: tests/run browser"]
async fn every_page_and_action_works_in_a_browser() {
    let installed = install();
    let stage = Stage::start().await;
    let users = stage.folder.path().join("users");
    std::fs::write(&users, VIEWER).unwrap();
    let users = users.display().to_string();
    let settings = [("auth_file", users.as_str()), ("show_payloads", "true")];
    let reader = stage.console(&settings).await;
    let actor = [&settings[..], &[("actions", "true")]].concat();
    let actor = stage.console_as(ACTION_USER, &actor).await;

    let settings =
        [("max_retry_attempts", "2"), ("initial_retry_wait", "100ms"), ("max_retry_wait", "100ms")];
    let _worker = stage.queue.worker(&stage.function, &settings);
    let submit_batch = async |id: &str, line: Value| {
        let batch = [&line, &line].map(ToString::to_string);
        let headers = [("x-batch-id", id)];
        let stored = stage.gateway.call("POST", "/async-batch", &headers, batch.join("\n")).await;
        assert_eq!(stored.status, 202, "{}", stored.text());
    };
    submit_batch("nightly", json!({"function": "figlet", "body": "hello"})).await;
    let done = stage.gateway.submit(&[("x-keep-result", "1h")], "hello").await;
    let dead = stage.gateway.submit(&[], "fail").await;
    for body in ["fail", "fail", "busy", "busy"] {
        stage.gateway.submit(&[], body).await;
    }
    stage.queue.holds("jobs-dead", 5).await;
    stage.queue.holds("jobs", 0).await;
    let later = ("x-delay", "1h");
    let waiting = stage.gateway.submit(&[later], "later").await;
    let line = json!({"function": "figlet", "body": "b", "headers": {"X-Delay": "1h"}});
    submit_batch("weekly", line).await;

    let documented = root().join("docs/console");
    let folder = match std::env::var_os("WRITE_DOCUMENT") {
        Some(_) => documented.clone(),
        None => root().join("target/browser"),
    };
    std::fs::create_dir_all(&folder).unwrap();
    let pages = json!({
        "queues": "/",
        "queue": "/queues/jobs",
        "dead-letters": "/queues/jobs/dead",
        "call-dead": format!("/calls/{dead}"),
        "call-done": format!("/calls/{done}"),
        "call-waiting": format!("/calls/{waiting}"),
        "batches": "/batches",
        "batch": "/batches/nightly",
    });
    let questions = json!({
        "cancel-call": format!("/calls/{waiting}/cancel"),
        "cancel-batch": "/batches/weekly/cancel",
        "replay": "/queues/jobs/dead/replay",
        "delete": "/queues/jobs/dead/delete",
    });
    let mut input = json!({
        "url": format!("http://{}", actor.addr),
        "readOnlyUrl": format!("http://{}", reader.addr),
        "user": "ada",
        "password": "right",
        "call": dead,
        "pages": pages,
        "questions": questions,
    });
    run("pages.mjs", &installed, &folder, &input).await;
    for name in [&pages, &questions].iter().flat_map(|named| named.as_object().unwrap().keys()) {
        for scheme in ["light", "dark"] {
            let picture = documented.join(format!("{name}-{scheme}.png"));
            assert!(picture.exists(), "no {}: see tests/browser/README.md", picture.display());
        }
    }

    input["call"] = json!(waiting);
    input["batch"] = json!("weekly");
    input["dead"] = json!(dead);
    input["part"] = json!("cancel");
    run("actions.mjs", &installed, &folder, &input).await;
    stage.queue.holds("jobs", 0).await;
    input["part"] = json!("letters");
    run("actions.mjs", &installed, &folder, &input).await;
    stage.queue.holds("jobs-dead", 0).await;
}
