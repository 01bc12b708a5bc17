//! Alerts and dashboard, checked and run by promtool. That programs export what they read is tested
//! on the cluster (tests/e2e/monitoring.rs).

use std::{collections::BTreeSet, fs, process::Command};

use serde_json::{Value, json};
use tempfile::TempDir;
use test_support::{
    cluster::repository,
    documents::{paths, read, section},
    monitoring::{Panel, alerts, dashboard, dashboard_expressions},
    promql::{Limit, limits, used},
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
    let mut promtool = Command::new(tools::program("prometheus", "promtool"));
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

/// Functions of which an alert asks only whether there is any: no value of a panel is their limit.
const OF_CHANGES: [&str; 3] = ["deriv", "last_over_time", "rate"];

/// The limits of the alerts.
fn alert_limits() -> Vec<Limit> {
    let alerts = alerts();
    let limits = alerts.iter().flat_map(|alert| limits(alert["expr"].as_str().unwrap()));
    let is_change = |limit: &Limit| {
        limit.above == 0.0 && OF_CHANGES.iter().any(|&name| limit.functions.contains(name))
    };
    limits.filter(|limit| !is_change(limit)).collect()
}

/// Whether a panel has the limit as its threshold. Grafana's threshold is the least value of a
/// colour, and the limit of an alert the greatest without it: of counts above 0, that is 1.
fn shows(panel: &Panel, limit: &Limit) -> bool {
    let metrics = |target: &test_support::monitoring::Target| {
        used(&target.expression("5m")).into_iter().map(|used| used.metric).collect()
    };
    let threshold = if limit.above == 0.0 { 1.0 } else { limit.above };
    panel.targets.iter().all(|target| limit.metrics == metrics(target))
        && panel.thresholds().eq([threshold])
}

#[test]
fn each_threshold_is_the_limit_of_an_alert() {
    let (limits, panels) = (alert_limits(), dashboard().panels);
    assert!(limits.len() > 8, "{limits:?}");
    for panel in panels.iter().filter(|panel| panel.thresholds().next().is_some()) {
        let thresholds: Vec<_> = panel.thresholds().collect();
        let is_limit = limits.iter().any(|limit| shows(panel, limit));
        assert!(is_limit, "{}: no alert has the limit {thresholds:?}", panel.title);
        let alerts = alerts();
        let mut names = alerts.iter().map(|alert| alert["alert"].as_str().unwrap());
        let names_one = names.any(|name| panel.description.contains(&format!("alert {name}.")));
        assert!(names_one, "{}: its description names no alert", panel.title);
    }
    for limit in limits {
        let of_panels = panels.iter().any(|panel| shows(panel, &limit));
        assert!(of_panels, "no panel has the limit of an alert as its threshold: {limit:?}");
    }
}

#[test]
fn every_panel_has_a_unit_a_description_and_a_place() {
    let panels = dashboard().panels;
    let mut taken = BTreeSet::new();
    for panel in &panels {
        let place = panel.grid_pos;
        for (x, y) in
            (0..place.w).flat_map(|x| (0..place.h).map(move |y| (place.x + x, place.y + y)))
        {
            assert!(x < 24 && taken.insert((x, y)), "{} covers another panel", panel.title);
        }
        if panel.r#type == "row" {
            continue;
        }
        assert!(["stat", "timeseries"].contains(&panel.r#type.as_str()), "{}", panel.r#type);
        assert!(!panel.targets.is_empty(), "{} has no query", panel.title);
        assert!(!panel.field_config.defaults.unit.is_empty(), "{} has no unit", panel.title);
        let described = panel.description.len() > 20 && panel.description.ends_with('.');
        assert!(described, "{}: `{}`", panel.title, panel.description);
    }
    // What is seen first.
    let first: Vec<_> = panels.iter().take_while(|panel| panel.r#type == "stat").collect();
    assert_eq!(first.len(), 8);
    assert!(first.iter().all(|panel| panel.grid_pos.y == 0), "the stats are one row");
}

#[test]
fn the_dashboard_is_of_the_namespaces_and_queues_that_are_chosen() {
    for panel in dashboard().panels {
        for target in panel.targets.iter().filter(|target| target.expr.contains("queue_worker_")) {
            let workers = target.expr.matches("queue_worker_").count();
            let chosen = target.expr.matches("namespace=~\"$namespace\"").count();
            assert_eq!(workers, chosen, "{}: {}", panel.title, target.expr);
        }
    }
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
    let text = read("docs/alerts.md");
    let sections: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("## ")).collect();
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
        let found = sections.iter().find(|section| section.to_lowercase() == anchor);
        assert_eq!(
            found,
            Some(&name.as_str().unwrap()),
            "docs/alerts.md has a section of each alert"
        );
        let severity = alert["labels"]["severity"].as_str().unwrap();
        assert!(["warning", "critical"].contains(&severity), "{alert}");
        let name = name.as_str().unwrap();
        let text = section(&text, &format!("## {name}"));
        let begins = text.trim_start().to_lowercase();
        assert!(begins.starts_with(&format!("{severity}: ")), "{name} says how bad it is");
        let steps: Vec<_> =
            text.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit())).collect();
        assert!((1..=3).contains(&steps.len()), "{name} has up to three commands: {steps:?}");
        assert!(steps.iter().all(|step| step.contains(". `kubectl ")), "{name}: {steps:?}");
        assert!(text.contains("| you see | cause | remedy |"), "{name} has a table of causes");
        assert!(text.contains("\nIt is over "), "{name} says when it is over");
    }
}
