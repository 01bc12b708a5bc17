//! Builds the `ServiceAccount` of a queue's workers.

use k8s_openapi::api::core::v1::ServiceAccount;

use super::object_meta;
use crate::controller::validate::ValidatedQueue;

/// Builds an account without permissions and without a mounted token: workers never talk to the API
/// server. With it, they do not share the namespace's default account, which may have permissions.
/// `None` if the spec names an account.
pub(super) fn build(queue: &ValidatedQueue) -> Option<ServiceAccount> {
    queue.worker.service_account_name.is_none().then(|| ServiceAccount {
        metadata: object_meta(queue),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    })
}
