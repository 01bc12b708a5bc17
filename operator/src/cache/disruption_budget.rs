//! The cached form of a `PodDisruptionBudget` of workers: the whole object. Only queues with several
//! workers have one.

use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use super::{
    object::{CachedMeta, CachedObject},
    watch::Cacheable,
};

/// A complete `PodDisruptionBudget`.
pub(crate) type CachedDisruptionBudget =
    CachedObject<PodDisruptionBudget, Box<PodDisruptionBudget>>;

impl Cacheable for CachedDisruptionBudget {
    type Object = PodDisruptionBudget;

    fn from_object(budget: PodDisruptionBudget) -> Self {
        Self::new(CachedMeta::new(&budget.metadata), Box::new(budget))
    }
}
