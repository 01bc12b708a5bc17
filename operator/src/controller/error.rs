//! Why a reconciliation did not complete.

use kube::runtime::finalizer::Error as Finalizing;

/// Reason why a reconciliation did not complete. The reconciliation is retried.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The API server did not accept a status.
    #[error("the status could not be written")]
    Status(#[source] kube::Error),
    /// The API server did not delete a Deployment.
    #[error("the workers could not be deleted")]
    Delete(#[source] kube::Error),
    /// A queue is being deleted, and its stream can't be deleted or released yet.
    #[error("{0}")]
    Waiting(String),
    /// The API server did not add or remove the finalizer.
    #[error("the finalizer could not be changed")]
    Finalizer(#[source] kube::Error),
    /// The object has no name. The API server does not accept such objects.
    #[error("the object has no name")]
    Nameless,
}

// === impl Error ===

impl Error {
    /// All values of [`Self::category`].
    pub(crate) const CATEGORIES: [&str; 5] =
        ["status", "delete", "waiting", "finalizer", "nameless"];

    /// Returns a fixed name for each error, as a label of the metric.
    pub(super) fn category(&self) -> &'static str {
        match self {
            Self::Status(_) => "status",
            Self::Delete(_) => "delete",
            Self::Waiting(_) => "waiting",
            Self::Finalizer(_) => "finalizer",
            Self::Nameless => "nameless",
        }
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
