//! The cached form of a `PodDisruptionBudget` of workers: only its metadata.

use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use super::{
    object::{CachedMeta, CachedObject},
    watch::Cacheable,
};

/// The metadata of a `PodDisruptionBudget`.
pub(crate) type CachedDisruptionBudget = CachedObject<PodDisruptionBudget, ()>;

impl Cacheable for CachedDisruptionBudget {
    type Object = PodDisruptionBudget;

    fn from_object(object: PodDisruptionBudget) -> Self {
        Self::new(CachedMeta::new(&object.metadata), ())
    }
}
