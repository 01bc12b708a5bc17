//! The KV buckets that all queues share.

use std::time::Duration;

use crate::kv::Bucket;

/// The bucket of the directory, see [`crate::directory`].
pub const DIRECTORY: Bucket = Bucket {
    name: "asyncqueue-directory",
    description: "which queue a function belongs to",
    max_age: None,
};

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
