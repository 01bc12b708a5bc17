//! Keeps the `PodDisruptionBudget` of workers. Only queues with several workers have one.

use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use crate::cache::{
    object::{Meta, Slim},
    watch::Watched,
};

/// A complete `PodDisruptionBudget`.
pub(crate) type Budget = Slim<PodDisruptionBudget, Box<PodDisruptionBudget>>;

impl Watched for Budget {
    type Whole = PodDisruptionBudget;

    fn of(budget: PodDisruptionBudget) -> Self {
        Self::new(Meta::of(&budget.metadata), Box::new(budget))
    }
}
