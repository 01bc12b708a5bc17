//! The schema of `defaultQueue.spec` in `values.schema.json` follows from the CRD, so that Helm
//! refuses what the API server would refuse later.

use std::{env, fs};

use serde_json::{Map, Value, json};
use test_support::cluster::repository;

use crate::support::manifests;

/// The definition in `values.schema.json`.
const NAME: &str = "queueSpec";

/// What JSON schemas and the schemas of CRDs have in common.
const KEYWORDS: [&str; 11] = [
    "enum",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minimum",
    "pattern",
    "required",
    "type",
];

/// Fields below this depth are checked by the API server only: they are of pods.
const DEPTH: usize = 2;

/// The schema of a field for Helm.
fn converted(field: &Value, depth: usize) -> Value {
    let mut schema: Map<String, Value> = KEYWORDS
        .iter()
        .filter_map(|keyword| Some(((*keyword).to_owned(), field.get(keyword)?.clone())))
        .collect();
    if field["x-kubernetes-int-or-string"] == true {
        schema.insert("type".to_owned(), json!(["integer", "string"]));
    }
    for bound in ["minimum", "maximum"] {
        // The CRD has them as floating point.
        if let Some(number) = schema.get(bound).and_then(Value::as_f64) {
            schema.insert(bound.to_owned(), json!(format!("{number:.0}").parse::<i64>().unwrap()));
        }
    }
    for part in ["items", "additionalProperties"] {
        if field[part].is_object() && depth < DEPTH {
            schema.insert(part.to_owned(), converted(&field[part], DEPTH));
        }
    }
    if let Some(properties) = field["properties"].as_object().filter(|_| depth < DEPTH) {
        let properties: Map<_, _> = properties
            .iter()
            .map(|(name, field)| (name.clone(), converted(field, depth + 1)))
            .collect();
        schema.insert("properties".to_owned(), properties.into());
        schema.insert("additionalProperties".to_owned(), false.into());
    }
    schema.into()
}

fn from_crd() -> Value {
    let crd = fs::read_to_string(repository().join("crds/asyncqueues.yaml")).unwrap();
    let crd: Value = serde_saphyr::from_str(&crd).unwrap();
    let versions = &crd["spec"]["versions"];
    converted(&versions[0]["schema"]["openAPIV3Schema"]["properties"]["spec"], 0)
}

/// The file with the definition replaced, which is the last one in it.
fn with_definition(text: &str, schema: &Value) -> String {
    let (before, _) = text.split_once(&format!("\n    \"{NAME}\": ")).unwrap();
    let schema = serde_json::to_string_pretty(schema).unwrap().replace('\n', "\n    ");
    format!("{before}\n    \"{NAME}\": {schema}\n  }}\n}}\n")
}

#[test]
fn the_default_queue_has_the_fields_of_the_crd() {
    let path = manifests().join("helm/values.schema.json");
    if env::var_os("WRITE_DOCUMENT").is_some() {
        let written = fs::read_to_string(&path).unwrap();
        fs::write(&path, with_definition(&written, &from_crd())).unwrap();
    }
    let schema: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    assert!(
        schema["definitions"][NAME] == from_crd(),
        "definitions.{NAME} of values.schema.json differs from crds/asyncqueues.yaml: \
         WRITE_DOCUMENT=1 cargo test --package=asyncqueue-tests --test=manifests chart_"
    );
}

#[test]
fn bounds_and_types_are_as_in_the_crd() {
    let schema = from_crd();
    assert_eq!(schema["additionalProperties"], false);
    assert_eq!(schema["properties"]["maxInflight"]["maximum"], 10_000);
    assert_eq!(schema["properties"]["consumer"]["additionalProperties"], false);
    let bytes = &schema["properties"]["limits"]["properties"]["maxBytes"];
    assert_eq!(bytes["type"], json!(["integer", "string"]));
}
