//! Counts invocations by duration, for the statistics over NATS.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use asyncqueue::stats::durations::{BUCKETS, DurationCounts, bucket_of};

/// The number of ended invocations by duration, since the process started. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct DurationCounter {
    buckets: Arc<[AtomicU64; BUCKETS]>,
}

// === impl DurationCounter ===

impl DurationCounter {
    /// Counts an invocation.
    pub(super) fn count(&self, duration: Duration) {
        if let Some(bucket) = self.buckets.get(bucket_of(duration)) {
            bucket.fetch_add(1, Relaxed);
        }
    }

    /// Returns what was counted.
    pub(crate) fn counts(&self) -> DurationCounts {
        DurationCounts::from_buckets(self.buckets.iter().map(|bucket| bucket.load(Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_count_into_the_same_buckets() {
        let counter = DurationCounter::default();
        assert!(counter.counts().is_empty());
        for millis in [200, 201, 1] {
            counter.clone().count(Duration::from_millis(millis));
        }
        let json = serde_json::to_string(&counter.counts()).unwrap();
        assert_eq!(json, r#"{"1":1,"256":2}"#);
    }
}
