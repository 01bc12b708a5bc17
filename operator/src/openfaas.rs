//! `OpenFaaS`'s own resource for a function, as far as it matters here. Its CRD is `OpenFaaS`'s, and not everywhere.

use std::collections::BTreeMap;

use kube::CustomResource;
use serde::{Deserialize, Serialize};

/// The spec of a `Function` of `openfaas.com/v1`.
///
/// The rest of it says how the function runs: <https://github.com/openfaas/faas-netes>,
/// `artifacts/crds/openfaas.com_functions.yaml`.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(group = "openfaas.com", version = "v1", kind = "Function", namespaced, schema = "disabled")]
pub(crate) struct FunctionSpec {
    /// The function's name, that of its Deployment and its Service.
    #[serde(default)]
    pub(crate) name: Option<String>,
    /// Its annotations: these, not those of the object itself.
    #[serde(default)]
    pub(crate) annotations: Option<BTreeMap<String, String>>,
}
