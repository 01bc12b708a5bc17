//! What is kept of each `PodDisruptionBudget` of workers. Only queues of several workers have one.

use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use crate::{
    slim::{Meta, Slim},
    watch::Watched,
};

/// A `PodDisruptionBudget`, in whole.
pub(crate) type Budget = Slim<PodDisruptionBudget, Box<PodDisruptionBudget>>;

impl Watched for Budget {
    type Whole = PodDisruptionBudget;

    fn of(budget: PodDisruptionBudget) -> Self {
        Self::new(Meta::of(&budget.metadata), Box::new(budget))
    }
}
