//! The CustomResourceDefinition, as it is installed.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Value, json};

use super::AsyncQueue;

/// A generation that no object has: generations begin at 1.
const NOT_OBSERVED: i64 = -1;

/// The CRD as YAML. `crds/asyncqueues.yaml` is a copy, made by `asyncqueue-operator crd`.
pub fn yaml() -> anyhow::Result<String> {
    let mut crd = serde_json::to_value(AsyncQueue::crd())?;
    join_description_lines(&mut crd);
    remove_nullable_false(&mut crd);
    set_default_status(&mut crd);
    // Through the type again, for its order of the fields.
    let crd: CustomResourceDefinition = serde_json::from_value(crd)?;
    Ok(serde_saphyr::to_string(&crd)?)
}

/// Sets the status of a new object to one without a generation. Otherwise `kstatus`, and with it
/// Flux and `kubectl` tools, would treat a queue that the operator has not processed as done.
fn set_default_status(crd: &mut Value) {
    for version in crd["spec"]["versions"].as_array_mut().into_iter().flatten() {
        version["schema"]["openAPIV3Schema"]["properties"]["status"]["default"] =
            json!({ "observedGeneration": NOT_OBSERVED });
    }
}

/// Removes the line breaks of the source from descriptions: `kubectl explain` wraps lines itself.
fn join_description_lines(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            for (name, field) in fields {
                match field {
                    Value::String(text) if name == "description" => *text = join_lines(text),
                    _ => join_description_lines(field),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(join_description_lines),
        _ => {}
    }
}

/// Removes fields that the API server drops. With them, a later apply under another field manager,
/// as by Helm, would report a conflict.
fn remove_nullable_false(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.retain(|name, field| name != "nullable" || *field != Value::Bool(false));
            fields.values_mut().for_each(remove_nullable_false);
        }
        Value::Array(items) => items.iter_mut().for_each(remove_nullable_false),
        _ => {}
    }
}

/// Single line breaks become spaces; paragraphs stay.
fn join_lines(text: &str) -> String {
    let paragraphs = text.split("\n\n").map(|paragraph| paragraph.replace('\n', " "));
    paragraphs.collect::<Vec<_>>().join("\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_in_crds_is_the_generated_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../crds/asyncqueues.yaml");
        let file = std::fs::read_to_string(path).unwrap_or_default();
        let how = "cargo run -p asyncqueue-operator -- crd > crds/asyncqueues.yaml";
        assert!(
            file == yaml().unwrap(),
            "crds/asyncqueues.yaml is out of date, regenerate it: {how}"
        );
    }

    #[test]
    fn descriptions_keep_their_paragraphs_and_lose_their_lines() {
        assert_eq!(join_lines("a\nb\n\nc"), "a b\n\nc");
    }

    #[test]
    fn a_new_queue_has_a_status_of_no_generation() {
        let crd: Value = serde_saphyr::from_str(&yaml().unwrap()).unwrap();
        let status =
            &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"];
        assert_eq!(status["default"], json!({ "observedGeneration": NOT_OBSERVED }));
        // The operator reads it as a status that says nothing.
        let read: crate::crd::AsyncQueueStatus =
            serde_json::from_value(status["default"].clone()).unwrap();
        assert_eq!(read.conditions, []);
    }

    #[test]
    fn the_crd_has_no_field_that_the_api_server_drops() {
        assert!(!yaml().unwrap().contains("nullable: false"));
    }

    #[test]
    fn every_field_of_the_spec_is_described_and_bounded() {
        let crd = serde_json::to_value(AsyncQueue::crd()).unwrap();
        let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        let mut seen = 0;
        check(spec, "spec", &mut seen);
        assert!(seen > 60, "{seen}");
    }

    fn check(schema: &Value, path: &str, seen: &mut usize) {
        *seen += 1;
        assert!(schema["description"].is_string(), "{path} has no description");
        assert_ne!(schema["nullable"], true, "{path} may be null");
        match schema["type"].as_str() {
            Some("string") => {
                assert!(
                    schema["maxLength"].is_u64() || schema["enum"].is_array(),
                    "{path} has no maximum length"
                );
            }
            Some("array") => {
                assert!(schema["maxItems"].is_u64(), "{path} may hold any number of items");
            }
            Some("integer") => {
                assert!(
                    schema["maximum"].is_number() && schema["minimum"].is_number(),
                    "{path} has no range"
                );
            }
            _ => {}
        }
        // A type of Kubernetes' own, explained there.
        if path == "spec.worker.affinity" {
            return;
        }
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            assert!(!name.contains('_'), "{path}.{name} is not written as Kubernetes writes names");
            check(field, &format!("{path}.{name}"), seen);
        }
    }
}
