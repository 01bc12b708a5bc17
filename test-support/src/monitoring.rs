//! The expressions in `manifests/monitoring`.

use std::fs;

use serde_json::Value;

use crate::cluster::repository;

/// The alerts, each as an entry of a rule file.
#[must_use]
pub fn alerts() -> Vec<Value> {
    let rule: Value = serde_saphyr::from_str(&read("alerts.yaml")).expect("the alerts are YAML");
    let groups = rule["spec"]["groups"].as_array().expect("groups of alerts");
    groups.iter().flat_map(|group| group["rules"].as_array().expect("alerts")).cloned().collect()
}

/// The expressions of the dashboard's panels and variables, with a time in the place of Grafana's
/// own variable.
#[must_use]
pub fn dashboard_expressions() -> Vec<String> {
    let dashboard: Value =
        serde_json::from_str(&read("dashboard.json")).expect("the dashboard is JSON");
    let mut expressions = Vec::new();
    collect(&dashboard, &mut expressions);
    expressions
}

fn collect(value: &Value, expressions: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            let expression = fields.get("expr").and_then(Value::as_str);
            expressions.extend(expression.map(|text| text.replace("$__rate_interval", "5m")));
            fields.values().for_each(|value| collect(value, expressions));
        }
        Value::Array(items) => items.iter().for_each(|value| collect(value, expressions)),
        _ => {}
    }
}

fn read(name: &str) -> String {
    fs::read_to_string(repository().join("manifests/monitoring").join(name))
        .expect("a file of this project")
}
