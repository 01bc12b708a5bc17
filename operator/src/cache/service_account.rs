//! Keeps the metadata of each `ServiceAccount` of workers.

use k8s_openapi::api::core::v1::ServiceAccount;

use crate::cache::{
    object::{Meta, Slim},
    watch::Watched,
};

/// The metadata of a `ServiceAccount`.
pub(crate) type Account = Slim<ServiceAccount, ()>;

impl Watched for Account {
    type Whole = ServiceAccount;

    fn of(account: ServiceAccount) -> Self {
        Self::new(Meta::of(&account.metadata), ())
    }
}
