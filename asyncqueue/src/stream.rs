//! The streams, consumers and buckets of a queue on `JetStream`.
//!
//! [`QueueSpec`] is the desired state, and [`plan_stream`] decides how to reach it: pure functions
//! of plain values. [`ensure_queue`] carries the plan out, and [`remove_queue`] removes or releases
//! what it created.

mod ensure;
mod missing;
mod names;
mod overlap;
mod plan;
mod sequence;
mod spec;

pub use ensure::{
    EnsureError, QueueState, Removal, RemovalPolicy, ensure_buckets, ensure_queue, ensure_streams,
    remove_queue,
};
pub(crate) use ensure::{consumers, is_name_taken};
pub use missing::{
    RequiredStream, first_missing, required_bucket, required_by_producer, required_by_workers,
    required_stream,
};
pub use names::{
    MAX_STREAM_NAME, MAX_SUBJECT, parse_durable, parse_new_stream, parse_new_subject, parse_stream,
    parse_subject,
};
pub use overlap::{Overlap, find_overlap};
pub(crate) use plan::plan_consumer;
pub use plan::{Adopt, Plan, PlanError, plan_stream};
pub use sequence::{ClockError, has_unique_sequences, total_stored};
pub use spec::{
    DEAD_LETTER_MAX_AGE, DEFAULT_ACK_WAIT, DEFAULT_DUPLICATE_WINDOW, DEFAULT_MAX_MESSAGES,
    DeadLetterSettings, Limits, MAX_WAITING, META_OWNER, META_OWNER_UID, Owner, QueueSpec, Storage,
};
