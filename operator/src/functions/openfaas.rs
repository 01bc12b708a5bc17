//! `OpenFaaS`'s own resource for a function, with the fields that are used. Its CRD belongs to
//! `OpenFaaS`, and is not in every cluster.

use std::collections::BTreeMap;

use kube::CustomResource;
use serde::{Deserialize, Serialize};

/// The spec of a `Function` of `openfaas.com/v1`.
///
/// The other fields say how the function runs: <https://github.com/openfaas/faas-netes>,
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
