//! Why a reconciliation did not complete.

use kube::runtime::finalizer::Error as Finalizing;
use strum::{IntoStaticStr, VariantNames};

/// Reason why a reconciliation did not complete. The reconciliation is retried.
#[derive(Debug, thiserror::Error, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub(crate) enum Error {
    /// The API server did not accept a status.
    #[error("failed to update the status")]
    Status(#[source] kube::Error),
    /// The API server did not delete a Deployment.
    #[error("failed to delete the workers")]
    Delete(#[source] kube::Error),
    /// A queue is being deleted, and its stream can't be deleted or released yet.
    #[error("{0}")]
    Waiting(String),
    /// The API server did not add or remove the finalizer.
    #[error("failed to change the finalizer")]
    Finalizer(#[source] kube::Error),
    /// The object has no name. The API server does not accept such objects.
    #[error("the object has no name")]
    Nameless,
}

// === impl Error ===

impl Error {
    /// All values of [`Self::category`].
    pub(crate) const CATEGORIES: &'static [&'static str] = Self::VARIANTS;

    /// Returns a fixed name for each error, as a label of the metric.
    pub(super) fn category(&self) -> &'static str {
        self.into()
    }
}

impl From<Finalizing<Self>> for Error {
    fn from(error: Finalizing<Self>) -> Self {
        match error {
            Finalizing::ApplyFailed(error) | Finalizing::CleanupFailed(error) => error,
            Finalizing::AddFinalizer(error) | Finalizing::RemoveFinalizer(error) => {
                Self::Finalizer(error)
            }
            Finalizing::UnnamedObject | Finalizing::InvalidFinalizer => Self::Nameless,
        }
    }
}

/// Accepts that an object is gone, or that another one has its name.
pub(super) fn ignore_gone<T>(result: kube::Result<T>) -> kube::Result<()> {
    match result {
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
        result => result.map(|_| ()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_categories_of_the_metric_stay_the_same() {
        assert_eq!(Error::CATEGORIES, ["status", "delete", "waiting", "finalizer", "nameless"]);
        assert_eq!(Error::Waiting(String::new()).category(), "waiting");
    }
}
