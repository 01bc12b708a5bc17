//! What a queue's workers run as.

use k8s_openapi::api::core::v1::ServiceAccount;

use super::meta;
use crate::controller::validate::ValidQueue;

/// An account without rights, whose token nobody gets: workers never talk to the API server. It is there so that they do not
/// share the namespace's default account, with what somebody may have granted that. None where the spec names one.
pub(super) fn build(queue: &ValidQueue) -> Option<ServiceAccount> {
    queue.worker.service_account_name.is_none().then(|| ServiceAccount {
        metadata: meta(queue),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    })
}
