//! Builds the `ServiceAccount` of a queue's workers.

use k8s_openapi::api::core::v1::ServiceAccount;

use super::meta;
use crate::controller::validate::ValidQueue;

/// Builds an account without permissions and without a mounted token: workers never talk to the API
/// server. With it, they do not share the namespace's default account, which may have permissions.
/// `None` if the spec names an account.
pub(super) fn build(queue: &ValidQueue) -> Option<ServiceAccount> {
    queue.worker.service_account_name.is_none().then(|| ServiceAccount {
        metadata: meta(queue),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    })
}
