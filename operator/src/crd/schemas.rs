//! Schemas of fields whose Rust types are less strict than what the API server must accept.

use k8s_openapi::api::core::v1::{
    Affinity, EnvVar, LocalObjectReference, Toleration, TopologySpreadConstraint,
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::Value;

use super::rules;

/// Maximum number of bytes: a petabyte, which a JSON number represents exactly.
const MAX_BYTES: u64 = 1_000_000_000_000_000;

/// Maximum length of the name of an object, and of a key of a Secret.
pub(super) const MAX_NAME_LENGTH: u32 = 253;

/// As long as the longest sensible spelling, `23h59m59.999999999s`.
pub(super) fn duration(_: &mut SchemaGenerator) -> Schema {
    string(rules::DURATION, 32)
}

pub(super) fn jetstream_name(_: &mut SchemaGenerator) -> Schema {
    string(rules::JETSTREAM_NAME, 64)
}

pub(super) fn subject(_: &mut SchemaGenerator) -> Schema {
    string(rules::SUBJECT, 128)
}

/// A registry's limits: 255 for the name, 128 for the tag, and a digest.
pub(super) fn image(_: &mut SchemaGenerator) -> Schema {
    string(r"^\S+$", 512)
}

/// Room for a cluster of five servers with credentials.
pub(super) fn nats_url(_: &mut SchemaGenerator) -> Schema {
    string(rules::NATS_URL, 1024)
}

/// Quantities by resource, written as Kubernetes takes them everywhere: `100m`, `64Mi`, `2`.
pub(super) fn quantities(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": {
            "pattern": r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$",
            "x-kubernetes-int-or-string": true,
        },
    })
}

/// A size in bytes, as Kubernetes writes quantities. Nine digits, so that whatever it says fits in
/// 63 bits.
pub(super) fn size(_: &mut SchemaGenerator) -> Schema {
    bytes("^[1-9][0-9]{0,8}(Ki|Mi|Gi|k|M|G)?$")
}

/// The size of a body: NATS takes none of a gigabyte.
pub(super) fn payload_size(_: &mut SchemaGenerator) -> Schema {
    bytes("^[1-9][0-9]{0,8}(Ki|Mi|k|M)?$")
}

pub(super) fn status_codes(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": { "type": "integer", "format": "int32", "minimum": 100, "maximum": 599 },
        "maxItems": 500,
        "x-kubernetes-list-type": "set",
    })
}

/// As long as a name in DNS.
pub(super) fn hosts(_: &mut SchemaGenerator) -> Schema {
    list(64, &json_schema!({ "type": "string", "minLength": 1, "maxLength": 253 }))
}

/// Namespaces, or `*` for all.
pub(super) fn namespaces(_: &mut SchemaGenerator) -> Schema {
    list(64, &string(r"^(\*|[a-z0-9]([a-z0-9-]*[a-z0-9])?)$", 63))
}

/// The name of an object, which is a name in DNS.
pub(super) fn object_name(_: &mut SchemaGenerator) -> Schema {
    string(r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", MAX_NAME_LENGTH)
}

/// A key in the data of a Secret.
pub(super) fn secret_key(_: &mut SchemaGenerator) -> Schema {
    string("^[A-Za-z0-9._-]+$", MAX_NAME_LENGTH)
}

pub(super) fn http_url(_: &mut SchemaGenerator) -> Schema {
    string(r"^http://[^\s/@?#]+(/[^\s?#]*)?$", 1024)
}

/// A type of this CRD that may be absent, but not null.
pub(super) fn object<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    T::json_schema(generator)
}

/// Labels: 63 characters, as the API server takes them.
pub(super) fn labels(_: &mut SchemaGenerator) -> Schema {
    let value = r"^([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?$";
    map(&json_schema!({ "type": "string", "pattern": value, "maxLength": 63 }))
}

pub(super) fn annotations(_: &mut SchemaGenerator) -> Schema {
    map(&json_schema!({ "type": "string", "maxLength": 4096 }))
}

pub(super) fn environment(generator: &mut SchemaGenerator) -> Schema {
    let mut variable = without_descriptions::<EnvVar>(generator);
    if let Some(name) = variable.pointer_mut("/properties/name").and_then(Value::as_object_mut) {
        name.insert("pattern".to_owned(), "^[A-Za-z_][A-Za-z0-9_.-]*$".into());
        name.insert("maxLength".to_owned(), 128.into());
    }
    list(64, &variable)
}

pub(super) fn image_pull_secrets(generator: &mut SchemaGenerator) -> Schema {
    list(16, &without_descriptions::<LocalObjectReference>(generator))
}

pub(super) fn tolerations(generator: &mut SchemaGenerator) -> Schema {
    list(32, &without_descriptions::<Toleration>(generator))
}

pub(super) fn affinity(generator: &mut SchemaGenerator) -> Schema {
    without_descriptions::<Affinity>(generator)
}

pub(super) fn topology_spread_constraints(generator: &mut SchemaGenerator) -> Schema {
    list(8, &without_descriptions::<TopologySpreadConstraint>(generator))
}

/// A type of Kubernetes. It is validated completely, but without descriptions: `kubectl explain
/// pod.spec` prints them, and they would make this CRD several times as long.
fn without_descriptions<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = T::json_schema(generator).to_value();
    remove_descriptions(&mut schema);
    // The schema of a type is an object.
    Schema::try_from(schema).unwrap_or_default()
}

fn remove_descriptions(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.retain(|name, field| name != "description" || !field.is_string());
            fields.values_mut().for_each(remove_descriptions);
        }
        Value::Array(items) => items.iter_mut().for_each(remove_descriptions),
        _ => {}
    }
}

fn list(longest: u32, items: &Schema) -> Schema {
    json_schema!({ "type": "array", "items": items, "maxItems": longest })
}

fn map(values: &Schema) -> Schema {
    json_schema!({ "type": "object", "additionalProperties": values, "maxProperties": 32 })
}

fn bytes(pattern: &str) -> Schema {
    json_schema!({
        "pattern": pattern,
        "maxLength": 16,
        "minimum": 1,
        "maximum": MAX_BYTES,
        "x-kubernetes-int-or-string": true,
        // It may be absent, which is not null.
        "nullable": false,
    })
}

fn string(pattern: &str, max_length: u32) -> Schema {
    json_schema!({ "type": "string", "pattern": pattern, "minLength": 1, "maxLength": max_length })
}
