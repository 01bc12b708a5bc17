//! Keeps the metadata of each `PodDisruptionBudget` of workers.

use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use crate::cache::{
    object::{Meta, Slim},
    watch::Watched,
};

/// The metadata of a `PodDisruptionBudget`.
pub(crate) type Budget = Slim<PodDisruptionBudget, ()>;

impl Watched for Budget {
    type Whole = PodDisruptionBudget;

    fn of(budget: PodDisruptionBudget) -> Self {
        Self::new(Meta::of(&budget.metadata), ())
    }
}
