//! Keeps of each `ServiceAccount` of workers its owner, and whether it is as it was applied.

use k8s_openapi::api::core::v1::ServiceAccount;

use crate::{
    cache::{
        object::{Meta, Slim},
        watch::Watched,
    },
    controller::fingerprint::Fingerprint,
};

/// A `ServiceAccount`, with the hash of all fields that the operator sets.
pub(crate) type Account = Slim<ServiceAccount, Fingerprint>;

impl Watched for Account {
    type Whole = ServiceAccount;

    fn of(account: ServiceAccount) -> Self {
        Self::new(Meta::of(&account.metadata), fingerprint(&account))
    }
}

// === impl Account ===

impl Account {
    /// Returns whether it is as it is wanted, and was applied so.
    pub(crate) fn is(&self, wanted: &ServiceAccount) -> bool {
        self.rest == fingerprint(wanted)
    }
}

fn fingerprint(account: &ServiceAccount) -> Fingerprint {
    Fingerprint::of(&account.metadata, account.automount_service_account_token)
}
