//! The gateway answers as its description says: schemathesis sends requests that the description
//! allows, and others, and compares each response with it.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use serde_json::Value;
use test_support::{cluster::repository, http::HttpServer, python};

use crate::{gateway::Gateway, support::Queue};

/// What each response is compared with: its status, content type, headers and body.
const CHECKS: &str = "status_code_conformance,content_type_conformance,\
                      response_headers_conformance,response_schema_conformance";

/// Cases for each operation, as far as there are so many different ones.
const CASES_PER_OPERATION: &str = "110";

const MIN_CASES: u64 = 2000;

/// The statuses of the responses to a link, each with its number, by the id of the link.
type Links = BTreeMap<String, BTreeMap<u64, u32>>;

#[tokio::test]
async fn the_gateway_answers_as_its_description_says() {
    let (queue, function) = (Queue::start().await, HttpServer::start().await);
    // Generated requests name any namespace, and any depth that can be read.
    let settings = [
        ("function_url", function.url()),
        ("function_namespaces", "*".to_owned()),
        ("max_chain_depth", u32::MAX.to_string()),
        // No call ends, unless it is cancelled.
        ("max_wait", "100ms".to_owned()),
        // A line for each of some thousand requests would hide the report.
        ("RUST_LOG", "info".to_owned()),
    ];
    let settings = settings.each_ref().map(|(name, value)| (*name, value.as_str()));
    // Without a worker: calls stay queued, and nothing is sent to generated callback URLs.
    let gateway = Gateway::before(&queue, &settings).await;
    let folder = tempfile::tempdir().unwrap();
    let reports = folder.path().to_owned();
    let url = format!("http://{}/openapi.json", gateway.addr);
    tokio::task::spawn_blocking(move || run_schemathesis(&url, &reports)).await.unwrap();

    let report: Value = serde_json::from_str(&read(folder.path(), "run.json")).unwrap();
    let (operations, cases) = (&report["operations"], &report["test_cases"]);
    assert_eq!(operations["tested"], operations["total"], "{operations}");
    assert!(cases["generated"].as_u64().unwrap() >= MIN_CASES, "{cases}");
    println!("{cases}");

    // A link leads from a call that is stored to this call.
    let links = links(&read(folder.path(), "events.ndjson"));
    println!("{links:?}");
    for (method, status) in [("GET", 200), ("DELETE", 202)] {
        for path in ["/async-function/{nameOrId}", "/async-function/{nameOrId}/{pathOrId}"] {
            let end = format!(" -> {method} {path}");
            let followed = links.iter().filter(|(link, _)| link.ends_with(&end));
            let found: u32 = followed.filter_map(|(_, statuses)| statuses.get(&status)).sum();
            assert!(found > 0, "no link{end} was answered with {status}: {links:?}");
        }
    }
}

/// Runs schemathesis on the gateway whose description is at a URL. Its reports are in `folder`.
fn run_schemathesis(url: &str, folder: &Path) {
    let schemathesis = python::with_packages_of("schemathesis").with_file_name("schemathesis");
    let mut command = Command::new(schemathesis);
    command
        .arg("--config-file")
        .arg(repository().join("tests/schemathesis/schemathesis.toml"))
        .args(["run", url, "--checks", CHECKS, "--max-examples", CASES_PER_OPERATION])
        // The same cases in each run. One worker: Python 3.11 fails if two threads parse a source.
        .args(["--generation-deterministic", "--workers=1", "--no-color"])
        .args(["--report=json,ndjson", "--report-json-path=run.json"])
        .arg("--report-ndjson-path=events.ndjson")
        // It keeps files there.
        .current_dir(folder);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

/// The links that were followed, from the events of a run.
fn links(events: &str) -> Links {
    let mut links = Links::new();
    for event in events.lines() {
        let event: Value = serde_json::from_str(event).unwrap();
        let recorder = &event["ScenarioFinished"]["recorder"];
        for (id, case) in recorder["cases"].as_object().into_iter().flatten() {
            let link = case["transition"]["id"].as_str();
            let Some(link) = link.filter(|_| case["is_transition_applied"] == true) else {
                continue;
            };
            let response = &recorder["interactions"][id]["response"];
            if let Some(status) = response["status_code"].as_u64() {
                *links.entry(link.to_owned()).or_default().entry(status).or_default() += 1;
            }
        }
    }
    links
}

fn read(folder: &Path, file: &str) -> String {
    fs::read_to_string(folder.join(file)).unwrap()
}
