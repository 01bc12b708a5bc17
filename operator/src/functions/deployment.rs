//! The source Deployment: one whose pods have the label `faas_function`.

use asyncqueue::FunctionName;

use super::DiscoveredFunction;
use crate::{
    cache::deployment::{CachedDeployment, DeploymentRole},
    labels::FUNCTION_LABEL,
};

/// Returns the function that a Deployment runs, if it runs one.
pub(super) fn function(
    deployment: &CachedDeployment,
) -> Option<(FunctionName, DiscoveredFunction)> {
    let DeploymentRole::Function { pods, is_scaled_to_zero } = &deployment.data else {
        return None;
    };
    let name = pods.labels.get(FUNCTION_LABEL)?;
    let name = FunctionName::new(name, &deployment.meta.namespace).ok()?;
    let (annotations, object) = (Some(&pods.annotations), deployment.object_ref());
    let function = DiscoveredFunction::from_annotations(annotations, object);
    Some((name, DiscoveredFunction { is_scaled_to_zero: *is_scaled_to_zero, ..function }))
}
