//! Checks objects against the types of Kubernetes, as the API server does: no unknown field, no
//! value of a wrong type. CRDs and the objects of the Prometheus operator are tested on the
//! cluster.

use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    batch::v1::Job,
    core::v1::{ConfigMap, Namespace, PersistentVolumeClaim, Pod, Service, ServiceAccount},
    networking::v1::{Ingress, NetworkPolicy},
    policy::v1::PodDisruptionBudget,
    rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// Kinds whose types are not in the client library.
const ELSEWHERE: [&str; 3] = ["CustomResourceDefinition", "PodMonitor", "PrometheusRule"];

/// Returns what is wrong with an object.
pub(crate) fn validate(object: &Value) -> Result<(), String> {
    match object["kind"].as_str().unwrap_or_default() {
        "ClusterRole" => validate_as::<ClusterRole>(object),
        "ClusterRoleBinding" => validate_as::<ClusterRoleBinding>(object),
        "ConfigMap" => validate_as::<ConfigMap>(object),
        "Deployment" => validate_as::<Deployment>(object),
        "Ingress" => validate_as::<Ingress>(object),
        "Job" => validate_as::<Job>(object),
        "Namespace" => validate_as::<Namespace>(object),
        "NetworkPolicy" => validate_as::<NetworkPolicy>(object),
        "PersistentVolumeClaim" => validate_as::<PersistentVolumeClaim>(object),
        "Pod" => validate_as::<Pod>(object),
        "PodDisruptionBudget" => validate_as::<PodDisruptionBudget>(object),
        "Role" => validate_as::<Role>(object),
        "RoleBinding" => validate_as::<RoleBinding>(object),
        "Service" => validate_as::<Service>(object),
        "ServiceAccount" => validate_as::<ServiceAccount>(object),
        "StatefulSet" => validate_as::<StatefulSet>(object),
        kind if ELSEWHERE.contains(&kind) => Ok(()),
        kind => Err(format!("kind `{kind}` is not known to this test: add it")),
    }
}

/// Reads an object as its type. What the type does not know is missing when it is written again.
fn validate_as<T: DeserializeOwned + Serialize>(object: &Value) -> Result<(), String> {
    let typed: T = serde_json::from_value(object.clone()).map_err(|error| error.to_string())?;
    let written = serde_json::to_value(typed).map_err(|error| error.to_string())?;
    match lost("", object, &written) {
        None => Ok(()),
        Some(path) => Err(format!("field {path} is not known to Kubernetes")),
    }
}

/// Returns the path of the first value that `written` does not have.
fn lost(path: &str, object: &Value, written: &Value) -> Option<String> {
    match (object, written) {
        (Value::Object(fields), _) => fields
            .iter()
            .find_map(|(name, value)| lost(&format!("{path}.{name}"), value, &written[name])),
        (Value::Array(items), _) => items
            .iter()
            .enumerate()
            .find_map(|(index, item)| lost(&format!("{path}[{index}]"), item, &written[index])),
        (Value::Null, _) | (_, Value::Null) => Some(path.to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn unknown_fields_and_wrong_types_are_named() {
        let service = |spec: Value| {
            json!({
                "apiVersion": "v1", "kind": "Service", "metadata": { "name": "a" }, "spec": spec
            })
        };
        assert_eq!(validate(&service(json!({ "ports": [{ "port": 1 }] }))), Ok(()));
        let error = validate(&service(json!({ "ports": [{ "port": 1, "prot": 2 }] }))).unwrap_err();
        assert!(error.contains(".spec.ports[0].prot"), "{error}");
        assert!(validate(&service(json!({ "ports": [{ "port": "http" }] }))).is_err());
        assert!(validate(&json!({ "kind": "Gadget" })).unwrap_err().contains("Gadget"));
    }
}
