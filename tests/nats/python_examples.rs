//! The client in Python and the operators for Airflow of `examples/`, on the gateway.

use serde::Deserialize;
use test_support::{
    clients,
    http::{HttpServer, respond},
};

use crate::{gateway::Gateway, support::Queue};

/// What `airflow_operators.py` prints.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Tasks {
    /// The file of Airflow's base class.
    airflow: String,
    call_ids: Vec<String>,
    #[serde(default)]
    returned: Option<String>,
    #[serde(default)]
    raised: Option<String>,
}

/// A function that answers with the body, or with 404 if it is `missing`.
async fn echo() -> HttpServer {
    HttpServer::answering(|request| match &request.body[..] {
        b"missing" => respond(404, "no such report"),
        body => respond(200, str::from_utf8(body).unwrap_or_default()),
    })
    .await
}

#[tokio::test]
async fn python_client_uses_each_feature() {
    let (queue, function) = (Queue::start().await, echo().await);
    let gateway = Gateway::before(&queue, &[]).await;
    let _worker = queue.worker(&function, &[]);
    let url = format!("http://{}", gateway.addr);
    let printed = clients::run_example("python/asyncqueue_client.py", &[&url, "figlet"]).await;
    assert_eq!(
        printed,
        "result: submitted\nresponse: waited for\nstate: scheduled cancelled: True\n\
         batch: 2 done, cancelled: False\n"
    );
    queue.empties().await;
    assert_eq!(function.received().len(), 4);
}

/// Runs the operators, by a function that returns what their program prints.
async fn airflow_tasks(run: impl AsyncFn([&str; 3]) -> Tasks) -> Vec<Tasks> {
    let (queue, function) = (Queue::start().await, echo().await);
    let gateway = Gateway::before(&queue, &[]).await;
    let _worker = queue.worker(&function, &[]);
    let url = format!("http://{}", gateway.addr);
    let done = run([&url, "figlet", "42 rows"]).await;
    assert_eq!(done.returned.as_deref(), Some("42 rows"));
    assert_eq!(done.call_ids[0], done.call_ids[1], "a retry finds the call");
    assert_eq!(function.received().len(), 1);
    let failed = run([&url, "report", "missing"]).await;
    let reason = failed.raised.as_deref().unwrap();
    assert!(reason.contains("ended as done, with status 404"), "{reason}");
    vec![done, failed]
}

#[tokio::test]
async fn airflow_tasks_submit_a_call_and_wait_for_its_result() {
    let run = async |arguments: [&str; 3]| {
        clients::run("airflow_operators.py", &arguments, &[]).await.answer
    };
    let _ = airflow_tasks(run).await;
}

#[tokio::test]
#[ignore = "installs Apache Airflow: make test-airflow"]
async fn published_airflow_runs_the_operators() {
    let run = async |arguments: [&str; 3]| {
        clients::run_with_airflow("airflow_operators.py", &arguments).await.answer
    };
    for tasks in airflow_tasks(run).await {
        assert!(tasks.airflow.contains("/site-packages/airflow/sdk/"), "{}", tasks.airflow);
    }
}
