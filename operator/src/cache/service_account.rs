//! The cached form of a `ServiceAccount` of workers: only its metadata.

use k8s_openapi::api::core::v1::ServiceAccount;

use super::{
    object::{CachedMeta, CachedObject},
    watch::Cacheable,
};

/// The metadata of a `ServiceAccount`.
pub(crate) type CachedServiceAccount = CachedObject<ServiceAccount, ()>;

impl Cacheable for CachedServiceAccount {
    type Object = ServiceAccount;

    fn from_object(object: ServiceAccount) -> Self {
        Self::new(CachedMeta::new(&object.metadata), ())
    }
}
