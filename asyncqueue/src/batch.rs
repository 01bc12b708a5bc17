//! Batches: calls of one queue that are stored together or not at all, and whose ends are reported
//! together.
//!
//! Two KV buckets hold what is known of a batch. [`BATCHES`](crate::buckets::BATCHES) has these
//! keys:
//!
//! | key | value |
//! |---|---|
//! | `<batch-id>.open.record` | the batch as it was submitted, see [`BatchRecord`] |
//! | `<batch-id>.open.stored` | empty: the calls of the batch are stored |
//! | `<batch-id>.open.ends.<call-id>` | how a call has ended, see [`EndRecord`] |
//! | `<batch-id>.ended` | the batch after its last call has ended, see [`BatchReport`] |
//!
//! [`BATCH_COUNTERS`](crate::buckets::BATCH_COUNTERS) counts the ends: NATS adds to a counter and
//! answers with its value, so that a program that ends a call need not read the other ends. The
//! counter is a hint, and the ends decide: the first end of a call that is stored counts, and a
//! batch has ended when each of its calls has one.

pub use crate::batch_member::{BatchId, BatchMember};
pub use ends::{EndEffect, record_end};
pub use record::{BatchRecord, BatchReport, CallEnd, Counts, EndRecord, MemberCall, OnFailure};
pub use status::{BatchState, ListedBatches, find_batch, list_batches};
pub use sweep::{SWEEP_INTERVAL, keep_sweeping, sweep, sweep_now};

mod ends;
mod record;
mod removed;
mod status;
pub(crate) mod storage;
mod sweep;

pub(crate) use ends::finish_if_complete;
pub(crate) use removed::end_of_removed;

/// Maximum number of calls in a batch: the limit of nats-server for an atomic publish.
pub const MAX_CALLS: usize = 1_000;

/// Number of requests about the calls of one batch that are sent concurrently.
pub(crate) const MAX_CONCURRENT: usize = 64;
