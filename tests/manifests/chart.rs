//! The Helm chart installs what the kustomize folders do, object by object.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use test_support::{chart::Example, program};

use crate::support::{
    Labels, helm_template, kustomize, kustomize_with, manifests, name, pods, the,
};

/// Keeps an object when its release is removed.
const KEEP: &str = "helm.sh/resource-policy";

type Objects = BTreeMap<(String, String, String), Value>;

/// Objects by kind, namespace and name, in a form in which order does not count where it does not
/// for Kubernetes.
fn by_name(objects: Vec<Value>) -> Objects {
    let key = |object: &Value| {
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
        (object["kind"].as_str().unwrap().to_owned(), namespace, name(object).to_owned())
    };
    objects.into_iter().map(|object| (key(&object), sorted(object))).collect()
}

/// Sorts lists of named things, such as variables and ports, and makes 1 of 1.0, as kustomize does.
fn sorted(value: Value) -> Value {
    match value {
        Value::Array(items) => {
            let mut items: Vec<_> = items.into_iter().map(sorted).collect();
            if items.iter().all(|item| item["name"].is_string()) {
                items.sort_by_key(|item| item["name"].to_string());
            }
            Value::Array(items)
        }
        Value::Object(fields) => {
            fields.into_iter().map(|(name, value)| (name, sorted(value))).collect()
        }
        Value::Number(number) => number.as_f64().into(),
        value => value,
    }
}

/// The paths at which two values differ, and how.
fn differences(path: &str, left: &Value, right: &Value, found: &mut Vec<String>) {
    match (left, right) {
        (Value::Object(left), Value::Object(right)) => {
            for key in left.keys().chain(right.keys().filter(|key| !left.contains_key(*key))) {
                let field = |fields: &Labels| fields.get(key).cloned().unwrap_or_default();
                differences(&format!("{path}.{key}"), &field(left), &field(right), found);
            }
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            for (index, (left, right)) in left.iter().zip(right).enumerate() {
                differences(&format!("{path}[{index}]"), left, right, found);
            }
        }
        _ if left != right => {
            found.push(format!("{path}: the chart has {left}, the folder {right}"));
        }
        _ => {}
    }
}

/// Labels that Helm's charts have, and the folders have not. Those of an object that a folder has
/// too are compared.
const CHART_LABELS: [&str; 6] = [
    "app.kubernetes.io/component",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/name",
    "app.kubernetes.io/version",
    "helm.sh/chart",
];

/// The chart's objects with these arguments are the folder's, except that:
///
/// - objects have the labels of a chart,
/// - cluster-scoped objects of the operator have the namespace in their name, and
/// - the CRD says to Helm that it stays.
///
/// What only Helm uses, the hook of `helm test`, is left out.
fn assert_same(arguments: &[&str], folder: Vec<Value>) {
    let tag = format!("--set-string=image.tag={}", image_tag(&folder));
    let mut chart = helm_template(&[arguments, &[&tag]].concat());
    chart.retain(|object| object["metadata"]["annotations"]["helm.sh/hook"].is_null());
    for object in &mut chart {
        if object["kind"].as_str().unwrap().starts_with("ClusterRole") {
            for name in ["/metadata/name", "/roleRef/name"] {
                object.pointer_mut(name).into_iter().for_each(strip_namespace);
            }
        }
        if object["kind"] == "CustomResourceDefinition" {
            let annotations =
                object["metadata"].as_object_mut().unwrap().remove("annotations").unwrap();
            assert_eq!(annotations[KEEP], "keep");
        }
    }
    let (mut chart, folder) = (by_name(chart), by_name(folder));
    let names = |objects: &Objects| objects.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&chart), names(&folder), "{arguments:?}");
    let mut found = Vec::new();
    for (key, object) in &mut chart {
        remove_chart_labels(object, &folder[key]);
        differences(&format!("{} {}", key.0, key.2), object, &folder[key], &mut found);
    }
    assert!(found.is_empty(), "{arguments:?}:\n{}", found.join("\n"));
}

/// Makes `asyncqueue-operator` of `openfaas-asyncqueue-operator`.
fn strip_namespace(name: &mut Value) {
    if let Some(rest) = name.as_str().and_then(|name| name.strip_prefix("openfaas-")) {
        *name = rest.into();
    }
}

/// Removes the labels of a chart that the folder's object does not have, and the release's name
/// from its pods.
fn remove_chart_labels(object: &mut Value, in_folder: &Value) {
    if object["kind"] == "Deployment" {
        let labels = object["spec"]["template"]["metadata"]["labels"].as_object_mut().unwrap();
        assert_eq!(labels.remove("app.kubernetes.io/instance"), Some("asyncqueue".into()));
    }
    for label in CHART_LABELS {
        let labels = object["metadata"]["labels"].as_object_mut().unwrap();
        assert!(labels.contains_key(label), "{label} is missing: {labels:?}");
        if in_folder["metadata"]["labels"][label].is_null() {
            labels.remove(label);
        }
    }
}

/// The tag of the image in the folders.
fn image_tag(folder: &[Value]) -> String {
    let (_, pod) =
        pods(folder).into_iter().find(|(name, _)| name.starts_with("asyncqueue")).unwrap();
    let image = pod["spec"]["containers"][0]["image"].as_str().unwrap();
    image.strip_prefix("asyncqueue:").unwrap().to_owned()
}

#[test]
fn default_chart_equals_base() {
    assert_same(&[], kustomize("base"));
}

#[test]
fn chart_with_network_policies_equals_base_with_component() {
    assert_same(
        &["--set=networkPolicies.enabled=true"],
        kustomize_with("base", "network-policies"),
    );
}

#[test]
fn chart_with_console_equals_base_with_component() {
    let (policy, folder): (Vec<_>, Vec<_>) = kustomize_with("base", "console")
        .into_iter()
        .partition(|object| object["kind"] == "NetworkPolicy");
    assert_same(&["--set=console.enabled=true"], folder);
    let chart =
        helm_template(&["--set=console.enabled=true", "--set=networkPolicies.enabled=true"]);
    let of_chart = the(&chart, "NetworkPolicy", "asyncqueue-console");
    assert_eq!(of_chart["spec"], policy[0]["spec"]);
}

#[test]
fn chart_with_nats_secret_equals_external_nats() {
    assert_same(&["--set=nats.existingSecret.name=nats"], kustomize("external-nats"));
}

#[test]
fn chart_with_namespaces_to_watch_equals_namespaced() {
    assert_same(&["--set=watchNamespaces={openfaas,openfaas-fn}"], kustomize("namespaced"));
}

#[test]
fn chart_with_openfaas_settings_equals_openfaas() {
    let gateway = "http://gateway.openfaas:8080";
    let upstream = format!("--set=gateway.settings.upstream_url={gateway}");
    assert_same(
        &[&upstream, &format!("--set=operator.settings.gateway_url={gateway}")],
        kustomize("openfaas"),
    );
}

#[test]
fn chart_with_ha_values_equals_ha() {
    let values = Example::named("high-availability").argument();
    let separate = [by_name(kustomize("namespaces")), by_name(kustomize("nats-cluster"))];
    let mut ha = kustomize("ha");
    ha.retain(|object| {
        let of_object = by_name(vec![object.clone()]);
        !separate.iter().any(|objects| objects.keys().any(|key| of_object.contains_key(key)))
    });
    for object in &mut ha {
        // The folder leaves the namespace to a variable, so that another can be set; Helm is given
        // which it is.
        let text = object.to_string().replace("$(POD_NAMESPACE)", "openfaas");
        *object = serde_json::from_str(&text).unwrap();
    }
    assert_same(&[&values], ha);
}

#[test]
fn chart_with_monitoring_equals_base_with_monitoring() {
    let monitoring = ["podMonitor", "prometheusRule", "dashboard"]
        .map(|object| format!("--set=monitoring.{object}.enabled=true"));
    let arguments: Vec<&str> = monitoring.iter().map(String::as_str).collect();
    assert_same(&arguments, [kustomize("base"), kustomize("monitoring")].concat());
}

#[tokio::test]
async fn the_schema_has_the_settings_of_the_programs() {
    let schema = std::fs::read_to_string(manifests().join("helm/values.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    for (program, definition) in [
        ("asyncqueue-operator", "operatorSettings"),
        ("asyncqueue-gateway", "gatewaySettings"),
        ("asyncqueue-console", "consoleSettings"),
    ] {
        let manual = program::run(program, &["--help"], &[]).await.text();
        let names = manual.split("[env: ").skip(1).filter_map(|rest| rest.split(['=', ']']).next());
        // The manual itself says how settings are listed.
        let names: BTreeSet<&str> = names.filter(|name| *name != "…").collect();
        let listed = schema["definitions"][definition]["properties"].as_object().unwrap();
        assert_eq!(names, listed.keys().map(String::as_str).collect(), "{definition}");
    }
}
