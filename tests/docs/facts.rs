//! The names in the documents are those of the programs, and none is missing.

use std::{fs, process::Command};

use serde_json::Value;
use test_support::{
    broken_queues,
    cluster::repository,
    documents::{paths, quoted, read, section},
    tools::{output, program},
};

use crate::documents::{Kind, pieces_of};

/// Documents at the top whose commands are not for users.
const FOR_CONTRIBUTORS: [&str; 4] =
    ["CHANGELOG.md", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "SECURITY.md"];

#[test]
fn the_rule_of_queue_names_is_the_definitions() {
    let definition: Value = serde_saphyr::from_str(&read("crds/asyncqueues.yaml")).unwrap();
    let rule = message_of(&definition, "a queue's name must have ").unwrap();
    let (rule, _reason) = rule.split_once(':').unwrap();
    for document in ["docs/wire.md", "docs/bad-inputs.md"] {
        let text = read(document).replace("A queue's", "a queue's").replace('\n', " ");
        assert!(text.contains(rule), "{document} has another rule of queue names than: {rule}");
    }
}

/// The message of the rule in a definition that begins so.
fn message_of<'a>(definition: &'a Value, begins: &str) -> Option<&'a str> {
    let message = definition["message"].as_str().filter(|message| message.starts_with(begins));
    let below = match definition {
        Value::Object(fields) => fields.values().collect(),
        Value::Array(items) => items.iter().collect(),
        _ => Vec::new(),
    };
    message.or_else(|| below.into_iter().find_map(|value| message_of(value, begins)))
}

/// Whether all that one value says, another says too.
fn says(all: &Value, part: &Value) -> bool {
    match (all, part) {
        (Value::Object(all), Value::Object(part)) => {
            part.iter().all(|(name, part)| all.get(name).is_some_and(|all| says(all, part)))
        }
        (Value::Array(all), Value::Array(part)) => {
            all.len() == part.len() && all.iter().zip(part).all(|(all, part)| says(all, part))
        }
        _ => all == part,
    }
}

#[test]
fn documented_parts_of_examples_are_in_the_examples() {
    let whole: Value = serde_saphyr::from_str(&read("examples/keda/scaledobject.yaml")).unwrap();
    let mut pieces = pieces_of("docs/autoscaling.md").into_iter();
    let shown = pieces.find_map(|piece| match piece.kind {
        Kind::Yaml(value)
            if value["scaleTargetRef"].is_object() && value["triggers"].is_array() =>
        {
            Some(value)
        }
        _ => None,
    });
    let shown = shown.unwrap();
    assert!(says(&whole["spec"], &shown), "{shown}");
}

#[test]
fn documented_nats_configuration_is_valid() {
    let mut pieces = pieces_of("docs/durability.md").into_iter();
    let shown = pieces.find(|piece| piece.text.starts_with("jetstream {")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("nats.conf");
    fs::write(&config, shown.text).unwrap();
    let _ = output(Command::new(program("nats", "nats-server")).arg("-t").arg("-c").arg(config));
}

#[test]
fn each_link_leads_somewhere() {
    for document in paths().into_iter().chain(FOR_CONTRIBUTORS.map(str::to_owned)) {
        let text = read(&document);
        // A pattern in code may look like a link.
        let text: String = text.split('`').step_by(2).collect();
        let folder = repository().join(&document).parent().unwrap().to_owned();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("http") {
                continue;
            }
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let path =
                if path.is_empty() { repository().join(&document) } else { folder.join(path) };
            assert!(path.exists(), "{document}: there is no {link}");
            if !heading.is_empty() {
                let target = fs::read_to_string(&path).unwrap();
                let has = target
                    .lines()
                    .filter(|line| line.starts_with('#'))
                    .any(|line| anchor(line) == heading);
                assert!(has, "{document}: {link} leads to no heading");
            }
        }
    }
}

#[test]
fn each_file_named_to_contributors_is_there() {
    let text = read("CONTRIBUTING.md");
    let names = quoted(&text).into_iter().filter(|name| !name.contains(' ') && name.contains('/'));
    // Neither a file of a user nor one that is built, and no address.
    let names: Vec<_> = names
        .filter(|name| !name.starts_with(['~', '/']) && !name.starts_with("target/"))
        .collect();
    assert!(names.len() > 30, "{names:?}");
    for name in names {
        assert!(repository().join(name).exists(), "CONTRIBUTING.md: there is no {name}");
    }
}

/// What a heading is called in a link, as common renderers have it.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn each_broken_queue_is_in_the_table() {
    let text = read("docs/troubleshooting.md");
    let below = section(&text, "### Broken queues").split("\n#").next().unwrap();
    let rows: Vec<_> = below.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    let expected: Vec<_> = broken_queues::QUEUES.iter().map(row).collect();
    assert!(rows == expected, "the table of docs/troubleshooting.md is:\n{}", expected.join("\n"));
}

fn row(queue: &broken_queues::Broken) -> String {
    let broken_queues::Broken { what, reason, words, seconds, .. } = queue;
    format!("| {what} | `{reason}` | {} | {seconds} |", words.join(" … "))
}
