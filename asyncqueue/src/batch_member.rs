//! The batch that a call belongs to.

use crate::call_id::CallId;

/// The id of a batch. It has the form of a call id.
pub type BatchId = CallId;

/// The batch that a call belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchMember {
    /// Id of the batch.
    pub id: BatchId,
    /// Number of calls in the batch.
    pub size: usize,
}
