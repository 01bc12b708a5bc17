//! The supported versions of NATS, Kubernetes and Helm are those that the tests use, and those that
//! the programs and the CRD need.

use asyncqueue_runtime::nats::server_version;
use serde_json::Value;
use test_support::{documents::read, nats::Release};

const PAGE: &str = "docs/supported-versions.md";

/// Functions in rules of a CRD, and since which minor version Kubernetes takes new rules with them.
/// `IntroducedVersion` in `k8s.io/apiserver/pkg/cel/environment/base.go` is one less, since an API
/// server takes only what the version before it understands.
const FUNCTIONS: [(&str, u32); 10] = [
    ("all", 25),
    ("contains", 25),
    ("duration", 25),
    ("exists", 25),
    ("has", 25),
    ("isCIDR", 31),
    ("isIP", 31),
    ("matches", 25),
    ("size", 25),
    ("startsWith", 25),
];

/// The version of a module that the tests build.
fn tested(group: &str, module: &str) -> String {
    let text = read(&format!("tests/cluster/modules/{group}/go.mod"));
    let line = text.lines().find_map(|line| line.trim().strip_prefix(module)).unwrap();
    line.trim().trim_start_matches('v').split(' ').next().unwrap().to_owned()
}

/// The columns of a program's row: what is supported, and what was tested.
fn row(program: &str) -> (String, String) {
    let text = read(PAGE);
    let row = text.lines().find_map(|line| line.strip_prefix(&format!("| {program} | ")));
    let (supported, tested) = row.unwrap().split_once(" | ").unwrap();
    (supported.to_owned(), tested.to_owned())
}

#[test]
fn the_supported_versions_of_nats_are_those_of_the_tests() {
    let of = |release: Release| tested(release.group(), "github.com/nats-io/nats-server/v2 ");
    let (supported, text) = row("nats-server");
    assert_eq!(supported, format!("{} and later", server_version::OLDEST));
    let [current, oldest, unsupported] =
        [Release::Current, Release::Oldest, Release::Unsupported].map(of);
    assert!(text.starts_with(&format!("{current}: ")), "{text}, and tests use {current}");
    assert!(text.contains(&format!(" {oldest}: ")), "{text}, and tests use {oldest}");
    assert!(oldest.starts_with(&format!("{}.", server_version::OLDEST)), "{oldest}");
    assert!(read(PAGE).contains(&unsupported), "{PAGE} does not name {unsupported}");
    for manifest in ["manifests/nats/nats.yaml", "examples/standalone/compose.yaml"] {
        assert!(read(manifest).contains(&format!("image: nats:{current}")), "{manifest}");
    }
}

#[test]
fn the_supported_versions_of_kubernetes_take_the_crd() {
    let crd: Value = serde_saphyr::from_str(&read("crds/asyncqueues.yaml")).unwrap();
    let mut rules = Vec::new();
    rules_of(&crd, &mut rules);
    assert!(rules.len() > 20, "{rules:?}");
    let functions = rules.iter().flat_map(|rule| functions(rule));
    let minor = functions.map(|function| {
        let known = FUNCTIONS.iter().find(|(name, _)| *name == function);
        known.unwrap_or_else(|| panic!("since when does Kubernetes have {function}?")).1
    });
    let oldest = minor.max().unwrap();
    let (supported, text) = row("Kubernetes");
    assert_eq!(supported, format!("1.{oldest} and later"), "{PAGE}");
    let kubernetes = tested("kubernetes", "k8s.io/kubernetes ");
    assert!(text.starts_with(&format!("{kubernetes}: ")), "{text}, and tests use {kubernetes}");
}

#[test]
fn the_supported_version_of_helm_is_that_of_the_tests() {
    let helm = tested("helm", "helm.sh/helm/v4 ");
    let (supported, text) = row("Helm");
    assert!(helm.starts_with(&format!("{supported}.")), "{supported}, and tests use {helm}");
    assert!(text.starts_with(&format!("{helm}: ")), "{text}, and tests use {helm}");
}

/// The rules in a definition.
fn rules_of(definition: &Value, rules: &mut Vec<String>) {
    match definition {
        Value::Object(fields) => {
            rules.extend(fields.get("rule").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|value| rules_of(value, rules));
        }
        Value::Array(items) => items.iter().for_each(|value| rules_of(value, rules)),
        _ => {}
    }
}

/// The functions that a rule calls. What is in quotes is no call.
fn functions(rule: &str) -> Vec<String> {
    let code: String = rule.split('\'').step_by(2).collect();
    let before_calls = code.split('(').collect::<Vec<_>>();
    let (_, before_calls) = before_calls.split_last().unwrap();
    let name = |text: &&str| {
        let start = text.rfind(|character: char| !character.is_alphanumeric());
        text[start.map_or(0, |start| start + 1)..].to_owned()
    };
    before_calls.iter().map(name).filter(|name| !name.is_empty()).collect()
}
