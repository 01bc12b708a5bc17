//! The kustomize folders.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{
    chart_examples,
    support::{folders, helm_template, kustomize, list, name, of_kind, pods, the, variable},
};

/// What each folder renders, and the chart with each of its examples.
fn everything() -> Vec<(String, Vec<Value>)> {
    let mut rendered: Vec<_> =
        folders().into_iter().map(|name| (name.clone(), kustomize(&name))).collect();
    rendered.extend(chart_examples::all().iter().map(|example| {
        (format!("helm, {}", example.file_name()), helm_template(&[&example.argument()]))
    }));
    rendered
}

#[test]
fn no_rule_of_any_role_has_a_wildcard() {
    for (folder, objects) in everything() {
        for role in [of_kind(&objects, "Role"), of_kind(&objects, "ClusterRole")].concat() {
            for rule in list(&role["rules"]) {
                assert!(!rule.to_string().contains('*'), "{folder}: {}: {rule}", name(role));
            }
        }
    }
}

#[test]
fn a_variable_comes_before_those_that_use_it() {
    for (folder, objects) in everything() {
        for (workload, pod) in pods(&objects) {
            let mut defined = BTreeSet::new();
            for variable in list(&pod["spec"]["containers"][0]["env"]) {
                let value = variable["value"].as_str().unwrap_or_default();
                for used in value.split("$(").skip(1).filter_map(|rest| rest.split(')').next()) {
                    assert!(
                        defined.contains(used),
                        "{folder}: {workload}: {used} is not defined before {variable}"
                    );
                }
                defined.insert(variable["name"].as_str().unwrap());
            }
        }
    }
}

#[test]
fn every_pod_is_restricted_and_only_the_operator_has_a_token() {
    for (folder, objects) in everything() {
        for (workload, pod) in pods(&objects) {
            let (spec, container) =
                (&pod["spec"], &pod["spec"]["containers"][0]["securityContext"]);
            assert_eq!(spec["securityContext"]["runAsNonRoot"], true, "{folder}: {workload}");
            assert_eq!(
                spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault",
                "{folder}: {workload}"
            );
            assert_eq!(container["allowPrivilegeEscalation"], false, "{folder}: {workload}");
            assert_eq!(container["readOnlyRootFilesystem"], true, "{folder}: {workload}");
            assert_eq!(container["capabilities"]["drop"], json!(["ALL"]), "{folder}: {workload}");
            if !workload.ends_with("-operator") {
                assert_eq!(spec["automountServiceAccountToken"], false, "{folder}: {workload}");
            }
        }
    }
}

#[test]
fn the_gateway_next_to_openfaas_forwards_the_rest() {
    let objects = kustomize("openfaas");
    let gateway = "http://gateway.openfaas:8080";
    let deployment = |name| the(&objects, "Deployment", name);
    assert_eq!(variable(deployment("asyncqueue-gateway"), "upstream_url")["value"], gateway);
    assert_eq!(variable(deployment("asyncqueue-operator"), "gateway_url")["value"], gateway);
}

#[test]
fn the_gateway_without_openfaas_has_the_openfaas_service_name() {
    let objects = kustomize("standalone");
    let [ours, openfaas] =
        ["asyncqueue-gateway", "gateway"].map(|name| &the(&objects, "Service", name)["spec"]);
    assert_eq!(openfaas, ours);
    assert_eq!(the(&objects, "Service", "gateway")["metadata"]["namespace"], "openfaas");
    // Next to OpenFaaS, that name belongs to OpenFaaS.
    for folder in ["base", "openfaas", "external-nats", "ha"] {
        assert!(
            of_kind(&kustomize(folder), "Service").iter().all(|service| name(service) != "gateway"),
            "{folder}"
        );
    }
}

#[test]
fn another_nats_is_reached_with_what_one_secret_says() {
    let objects = kustomize("external-nats");
    for name in ["asyncqueue-operator", "asyncqueue-gateway"] {
        let deployment = the(&objects, "Deployment", name);
        let from = json!({ "secretKeyRef": { "name": "nats", "key": "url" } });
        assert_eq!(
            variable(deployment, "nats_url"),
            &json!({ "name": "nats_url", "valueFrom": from })
        );
        let pod = &deployment["spec"]["template"]["spec"];
        let mount = &pod["containers"][0]["volumeMounts"][0];
        let files = list(&pod["volumes"][0]["secret"]["items"]);
        for (setting, file) in [("nats_creds_file", "nats.creds"), ("nats_tls_ca_file", "ca.crt")] {
            let path = format!("{}/{file}", mount["mountPath"].as_str().unwrap());
            assert_eq!(variable(deployment, setting)["value"], path, "{name}");
            assert!(files.iter().any(|item| item["path"] == file), "{name}: {file} is not mounted");
        }
        assert_eq!(pod["volumes"][0]["secret"]["secretName"], "nats");
    }
}

#[test]
fn a_drain_names_openfaas_and_the_nats_of_the_migration_guide() {
    for (folder, command, source) in
        [("drain-stan", "stan", "stan_url"), ("drain-jetstream", "jetstream", "source_url")]
    {
        let objects = kustomize(folder);
        let job = the(&objects, "Job", &format!("asyncqueue-{folder}"));
        let container = &job["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["command"], json!(["kubectl-aq", "drain", command]));
        assert_eq!(variable(job, source)["value"], "nats://nats.openfaas:4222");
        assert_eq!(variable(job, "nats_url")["value"], "nats://nats-asyncqueue.openfaas:4222");
        assert_eq!(job["metadata"]["namespace"], "openfaas");
    }
}

#[test]
fn two_of_each_program_and_three_servers_may_lose_one() {
    let objects = kustomize("ha");
    for (kind, name, replicas) in [
        ("Deployment", "asyncqueue-operator", 2),
        ("Deployment", "asyncqueue-gateway", 2),
        ("StatefulSet", "nats-cluster", 3),
    ] {
        let workload = the(&objects, kind, name);
        assert_eq!(workload["spec"]["replicas"], replicas, "{name}");
        let labels = workload["spec"]["template"]["metadata"]["labels"].as_object().unwrap();
        let budget = the(&objects, "PodDisruptionBudget", name);
        assert_eq!(budget["spec"]["maxUnavailable"], 1, "{name}");
        assert!(
            crate::network::selects(&budget["spec"]["selector"], labels),
            "{name}: its budget is another's"
        );
        let spread = &workload["spec"]["template"]["spec"]["topologySpreadConstraints"][0];
        assert_eq!(spread["topologyKey"], "kubernetes.io/hostname", "{name}");
        assert!(
            crate::network::selects(&spread["labelSelector"], labels),
            "{name} does not spread"
        );
    }
    // And they use those servers.
    for name in ["asyncqueue-operator", "asyncqueue-gateway"] {
        let url = &variable(the(&objects, "Deployment", name), "nats_url")["value"];
        assert_eq!(url, "nats://nats-cluster.$(POD_NAMESPACE):4222", "{name}");
    }
}

#[test]
fn a_cluster_of_servers_shares_no_name_with_the_single_one() {
    // In its place, it would remove the streams of the single one.
    let (one, three) = (kustomize("nats"), kustomize("nats-cluster"));
    let named = |objects: &[Value]| -> BTreeSet<(String, String)> {
        objects.iter().map(|object| (object["kind"].to_string(), name(object).to_owned())).collect()
    };
    assert!(named(&one).is_disjoint(&named(&three)));
    let selected = &the(&one, "Service", "nats")["spec"]["selector"];
    let labels =
        &the(&three, "StatefulSet", "nats-cluster")["spec"]["template"]["metadata"]["labels"];
    let selector = json!({ "matchLabels": selected });
    assert!(!crate::network::selects(&selector, labels.as_object().unwrap()));
}

#[test]
fn namespaced_operator_has_its_permissions_only_there() {
    let objects = kustomize("namespaced");
    let watched = variable(the(&objects, "Deployment", "asyncqueue-operator"), "watch_namespaces")
        ["value"]
        .clone();
    let base = kustomize("base");
    let rules = &the(&base, "ClusterRole", "asyncqueue-operator")["rules"];
    let mut namespaces = Vec::new();
    for role in of_kind(&objects, "Role")
        .into_iter()
        .filter(|role| name(role) == "asyncqueue-operator-watch")
    {
        assert_eq!(&role["rules"], rules);
        namespaces.push(role["metadata"]["namespace"].as_str().unwrap());
    }
    namespaces.sort_unstable();
    assert_eq!(watched, namespaces.join(","));
    for binding in of_kind(&objects, "ClusterRoleBinding") {
        assert!(!binding["subjects"].to_string().contains("asyncqueue-operator"), "{binding}");
    }
    let bindings = of_kind(&objects, "RoleBinding");
    for namespace in namespaces {
        let bound = bindings.iter().any(|binding| {
            binding["metadata"]["namespace"] == namespace
                && binding["roleRef"]["name"] == "asyncqueue-operator-watch"
                && binding["subjects"][0]["name"] == "asyncqueue-operator"
        });
        assert!(bound, "nothing is granted in {namespace}");
    }
}

#[test]
fn only_the_crd_has_the_component_definition() {
    // `kubectl delete -k manifests/base -l app.kubernetes.io/component!=definition`
    for object in kustomize("base") {
        let is_definition =
            object["metadata"]["labels"]["app.kubernetes.io/component"] == "definition";
        assert_eq!(
            is_definition,
            object["kind"] == "CustomResourceDefinition",
            "{}",
            name(&object)
        );
    }
}
