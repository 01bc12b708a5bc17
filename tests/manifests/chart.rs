//! The Helm chart installs what the kustomize folders do, object by object.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use test_support::{program, tools::output};

use crate::support::{
    Labels, helm_command, helm_template, kustomize, kustomize_with, manifests, name, refusal,
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

/// The chart's objects with these arguments are the folder's, but that the definition says to Helm
/// that it stays.
fn assert_same(arguments: &[&str], folder: Vec<Value>) {
    let mut chart = by_name(helm_template(arguments));
    let folder = by_name(folder);
    for ((kind, _, _), object) in &mut chart {
        if kind == "CustomResourceDefinition" {
            let annotations =
                object["metadata"].as_object_mut().unwrap().remove("annotations").unwrap();
            assert_eq!(annotations[KEEP], "keep");
        }
    }
    let names = |objects: &Objects| objects.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&chart), names(&folder), "{arguments:?}");
    let mut found = Vec::new();
    for (key, object) in &chart {
        differences(&format!("{} {}", key.0, key.2), object, &folder[key], &mut found);
    }
    assert!(found.is_empty(), "{arguments:?}:\n{}", found.join("\n"));
}

#[test]
fn default_chart_equals_base() {
    assert_same(&[], kustomize("base"));
}

#[test]
fn chart_with_network_policies_equals_base_with_component() {
    assert_same(&["--set=networkPolicies=true"], kustomize_with("base", "network-policies"));
}

#[test]
fn chart_with_nats_secret_equals_external_nats() {
    assert_same(&["--set=nats.secret=nats"], kustomize("external-nats"));
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
    let values = format!("--values={}/helm/ha-values.yaml", manifests().display());
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
fn values_change_what_they_are_to_change() {
    let objects = helm_template(&[
        "--set=image.repository=registry.example.com/asyncqueue,image.tag=1.2.3",
        "--set=image.pullPolicy=Always",
        "--set=nats.url=nats://nats.messaging:4222",
        "--set=gateway.settings.max_payload=2Mi,gateway.settings.ensure_stream=true",
        "--set=gateway.deployment.replicas=3,gateway.pod.priorityClassName=high",
        "--set=gateway.container.resources.limits.memory=1Gi,crd.install=false",
    ]);
    assert!(!objects.iter().any(|object| object["kind"] == "CustomResourceDefinition"));
    let deployment = crate::support::the(&objects, "Deployment", "asyncqueue-gateway");
    let pod = &deployment["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    assert_eq!(container["image"], "registry.example.com/asyncqueue:1.2.3");
    assert_eq!(container["imagePullPolicy"], "Always");
    assert_eq!(deployment["spec"]["replicas"], 3);
    assert_eq!(pod["priorityClassName"], "high");
    // The other fields stay.
    assert_eq!(container["resources"]["limits"]["memory"], "1Gi");
    assert_eq!(container["resources"]["requests"]["memory"], "32Mi");
    for (setting, value) in [
        ("nats_url", "nats://nats.messaging:4222"),
        ("max_payload", "2Mi"),
        ("ensure_stream", "true"),
    ] {
        assert_eq!(crate::support::variable(deployment, setting)["value"], value, "{setting}");
    }
}

#[test]
fn pull_secrets_are_for_the_programs_and_the_workers() {
    let objects =
        helm_template(&["--set=imagePullSecrets[0].name=registry,imagePullSecrets[1].name=mirror"]);
    for name in ["asyncqueue-operator", "asyncqueue-gateway"] {
        let deployment = crate::support::the(&objects, "Deployment", name);
        let secrets = &deployment["spec"]["template"]["spec"]["imagePullSecrets"];
        assert_eq!(
            *secrets,
            serde_json::json!([{"name": "registry"}, {"name": "mirror"}]),
            "{name}"
        );
    }
    let operator = crate::support::the(&objects, "Deployment", "asyncqueue-operator");
    let variable = crate::support::variable(operator, "worker_image_pull_secrets");
    assert_eq!(variable["value"], "registry,mirror");
}

#[test]
fn the_default_queue_has_what_the_values_say() {
    let objects = helm_template(&[
        "--set=defaultQueue.maxInflight=5,defaultQueue.timeout=15m,defaultQueue.ackWait=1m",
    ]);
    let [operator, gateway] = ["asyncqueue-operator", "asyncqueue-gateway"]
        .map(|name| crate::support::the(&objects, "Deployment", name));
    for (setting, value) in [
        ("default_queue_max_inflight", "5"),
        ("default_queue_timeout", "15m"),
        ("default_queue_ack_wait", "1m"),
    ] {
        assert_eq!(crate::support::variable(operator, setting)["value"], value, "{setting}");
        assert!(crate::support::variable(gateway, setting).is_null(), "{setting}");
    }
    let refused = refusal("helm", &["--set=defaultQueue.timeout=soon"]);
    assert!(refused.contains("timeout"), "{refused}");
}

#[test]
fn a_misspelt_value_is_refused_by_name() {
    for (value, named) in [
        ("gateway.setings.max_payload=2Mi", "setings"),
        ("operator.settings.gateway_ulr=http://gateway:8080", "gateway_ulr"),
        // One of the operator's.
        ("gateway.settings.gateway_url=http://gateway:8080", "gateway_url"),
    ] {
        let complaint = refusal("helm", &[&format!("--set={value}")]);
        assert!(complaint.contains(named), "{value}: {complaint}");
    }
}

#[tokio::test]
async fn the_schema_has_the_settings_of_the_programs() {
    let schema = std::fs::read_to_string(manifests().join("helm/values.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    for (program, definition) in
        [("asyncqueue-operator", "operatorSettings"), ("asyncqueue-gateway", "gatewaySettings")]
    {
        let manual = program::run(program, &["--help"], &[]).await.text();
        let names = manual.split("[env: ").skip(1).filter_map(|rest| rest.split(['=', ']']).next());
        // The manual itself says how settings are listed.
        let names: BTreeSet<&str> = names.filter(|name| *name != "…").collect();
        let listed = schema["definitions"][definition]["properties"].as_object().unwrap();
        assert_eq!(names, listed.keys().map(String::as_str).collect(), "{definition}");
    }
}

#[test]
fn helm_finds_no_fault_with_it() {
    let _ = output(&mut helm_command("helm", &["lint", "--strict", "--kube-version=1.35.0"]));
}
