//! Finds a batch by its id.

use std::collections::HashSet;

use async_nats::jetstream::Context;

use super::{BatchId, BatchRecord, BatchReport, storage};
use crate::jetstream::NatsError;

/// The batches that are known.
#[derive(Clone, Debug, Default)]
pub struct ListedBatches {
    /// Those that have not ended.
    pub open: Vec<BatchId>,
    /// Those that have ended.
    pub ended: Vec<BatchId>,
}

/// What is known of a batch.
#[derive(Clone, Debug)]
pub enum BatchState {
    /// Some of its calls have not ended.
    Open {
        /// The batch as it was submitted.
        record: Box<BatchRecord>,
        /// Its calls as they are now.
        report: BatchReport,
    },
    /// All of its calls have ended.
    Ended(BatchReport),
}

// === impl BatchState ===

impl BatchState {
    /// Returns the report.
    #[must_use]
    pub fn into_report(self) -> BatchReport {
        match self {
            Self::Open { report, .. } | Self::Ended(report) => report,
        }
    }
}

/// Returns what is known of a batch; `None` if nothing is.
pub async fn find_batch(js: &Context, id: &BatchId) -> Result<Option<BatchState>, NatsError> {
    // The report is written before the record is removed.
    if let Some((record, ..)) = storage::read_record(js, id).await? {
        let ends = storage::read_ends(js, id, &record.calls).await?;
        // The ends may have been removed in between.
        if let Some((report, _)) = storage::read_ended(js, id).await? {
            return Ok(Some(BatchState::Ended(report)));
        }
        let report = BatchReport::new(id, &record, &ends);
        return Ok(Some(BatchState::Open { record: record.into(), report }));
    }
    Ok(storage::read_ended(js, id).await?.map(|(report, _)| BatchState::Ended(report)))
}

/// Returns the batches that have not ended, and those that have and are still known, at most as
/// many as one answer of the server lists (100,000). Needs no permission to create a consumer.
pub async fn list_batches(js: &Context) -> Result<ListedBatches, NatsError> {
    let (open, mut ended) =
        futures::try_join!(storage::open_batches(js), storage::ended_batches(js))?;
    // The report of a batch is written before its record is removed.
    let is_open: HashSet<&BatchId> = open.iter().collect();
    ended.retain(|id| !is_open.contains(id));
    Ok(ListedBatches { open, ended })
}
