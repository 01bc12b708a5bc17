//! `examples/ingress`: which gateway each request goes to.

use serde_json::Value;
use test_support::documents::read;

use crate::support::{kustomize, list, the};

/// The Ingress of the example.
fn ingress() -> Value {
    serde_saphyr::from_str(&read("examples/ingress/ingress.yaml")).unwrap()
}

/// The Service that a path goes to, as the API describes it: the longest path that matches, and
/// `Prefix` matches whole elements.
fn service_for<'a>(ingress: &'a Value, path: &str) -> &'a str {
    let matches = |rule: &&Value| {
        let wanted = rule["path"].as_str().unwrap();
        match rule["pathType"].as_str().unwrap() {
            "Exact" => path == wanted,
            "Prefix" => path
                .strip_prefix(wanted.trim_end_matches('/'))
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            other => panic!("{other} depends on the controller"),
        }
    };
    let paths = list(&ingress["spec"]["rules"][0]["http"]["paths"]);
    let longest =
        paths.iter().filter(matches).max_by_key(|rule| rule["path"].as_str().unwrap().len());
    longest.unwrap()["backend"]["service"]["name"].as_str().unwrap()
}

#[test]
fn ingress_sends_each_request_to_the_gateway_that_answers_it() {
    let ingress = ingress();
    let openapi: Value = serde_saphyr::from_str(&read("gateway/openapi.yaml")).unwrap();
    let described: Vec<_> = openapi["paths"].as_object().unwrap().keys().collect();
    assert!(described.len() > 5, "{described:?}");
    for path in described {
        // OpenFaaS answers synchronous calls, and has probes of its own.
        let of_openfaas = path.starts_with("/function/") || path.ends_with('z');
        let expected = if of_openfaas { "gateway" } else { "asyncqueue-gateway" };
        assert_eq!(service_for(&ingress, path), expected, "{path}");
    }
    for (path, expected) in [
        ("/async-function/figlet/daily", "asyncqueue-gateway"),
        ("/async-functions", "gateway"),
        ("/system/functions", "gateway"),
        ("/system/openapi.json", "gateway"),
        ("/ui/", "gateway"),
        ("/", "gateway"),
    ] {
        assert_eq!(service_for(&ingress, path), expected, "{path}");
    }
}

#[test]
fn ingress_names_services_and_ports_that_exist() {
    let (ingress, objects) = (ingress(), kustomize("openfaas"));
    let ours = the(&objects, "Service", "asyncqueue-gateway");
    assert_eq!(ingress["metadata"]["namespace"], ours["metadata"]["namespace"]);
    for path in list(&ingress["spec"]["rules"][0]["http"]["paths"]) {
        let service = &path["backend"]["service"];
        if service["name"] == "gateway" {
            // http://gateway.openfaas:8080 is OpenFaaS's gateway to manifests/openfaas, too.
            assert_eq!(service["port"]["number"], 8080);
        } else {
            let ports = list(&ours["spec"]["ports"]);
            assert!(ports.iter().any(|port| port["name"] == service["port"]["name"]), "{path}");
        }
    }
}
