//! Schemas of fields whose Rust type says less than the API server shall know.

use schemars::{Schema, SchemaGenerator, json_schema};

use super::rules;

/// As long as the longest sensible spelling, `23h59m59.999999999s`.
pub(super) fn duration(_: &mut SchemaGenerator) -> Schema {
    text(rules::DURATION, 32)
}

pub(super) fn jetstream_name(_: &mut SchemaGenerator) -> Schema {
    text(rules::JETSTREAM_NAME, 64)
}

pub(super) fn subject(_: &mut SchemaGenerator) -> Schema {
    text(rules::SUBJECT, 128)
}

/// A registry's limits: 255 for the name, 128 for the tag, and a digest.
pub(super) fn image(_: &mut SchemaGenerator) -> Schema {
    text(r"^\S+$", 512)
}

/// Room for a cluster of five servers with credentials.
pub(super) fn nats_url(_: &mut SchemaGenerator) -> Schema {
    text(rules::NATS_URL, 1024)
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

fn text(pattern: &str, max_length: u32) -> Schema {
    json_schema!({ "type": "string", "pattern": pattern, "minLength": 1, "maxLength": max_length })
}
