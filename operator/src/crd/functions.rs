//! `spec.functions`: which functions may send their calls to the queue.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::schemas;

/// The functions whose calls the queue takes.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FunctionsSpec {
    /// Namespaces whose functions may name this queue, 64 at most; "*" is all. Default: none but
    /// this namespace and the operator's function_namespace, which may always. The default queue
    /// admits all.
    ///
    /// The calls of a function that names this queue from another namespace go to the default
    /// queue; an event on the function and the condition FunctionsRefused of this object say so.
    /// Example: [team-a, team-b]
    #[schemars(schema_with = "schemas::namespaces")]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
}
