//! The console in a real browser: `tests/browser/pages.mjs` opens its pages and checks them.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde_json::json;
use test_support::tools::output;
use tokio::{process::Command, time::timeout};

use crate::console::{Stage, VIEWER};

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

#[tokio::test]
#[ignore = "takes chromium and Node.js: tests/run browser"]
async fn every_page_works_in_a_browser() {
    let installed = install();
    let stage = Stage::start().await;
    let users = stage.folder.path().join("users");
    std::fs::write(&users, VIEWER).unwrap();
    let users = users.display().to_string();
    let console = stage.console(&[("auth_file", &users), ("show_payloads", "true")]).await;

    let batch = [r#"{"function":"figlet","body":"a"}"#, r#"{"function":"figlet","body":"fail"}"#];
    let headers = [("x-batch-id", "nightly"), ("x-callback-url", "http://127.0.0.1:9/done")];
    let stored = stage.gateway.call("POST", "/async-batch", &headers, batch.join("\n")).await;
    assert_eq!(stored.status, 202, "{}", stored.text());
    let done = stage.gateway.submit(&[("x-keep-result", "1h")], "hello").await;
    let dead = stage.gateway.submit(&[], "fail").await;
    let worker = stage.queue.worker(&stage.function, &[("max_retry_attempts", "1")]);
    stage.queue.holds("jobs-dead", 2).await;
    stage.queue.holds("jobs", 0).await;
    drop(worker);
    let waiting = stage.gateway.submit(&[], "later").await;

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
    let input = json!({
        "url": format!("http://{}", console.addr),
        "user": "ada",
        "password": "right",
        "call": dead,
        "pages": pages,
    });
    let mut browser = Command::new("node");
    browser.arg(root().join("tests/browser/pages.mjs")).args(installed).arg(&folder);
    // What it checks and clicks is printed as it goes.
    let status = browser.arg(input.to_string()).kill_on_drop(true).status();
    let status = timeout(BROWSER_TIMEOUT, status).await.expect("the script ends").unwrap();
    assert!(status.success(), "a check has failed, see above");
    for name in pages.as_object().unwrap().keys() {
        for scheme in ["light", "dark"] {
            let picture = documented.join(format!("{name}-{scheme}.png"));
            assert!(picture.exists(), "no {}: see tests/browser/README.md", picture.display());
        }
    }
}
