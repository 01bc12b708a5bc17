//! Alerts and dashboard, checked and run by promtool. That programs export what they read is tested
//! on the cluster (tests/e2e/monitoring.rs).

use std::{collections::BTreeSet, fs, process::Command};

use serde_json::{Value, json};
use tempfile::TempDir;
use test_support::{
    cluster::repository,
    documents::{paths, read},
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

/// Returns the lines of a text whose queries take the total of a metric and the series of functions
/// together: those that do not begin by selecting one of them. A name in prose is no query.
fn mixed<'a>(text: &'a str, metric: &str) -> Vec<&'a str> {
    let selects_one = |rest: &str| {
        let rest = rest.replace('\\', "");
        let selectors = [r#"{function_name="""#, r#"{function_name!="""#];
        rest.starts_with('`') || selectors.iter().any(|selector| rest.starts_with(selector))
    };
    let lines = text.lines().filter(|line| {
        let mut rests = line.split(metric).skip(1);
        rests.any(|rest| !selects_one(rest))
    });
    lines.map(str::trim).collect()
}

#[test]
fn no_query_mixes_the_total_of_a_queue_with_its_functions() {
    // It has a series of the whole queue, whose function_name is empty.
    let metric = "queue_worker_pending_messages";
    for wrong in ["sum(M)", "max by (queue_name) (M[5m])", r#"M{queue_name="q",function_name=""}"#]
    {
        assert_eq!(mixed(&wrong.replace('M', metric), metric).len(), 1, "{wrong}");
    }
    for right in [r#"M{function_name=""} > 5"#, r#"M{function_name!="",x="y"}"#, "the metric `M`"] {
        assert!(mixed(&right.replace('M', metric), metric).is_empty(), "{right}");
    }

    let monitoring = ["alerts.yaml", "dashboard.json"];
    let monitoring = monitoring.map(|name| format!("manifests/monitoring/{name}"));
    let mut found = 0;
    for file in monitoring.into_iter().chain(paths()) {
        let text = read(&file);
        found += text.matches(metric).count();
        let mixed = mixed(&text, metric);
        assert!(
            mixed.is_empty(),
            "{file}: begin the selector with function_name=\"\", the total, or \
             function_name!=\"\", the functions:\n{}",
            mixed.join("\n")
        );
    }
    assert!(found > 8, "{found}");
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
