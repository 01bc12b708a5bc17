//! The source `openfaas.com/v1` Function, with the fields that are used. Its CRD belongs to
//! `OpenFaaS`, and is not in every cluster.

use std::collections::BTreeMap;

use asyncqueue::FunctionName;
use kube::{CustomResource, Resource, ResourceExt};
use serde::{Deserialize, Serialize};

use super::{DiscoveredFunction, FunctionSource};

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

impl FunctionSource for Function {
    fn function(&self) -> Option<(FunctionName, DiscoveredFunction)> {
        let name = self.spec.name.clone().unwrap_or_else(|| self.name_any());
        let name = FunctionName::new(&name, &self.namespace()?).ok()?;
        let annotations = self.spec.annotations.as_ref();
        Some((name, DiscoveredFunction::from_annotations(annotations, self.object_ref(&()))))
    }
}
