//! Calls that name functions which do not exist: the gateway reports them, and the operator creates
//! an event on the queue.

use std::{collections::BTreeSet, time::Duration};

use asyncqueue::{
    FunctionName,
    directory::{Directory, FunctionEntry, QueueEntry, store::DirectoryStore},
    unknown_functions::{Outcome, Report, report_subject},
};
use futures::StreamExt;
use serde_json::{Value, json};
use test_support::{
    loopback::free_port,
    wait::{WAIT_TIMEOUT, until},
};
use tokio::time::{sleep, timeout};

use crate::{api_server::ApiServer, gateway::Gateway, support::Queue};

/// Longer than it takes from a report to its event.
const SETTLED: Duration = Duration::from_secs(9);

/// Settings of a gateway whose directory is the operator's.
const OPERATORS: (&str, &str) = ("directory_file", "");

fn function(name: &str) -> FunctionName {
    FunctionName::new(name, "openfaas-fn").unwrap()
}

/// Writes a directory with the queue `jobs` and the function `figlet`, as an operator does.
async fn write_directory(queue: &Queue) {
    let mut directory = Directory::default();
    let entry = QueueEntry::new(&*queue.spec.stream, &*queue.spec.subject);
    directory.queues.insert(queue.spec.queue.clone(), entry);
    directory.functions.insert(function("figlet"), FunctionEntry::default());
    DirectoryStore::open(&queue.js, 1).await.unwrap().sync(&directory).await.unwrap();
}

#[tokio::test]
async fn a_gateway_reports_the_unknown_functions_of_its_calls() {
    let queue = Queue::start().await;
    write_directory(&queue).await;
    let client = queue.js.client();
    let mut reports = client.subscribe(report_subject(&queue.spec.queue)).await.unwrap();
    client.flush().await.unwrap();
    for (setting, status, outcome) in
        [("accept", 202, Outcome::Accepted), ("reject", 404, Outcome::Rejected)]
    {
        let gateway =
            Gateway::start(&queue.nats, "", &[OPERATORS, ("unknown_function", setting)]).await;
        gateway.is_ready().await;
        for (path, status) in
            [("figlet", 202), ("slwo", status), ("slwo", status), ("anohter", status)]
        {
            let answer =
                gateway.call("POST", &format!("/async-function/{path}"), &[], "secret").await;
            assert_eq!(answer.status, status, "{path}: {}", answer.text());
        }
        let mut reported = BTreeSet::new();
        while reported.len() < 2 {
            let message = timeout(WAIT_TIMEOUT, reports.next()).await.unwrap().unwrap();
            let report = Report::decode(&message.payload).unwrap();
            assert_eq!(report.outcome, outcome);
            reported.extend(report.functions);
        }
        assert_eq!(reported, [function("anohter"), function("slwo")].into());
    }
}

/// Of the events that were created, those about functions.
fn events(api: &ApiServer) -> Vec<Value> {
    api.events().into_iter().filter(|event| event["reason"] == "FunctionNotFound").collect()
}

#[tokio::test]
async fn calls_of_unknown_functions_are_an_event_on_the_queue() {
    let queue = Queue::standalone().await;
    let api = ApiServer::start(json!({ "stream": "jobs" })).await;
    let (url, admin) = (queue.nats.url(), format!("127.0.0.1:{}", free_port()));
    let (operator, _kubeconfig) = api.operator(&[("nats_url", &url), ("http_addr", &admin)]);
    let gateway =
        Gateway::start(&queue.nats, "", &[OPERATORS, ("unknown_function", "accept")]).await;
    gateway.is_ready().await;
    until("the stream is there", async || queue.js.get_stream("jobs").await.ok()).await;
    let call = async || {
        let answer = gateway.call("POST", "/async-function/slwo", &[], "secret").await;
        assert_eq!(answer.status, 202, "{}", answer.text());
    };
    call().await;
    let event = until("an event", async || events(&api).pop()).await;
    let note = event["note"].as_str().unwrap();
    let beginning = "Calls name functions that do not exist: slwo.openfaas-fn. ";
    assert!(note.starts_with(beginning) && note.contains("unknown_function=reject"), "{event}");
    assert_eq!(
        (&event["type"], &event["regarding"]["kind"], &event["regarding"]["name"]),
        (&json!("Warning"), &json!("AsyncQueue"), &json!("jobs"))
    );
    assert!(!event.to_string().contains("secret"), "{event}");
    operator.logged(beginning).await;

    // What was said is not said again.
    call().await;
    sleep(SETTLED).await;
    assert_eq!(events(&api).len(), 1);
}
