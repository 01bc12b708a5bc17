//! Decides whether an object is as it was applied, and whether that is what is wanted now. This
//! saves one request to the API server every few seconds for each object.

use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde_json::Value;

use crate::labels::APPLIED_ANNOTATION;

/// Fields whose values are quantities. The API server normalises them: it writes `1000m` as `1`.
const QUANTITIES: [&str; 2] = ["requests", "limits"];

/// The factor of each suffix of a quantity, in thousandths.
const SUFFIXES: [(&str, f64); 13] = [
    ("", 1e3),
    ("m", 1.0),
    ("k", 1e6),
    ("M", 1e9),
    ("G", 1e12),
    ("T", 1e15),
    ("P", 1e18),
    ("E", 1e21),
    ("Ki", 1e3 * 1024.0),
    ("Mi", 1e3 * 1_048_576.0),
    ("Gi", 1e3 * 1_073_741_824.0),
    ("Ti", 1e3 * 1_099_511_627_776.0),
    ("Pi", 1e3 * 1_125_899_906_842_624.0),
];

/// Returns whether `live` is `wanted`: applied, and not changed since.
pub(super) fn is_current<K: Resource + Serialize>(live: &K, wanted: &K) -> bool {
    let applied = |object: &K| object.annotations().get(APPLIED_ANNOTATION).cloned();
    // An object that can't be written as JSON is not current.
    let json = |object| serde_json::to_value(object).ok();
    applied(live) == applied(wanted)
        && json(live).zip(json(wanted)).is_some_and(|(live, wanted)| covers(&live, &wanted))
}

/// Returns whether `live` has everything that is wanted. It may have more: the API server adds
/// defaults, and other programs add their own fields.
fn covers(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => {
            wanted.iter().all(|(key, value)| match live.get(key) {
                Some(live) if QUANTITIES.contains(&&**key) => same_quantities(live, value),
                Some(live) => covers(live, value),
                None => is_nothing(value),
            })
        }
        (Value::Array(live), Value::Array(wanted)) => {
            wanted.iter().all(|value| live.iter().any(|live| covers(live, value)))
        }
        _ => live == wanted,
    }
}

/// Returns whether the API server omits a value, as Go's `omitempty` does.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_nothing),
    }
}

fn same_quantities(live: &Value, wanted: &Value) -> bool {
    let (Some(live), Some(wanted)) = (live.as_object(), wanted.as_object()) else {
        return live == wanted;
    };
    wanted.iter().all(|(resource, wanted)| {
        live.get(resource).is_some_and(|live| {
            live == wanted
                || thousandths(live).is_some_and(|live| Some(live) == thousandths(wanted))
        })
    })
}

fn thousandths(quantity: &Value) -> Option<f64> {
    let text = quantity.as_str()?;
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let (_, factor) = SUFFIXES.iter().find(|(known, _)| *known == suffix)?;
    number.parse::<f64>().ok().map(|number| number * factor)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::Deployment;
    use serde_json::json;

    use super::*;

    #[test]
    fn more_may_be_there_than_is_wanted_but_not_less_or_other() {
        let wanted = json!({ "a": 1, "list": [{ "name": "x", "value": "1" }] });
        let live = json!({ "a": 1, "b": 2, "list": [{ "name": "y" }, { "name": "x", "value": "1", "more": true }] });
        assert!(covers(&live, &wanted));
        assert!(!covers(&json!({ "a": 1 }), &wanted));
        assert!(!covers(&json!({ "a": 1, "list": [{ "name": "x", "value": "2" }] }), &wanted));
    }

    #[test]
    fn what_the_api_server_leaves_out_is_there() {
        let wanted = json!({ "value": "", "list": [], "number": 0, "object": { "empty": "" } });
        assert!(covers(&json!({}), &wanted));
        assert!(!covers(&json!({ "value": "x" }), &wanted));
        assert!(!covers(&json!({}), &json!({ "object": { "full": "x" } })));
    }

    #[test]
    fn quantities_may_be_written_another_way() {
        let resources =
            |cpu: &str, memory: &str| json!({ "requests": { "cpu": cpu, "memory": memory } });
        assert!(covers(&resources("1", "1Gi"), &resources("1000m", "1024Mi")));
        assert!(covers(&resources("500m", "64Mi"), &resources("0.5", "67108864")));
        assert!(!covers(&resources("1", "1Gi"), &resources("1", "1G")));
        assert!(!covers(&resources("1", "1Gi"), &json!({ "requests": { "disk": "1" } })));
        // No other field is a quantity.
        assert!(!covers(&json!({ "value": "1" }), &json!({ "value": "1000m" })));
    }

    #[test]
    fn an_object_is_current_if_it_was_applied_as_it_is_wanted_and_left_alone() {
        let applied = |fingerprint: &str, replicas: i32| -> Deployment {
            serde_json::from_value(json!({
                "metadata": { "name": "a", "annotations": { APPLIED_ANNOTATION: fingerprint } },
                "spec": { "replicas": replicas, "selector": {}, "template": {} },
            }))
            .unwrap()
        };
        assert!(is_current(&applied("x", 1), &applied("x", 1)));
        assert!(!is_current(&applied("x", 2), &applied("x", 1)));
        // A field that was applied before is no longer wanted.
        assert!(!is_current(&applied("x", 1), &applied("y", 1)));
    }
}
