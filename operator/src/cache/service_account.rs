//! The cached form of a `ServiceAccount` of workers: its owner, and the hash of what was applied.

use k8s_openapi::api::core::v1::ServiceAccount;

use super::{
    fingerprint::Fingerprint,
    object::{CachedMeta, CachedObject},
    watch::Cacheable,
};

/// A `ServiceAccount`, with the hash of all fields that the operator sets.
pub(crate) type CachedServiceAccount = CachedObject<ServiceAccount, Fingerprint>;

impl Cacheable for CachedServiceAccount {
    type Object = ServiceAccount;

    fn from_object(account: ServiceAccount) -> Self {
        Self::new(CachedMeta::new(&account.metadata), fingerprint(&account))
    }
}

// === impl CachedServiceAccount ===

impl CachedServiceAccount {
    /// Returns whether it is as it is wanted, and was applied so.
    pub(crate) fn matches(&self, wanted: &ServiceAccount) -> bool {
        self.data == fingerprint(wanted)
    }
}

fn fingerprint(account: &ServiceAccount) -> Fingerprint {
    Fingerprint::of(&account.metadata, account.automount_service_account_token)
}
