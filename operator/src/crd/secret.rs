//! References to Secrets.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::schemas;

/// One key of a Secret in the queue's namespace.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SecretKey {
    /// Name of the Secret. Workers wait for one that is not there.
    #[schemars(schema_with = "schemas::object_name")]
    pub name: String,

    /// Key in its data.
    #[schemars(schema_with = "schemas::secret_key")]
    pub key: String,
}
