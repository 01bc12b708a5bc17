//! What the alerts and the dashboard read is what the programs export.

use std::collections::BTreeMap;

use test_support::{
    cluster::{PODS, PortForward, kubectl, prometheus_operator, repository},
    monitoring::{alerts, dashboard_expressions},
    promql::{Exported, exported, used},
    raw,
    wait::until_in,
};

use crate::support::{Gateway, Queue};

#[tokio::test]
async fn alerts_and_dashboard_read_what_the_programs_export() {
    // Queues without limits do not export them.
    let spec = "{timeout: 1m, fairness: Function, concurrency: 10, \
                perFunction: {maxInflight: 5, adaptive: true}}";
    let queue = Queue::ready("monitored", spec).await;
    queue.deploy_functions(&["fast", "callbacks"]).await;
    let gateway = Gateway::connect();
    // It is refused once.
    let call = gateway.submit(queue.name(), "fast?status=429&fail_times=1").await;
    gateway.callback(queue.name(), &call.call_id).await;

    let worker = queue.worker();
    let programs = [
        ("openfaas", "deployment/asyncqueue-operator", 8083),
        ("openfaas", "deployment/asyncqueue-gateway", 8082),
        (queue.name(), worker.as_str(), 8081),
    ]
    .map(|(namespace, deployment, port)| PortForward::to(namespace, deployment, port));

    let mut expressions = dashboard_expressions();
    expressions.extend(alerts().iter().map(|alert| alert["expr"].as_str().unwrap().to_owned()));
    // Some values are read every few seconds.
    let mut missing = Vec::new();
    let all = until_in(PODS, "all metrics", async || {
        let mut scrapes = String::new();
        for program in &programs {
            let answer =
                raw::try_request(program.addr(), "GET", "/metrics", &[], b"").await.ok()?;
            scrapes.push_str(&answer.text());
        }
        missing =
            expressions.iter().flat_map(|expression| missing_in(expression, &scrapes)).collect();
        missing.is_empty().then_some(())
    });
    let all = tokio::time::timeout(PODS / 2, all).await;
    assert!(all.is_ok(), "not exported:\n{}", missing.join("\n"));
}

#[test]
fn the_prometheus_operator_takes_what_is_there_for_it() {
    prometheus_operator::install_crds();
    let folder = repository().join("manifests/monitoring");
    let folder = folder.to_str().unwrap();
    // A field that a CRD does not know is refused.
    let taken =
        kubectl(&["apply", "--server-side", "--dry-run=server", "--validate=strict", "-k", folder]);
    for kind in ["podmonitor", "prometheusrule", "configmap"] {
        assert!(taken.contains(kind), "{taken}");
    }
}

/// The labels that Prometheus adds to all that it scrapes of a pod.
const OF_PODS: [&str; 1] = ["namespace"];

/// What an expression reads and no program exports.
fn missing_in(expression: &str, scrapes: &str) -> Vec<String> {
    let exported: BTreeMap<String, Exported> = exported(scrapes);
    let mut missing = Vec::new();
    for mut used in used(expression) {
        used.labels.retain(|label| !OF_PODS.contains(&label.as_str()));
        match exported.get(&used.metric) {
            Some(metric)
                if used.labels.is_subset(&metric.labels)
                    && used.values.is_subset(&metric.values) => {}
            found => missing.push(format!("{used:?}, but {found:?}, for {expression}")),
        }
    }
    missing
}
