//! `spec.functions`: which functions may send their calls to the queue.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::schemas;

/// The functions whose calls the queue accepts.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FunctionsSpec {
    /// Namespaces whose functions may use this queue, at most 64; "*" is all. Default: none except
    /// this namespace and the operator's function_namespace, which always may. The default queue
    /// admits all.
    ///
    /// If a function of another namespace names this queue, its calls go to the default queue; an
    /// event on the function and the condition FunctionsRefused of this object report it. Example:
    /// [team-a, team-b]
    #[schemars(schema_with = "schemas::namespaces")]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
}
