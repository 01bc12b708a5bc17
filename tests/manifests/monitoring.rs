//! Alerts and dashboard, checked and run by promtool. That programs export what they read is tested
//! on the cluster (tests/e2e/monitoring.rs).

use std::{collections::BTreeSet, fs, process::Command};

use serde_json::{Value, json};
use tempfile::TempDir;
use test_support::{
    cluster::repository,
    monitoring::{alerts, dashboard_expressions},
    tools::{self, output},
};

/// A folder with a rule file, `rules.yaml`, of these rules.
fn rule_file(rules: &[Value]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let file = json!({ "groups": [{ "name": "asyncqueue", "rules": rules }] });
    fs::write(folder.path().join("rules.yaml"), file.to_string()).unwrap();
    folder
}

fn promtool(folder: &TempDir, arguments: &[&str]) {
    let mut promtool = Command::new(tools::program("promtool", "promtool"));
    print!("{}", output(promtool.current_dir(folder.path()).args(arguments)));
}

#[test]
fn prometheus_takes_every_expression() {
    let mut rules = alerts();
    let panels = dashboard_expressions();
    assert!(!rules.is_empty() && !panels.is_empty());
    for (index, expression) in panels.iter().enumerate() {
        rules.push(json!({ "record": format!("panel:{index}"), "expr": expression }));
    }
    promtool(&rule_file(&rules), &["check", "rules", "--lint=all", "--lint-fatal", "rules.yaml"]);
}

#[test]
fn every_alert_fires_only_on_its_condition() {
    let mut rules = alerts();
    for rule in &mut rules {
        // promtool compares them word by word; that there are some is tested below.
        rule.as_object_mut().unwrap().remove("annotations");
    }
    let folder = rule_file(&rules);
    let tests = fs::read_to_string(repository().join("tests/manifests/alerts.yaml")).unwrap();
    fs::write(folder.path().join("tests.yaml"), &tests).unwrap();
    promtool(&folder, &["test", "rules", "tests.yaml"]);

    let tests: Value = serde_saphyr::from_str(&tests).unwrap();
    let cases = tests["tests"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|test| test["alert_rule_test"].as_array().unwrap());
    let raised: BTreeSet<_> = cases
        .filter(|case| !case["exp_alerts"].as_array().unwrap().is_empty())
        .map(|case| case["alertname"].as_str().unwrap())
        .collect();
    let named: BTreeSet<_> = rules.iter().map(|rule| rule["alert"].as_str().unwrap()).collect();
    assert_eq!(raised, named, "alerts with a test, and all alerts");
}

#[test]
fn every_alert_says_what_is_wrong_and_what_to_do() {
    let page = fs::read_to_string(repository().join("docs/alerts.md")).unwrap();
    let sections: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let alerts = alerts();
    assert_eq!(sections.len(), alerts.len(), "docs/alerts.md has a section of each alert");
    for alert in alerts {
        for annotation in ["summary", "description"] {
            let text = alert["annotations"][annotation].as_str().unwrap_or_default();
            assert!(text.len() > 20, "{alert}");
        }
        let (name, runbook) = (&alert["alert"], &alert["annotations"]["runbook_url"]);
        let (page, anchor) =
            runbook.as_str().unwrap_or_default().split_once('#').expect("a section");
        assert!(page.ends_with("/docs/alerts.md"), "{alert}");
        let section = sections.iter().find(|section| section.to_lowercase() == anchor);
        assert_eq!(
            section,
            Some(&name.as_str().unwrap()),
            "docs/alerts.md has a section of each alert"
        );
        assert!(
            ["warning", "critical"].contains(&alert["labels"]["severity"].as_str().unwrap()),
            "{alert}"
        );
    }
}
