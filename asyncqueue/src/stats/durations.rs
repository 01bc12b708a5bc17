//! How long the invocations of a worker took, as counts by duration.

use std::{collections::BTreeMap, num::NonZeroU32, ops::AddAssign, time::Duration};

use serde::{Deserialize, Serialize};

/// Number of buckets. Their upper limits in milliseconds are the powers of two, from 1 to 2^31,
/// which is 24 days. A longer invocation counts in the last bucket.
pub const BUCKETS: usize = 32;

/// Counts of invocations by duration: the number in each bucket, by the upper limit of the bucket
/// in milliseconds. Buckets without an invocation are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "BTreeMap<u32, u64>", into = "BTreeMap<u32, u64>")]
pub struct DurationCounts(BTreeMap<u32, u64>);

/// Returns the number of the bucket of a duration.
#[must_use]
pub fn bucket_of(duration: Duration) -> usize {
    let millis = duration.as_nanos().div_ceil(1_000_000).max(1);
    let bucket = usize::try_from(millis.next_power_of_two().trailing_zeros());
    bucket.unwrap_or(BUCKETS).min(BUCKETS - 1)
}

// === impl DurationCounts ===

impl DurationCounts {
    /// Creates counts from the number of invocations in each bucket.
    pub fn from_buckets(buckets: impl IntoIterator<Item = u64>) -> Self {
        let limits = (0..BUCKETS).map(|bucket| 1 << bucket);
        limits.zip(buckets).collect::<BTreeMap<_, _>>().into()
    }

    /// Returns whether no invocation is counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns what was counted since earlier counts of the same worker process.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let counted = self.0.iter().map(|(limit, count)| {
            let before = earlier.0.get(limit).copied().unwrap_or(0);
            (*limit, count.saturating_sub(before))
        });
        counted.collect::<BTreeMap<_, _>>().into()
    }

    /// Estimates in milliseconds the duration that this many percent of the invocations did not
    /// exceed. It is in the bucket of the exact value, so less than twice of it and more than half.
    /// `None`: no invocation is counted.
    #[must_use]
    pub fn percentile(&self, percent: u8) -> Option<NonZeroU32> {
        let total: u128 = self.0.values().copied().map(u128::from).sum();
        let rank = (total * u128::from(percent.min(100))).div_ceil(100).max(1);
        let mut before = 0;
        for (&limit, &count) in &self.0 {
            let (lower, count) = (limit / 2, u128::from(count));
            if rank <= before + count {
                let part = u128::from(limit - lower) * (rank - before);
                let above = u32::try_from(part.div_ceil(count)).unwrap_or(limit);
                return NonZeroU32::new(lower.saturating_add(above).min(limit));
            }
            before += count;
        }
        None
    }
}

impl From<BTreeMap<u32, u64>> for DurationCounts {
    /// Ignores what is not the limit of a bucket, so that there are at most [`BUCKETS`].
    fn from(mut counts: BTreeMap<u32, u64>) -> Self {
        counts.retain(|limit, count| limit.is_power_of_two() && *count > 0);
        Self(counts)
    }
}

impl From<DurationCounts> for BTreeMap<u32, u64> {
    fn from(counts: DurationCounts) -> Self {
        counts.0
    }
}

impl AddAssign<&DurationCounts> for DurationCounts {
    fn add_assign(&mut self, other: &DurationCounts) {
        for (limit, count) in &other.0 {
            let sum = self.0.entry(*limit).or_default();
            *sum = sum.saturating_add(*count);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counts(millis: &[u32]) -> DurationCounts {
        let mut buckets = [0; BUCKETS];
        for &millis in millis {
            buckets[bucket_of(Duration::from_millis(millis.into()))] += 1;
        }
        DurationCounts::from_buckets(buckets)
    }

    fn percentile(counts: &DurationCounts, percent: u8) -> Option<u32> {
        counts.percentile(percent).map(NonZeroU32::get)
    }

    #[test]
    fn a_duration_belongs_to_the_bucket_of_its_upper_limit() {
        for (nanos, bucket) in [
            (0, 0),
            (1_000_000, 0),
            (1_000_001, 1),
            (2_000_000, 1),
            (200_000_000, 8),
            (256_000_000, 8),
            (256_000_001, 9),
            (3_600_000_000_000, 22),
        ] {
            assert_eq!(bucket_of(Duration::from_nanos(nanos)), bucket, "{nanos}");
        }
        assert_eq!(bucket_of(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn json_has_only_buckets_with_invocations() {
        let counts = counts(&[200, 210, 1_000]);
        let json = serde_json::to_string(&counts).unwrap();
        assert_eq!(json, r#"{"256":2,"1024":1}"#);
        assert_eq!(serde_json::from_str::<DurationCounts>(&json).unwrap(), counts);
        let other = r#"{"0":1,"3":4,"256":2,"512":0,"1024":1}"#;
        assert_eq!(serde_json::from_str::<DurationCounts>(other).unwrap(), counts);
    }

    #[test]
    fn percentiles_of_extreme_counts_are_in_their_bucket() {
        assert_eq!(percentile(&DurationCounts::default(), 50), None);
        assert_eq!(percentile(&counts(&[0]), 50), Some(1));
        assert_eq!(percentile(&counts(&[200]), 95), Some(256));
        let full = DurationCounts::from_buckets([u64::MAX; BUCKETS]);
        assert_eq!(percentile(&full, 100), Some(1 << 31));
        assert_eq!(percentile(&full, 0), Some(1));
        let mut twice = full.clone();
        twice += &full;
        assert_eq!(twice, full);
    }

    proptest! {
        #[test]
        fn percentile_is_in_the_bucket_of_the_exact_value(
            mut millis in prop::collection::vec(0_u32..10_000_000, 1..200),
            percent in 1_u8..=100,
        ) {
            let estimate = percentile(&counts(&millis), percent).unwrap();
            millis.sort_unstable();
            let exact = millis[(millis.len() * usize::from(percent)).div_ceil(100) - 1];
            let bucket = |millis: u32| bucket_of(Duration::from_millis(millis.into()));
            prop_assert_eq!(bucket(estimate), bucket(exact), "{} {}", estimate, exact);
        }

        #[test]
        fn counts_are_the_sum_of_what_was_counted_before_and_since(
            before in prop::collection::vec(0_u32..10_000_000, 0..50),
            since in prop::collection::vec(0_u32..10_000_000, 0..50),
        ) {
            let (earlier, all) = (counts(&before), counts(&[before, since.clone()].concat()));
            prop_assert_eq!(all.since(&earlier), counts(&since));
            let mut sum = earlier.clone();
            sum += &counts(&since);
            prop_assert_eq!(sum, all);
        }
    }
}
