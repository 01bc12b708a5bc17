//! `examples/standalone/compose.yaml` without an engine: all that it names is there, and its parts
//! agree with each other.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use test_support::{cluster::repository, documents::read};

const FOLDER: &str = "examples/standalone";

fn parsed(file: &str) -> Value {
    serde_saphyr::from_str(&read(&format!("{FOLDER}/{file}"))).unwrap()
}

/// The services, each with its merge keys resolved.
fn services(compose: &Value) -> BTreeMap<&str, &Value> {
    let services = compose["services"].as_object().unwrap();
    services.iter().map(|(name, service)| (name.as_str(), service)).collect()
}

#[test]
fn compose_builds_images_from_files_that_exist() {
    let compose = parsed("compose.yaml");
    let mut built = BTreeSet::new();
    for (name, service) in services(&compose) {
        let image = service["image"].as_str().unwrap();
        assert!(image.contains(':'), "{name}: {image} has no version");
        let (context, dockerfile) = match &service["build"] {
            Value::Null => continue,
            Value::String(context) => (context.as_str(), "Dockerfile"),
            parts => (parts["context"].as_str().unwrap(), parts["dockerfile"].as_str().unwrap()),
        };
        let file = repository().join(FOLDER).join(context).join(dockerfile);
        let text = std::fs::read_to_string(&file).unwrap();
        // The program of the service is the image's own, or one that it holds.
        let program = service["command"][0].as_str().unwrap_or("asyncqueue-example-function");
        let (name_of_image, _) = image.split_once(':').unwrap();
        let command = format!("build/programs {name_of_image} ");
        assert!(text.contains(&command), "{}: {command}", file.display());
        assert!(program.starts_with("asyncqueue-"), "{name}: {program}");
        built.insert(image);
    }
    // docs/quickstart.md loads them into clusters by these names.
    let quickstart = read("docs/quickstart.md");
    assert_eq!(built.len(), 2, "{built:?}");
    for image in built {
        assert!(quickstart.contains(&format!("minikube image load {image}\n")), "{image}");
    }
}

#[test]
fn compose_has_a_worker_and_functions_for_each_queue() {
    let (compose, directory) = (parsed("compose.yaml"), parsed("directory.yaml"));
    let services = services(&compose);
    let queues: BTreeSet<_> = directory["queues"].as_object().unwrap().keys().cloned().collect();
    let workers = services.values().filter(|service| service["command"][0] == "asyncqueue-worker");
    let served: BTreeSet<_> = workers
        .map(|worker| worker["environment"]["queue_name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(served, queues);
    for (function, entry) in directory["functions"].as_object().unwrap() {
        let url = entry["url"].as_str().unwrap();
        let host = url.trim_start_matches("http://").split(':').next().unwrap();
        assert!(services.contains_key(host), "{function}: no service {host} for {url}");
        assert!(queues.contains(entry["queue"].as_str().unwrap()), "{function}: {entry}");
    }
}

#[test]
fn compose_services_reach_each_other_by_name() {
    let compose = parsed("compose.yaml");
    let services = services(&compose);
    let mut found = 0;
    for (name, service) in &services {
        for on in service["depends_on"].as_array().into_iter().flatten() {
            assert!(services.contains_key(on.as_str().unwrap()), "{name} depends on {on}");
        }
        for setting in ["nats_url", "gateway_url"] {
            let Some(url) = service["environment"][setting].as_str() else { continue };
            let (_, authority) = url.split_once("://").unwrap();
            let (host, _port) = authority.split_once(':').unwrap();
            assert!(services.contains_key(host), "{name}: {setting} names no service: {url}");
            found += 1;
        }
    }
    assert_eq!(found, 5, "two settings of two workers, and one of the gateway");
}
