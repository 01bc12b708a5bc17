//! What is kept of each `ServiceAccount` of workers: whose it is, and whether it is as it was applied.

use k8s_openapi::{api::core::v1::ServiceAccount, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::Resource;
use serde::{Deserialize, Serialize};

use crate::controller::fingerprint::Fingerprint;

/// A `ServiceAccount` without what nobody here reads of it.
#[derive(Clone, Debug, Default, PartialEq, Resource, Deserialize, Serialize)]
#[resource(inherit = "ServiceAccount")]
#[serde(rename_all = "camelCase")]
pub(crate) struct Account {
    pub(crate) metadata: ObjectMeta,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) automount_service_account_token: Option<bool>,
    /// Of all that we set, which is taken out then.
    #[serde(skip)]
    pub(crate) fingerprint: Fingerprint,
}

// === impl Account ===

impl Account {
    /// Whether it is as it is wanted, and was applied so.
    pub(crate) fn is(&self, wanted: &ServiceAccount) -> bool {
        self.fingerprint == Fingerprint::of(&wanted.metadata, wanted.automount_service_account_token)
    }
}
