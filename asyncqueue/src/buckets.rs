//! The KV buckets that all queues share.

use std::time::Duration;

use crate::kv::Bucket;

/// The bucket of the directory, see [`crate::directory`].
pub const DIRECTORY: Bucket = Bucket {
    name: "asyncqueue-directory",
    description: "which queue a function belongs to",
    max_age: None,
};

/// The buckets of which the workers of all queues read and write entries.
pub const OF_WORKERS: [Bucket; 3] = [TOMBSTONES, ATTEMPT_OFFSETS, SLOTS];

/// The bucket of tombstones: `<queue>.<call-id>.<sequence>` holds the mark of a call, see
/// [`crate::tombstone`]. Its name is older than most of the marks.
pub const TOMBSTONES: Bucket = Bucket {
    name: "asyncqueue-cancelled",
    description: "calls that were cancelled",
    // Longer than any cancelled call can still be in the system.
    max_age: Some(Duration::from_secs(24 * 3600)),
};

/// The bucket of attempt offsets, see [`crate::attempt_offset`]: `<queue>.<call-id>.<sequence>`
/// holds a number, and `sequence` is that of the call on the stream. So does
/// `<queue>.<call-id>.<sequence>-callback`, for the callback of that call.
pub const ATTEMPT_OFFSETS: Bucket = Bucket {
    name: "asyncqueue-uncounted",
    description: "deliveries of calls that are no attempts",
    // Longer than a call may wait for the platform, which is a day.
    max_age: Some(Duration::from_secs(48 * 3600)),
};

/// The bucket of the workers' shares in the limits of their queue, see [`crate::shares`]: `<queue>`
/// holds them, if the queue has `concurrency` or `rate`.
pub const SLOTS: Bucket = Bucket {
    name: "asyncqueue-slots",
    description: "shares of workers in the concurrency and rate of their queue",
    // Workers renew their entry every few seconds.
    max_age: Some(Duration::from_secs(3600)),
};

/// How long the entries of a batch are kept, if it does not end: longer than its deadline.
const BATCH_MAX_AGE: Duration = Duration::from_secs(8 * 24 * 3600);

/// The bucket of batches, see [`crate::batch`]. It is created with the first batch.
pub const BATCHES: Bucket = Bucket {
    name: "asyncqueue-batches",
    description: "batches of calls",
    max_age: Some(BATCH_MAX_AGE),
};

/// The bucket of the counters of batches: `<batch-id>` holds how many ends of its calls NATS has
/// counted. It is created with the first batch.
pub const BATCH_COUNTERS: Bucket = Bucket {
    name: "asyncqueue-batch-counters",
    description: "how many calls of a batch have ended",
    max_age: Some(BATCH_MAX_AGE),
};
