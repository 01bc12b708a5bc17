//! A token bucket: how long the next invocation has to wait. Pure.

use std::time::{Duration, Instant};

/// The tokens of one worker. A token is due every `interval`, and at most `capacity` are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TokenBucket {
    /// Time between two tokens. `None`: no token arrives.
    interval: Option<Duration>,
    capacity: u32,
    /// When the next token is due. In the past, it says how many are kept.
    next: Instant,
}

/// The part of a rate that a worker has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refill {
    /// Time between two tokens. `None`: no token arrives.
    pub(super) interval: Option<Duration>,
    /// Maximum number of tokens that are kept.
    pub(super) capacity: u32,
}

impl TokenBucket {
    /// Creates a bucket without tokens that gets none.
    pub(super) fn empty(now: Instant) -> Self {
        Self { interval: None, capacity: 1, next: now }
    }

    /// Changes how tokens arrive. Those that are kept remain, as far as there is room.
    pub(super) fn set(&mut self, refill: Refill, now: Instant) {
        self.limit(now);
        if let Some(interval) = refill.interval.filter(|_| refill.interval != self.interval) {
            self.next = match self.interval {
                None => now + interval,
                Some(before) if self.next <= now => {
                    let kept = (now - self.next).div_duration_f64(before);
                    now.checked_sub(interval.mul_f64(kept)).unwrap_or(now)
                }
                Some(before) => now + interval.mul_f64((self.next - now).div_duration_f64(before)),
            };
        }
        (self.interval, self.capacity) = (refill.interval, refill.capacity.max(1));
        self.limit(now);
    }

    /// Takes the next token, and returns how long to wait for it. `None`: no token arrives.
    pub(super) fn take(&mut self, now: Instant) -> Option<Duration> {
        let interval = self.interval?;
        self.limit(now);
        let wait = self.next.saturating_duration_since(now);
        self.next += interval;
        Some(wait)
    }

    /// Returns how many tokens there are now or arrive within a second, but at least one.
    pub(super) fn soon(&self, now: Instant) -> usize {
        let Some(interval) = self.interval else { return 0 };
        let mut limited = *self;
        limited.limit(now);
        let until = now + Duration::from_secs(1);
        let tokens =
            until.saturating_duration_since(limited.next).as_nanos() / interval.as_nanos().max(1);
        usize::try_from(tokens).unwrap_or(usize::MAX).max(1)
    }

    /// Drops tokens for which there is no room.
    fn limit(&mut self, now: Instant) {
        let Some(interval) = self.interval else { return };
        let earliest = now.checked_sub(interval.saturating_mul(self.capacity - 1));
        self.next = earliest.map_or(self.next, |earliest| self.next.max(earliest));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refill(millis: u64, capacity: u32) -> Refill {
        Refill { interval: Some(Duration::from_millis(millis)), capacity }
    }

    fn waits(bucket: &mut TokenBucket, now: Instant, count: usize) -> Vec<u128> {
        (0..count).map(|_| bucket.take(now).unwrap().as_millis()).collect()
    }

    #[test]
    fn a_burst_is_followed_by_the_rate() {
        let start = Instant::now();
        let mut bucket = TokenBucket::empty(start);
        assert_eq!((bucket.take(start), bucket.soon(start)), (None, 0));
        bucket.set(refill(100, 3), start);
        assert_eq!(bucket.soon(start), 9);
        assert_eq!(waits(&mut bucket, start, 2), [100, 200]);
        let later = start + Duration::from_secs(60);
        assert_eq!(bucket.soon(later), 12);
        assert_eq!(waits(&mut bucket, later, 5), [0, 0, 0, 100, 200]);
    }

    #[test]
    fn tokens_and_debts_remain_when_the_rate_changes() {
        let start = Instant::now();
        let mut bucket = TokenBucket::empty(start);
        bucket.set(refill(100, 10), start);
        let later = start + Duration::from_secs(60);
        bucket.set(refill(1000, 5), later);
        assert_eq!(waits(&mut bucket, later, 7), [0, 0, 0, 0, 0, 1000, 2000]);
        bucket.set(refill(100, 10), later);
        assert_eq!(waits(&mut bucket, later, 1), [300]);
        bucket.set(Refill { interval: None, capacity: 1 }, later);
        assert_eq!(bucket.take(later), None);
    }

    #[test]
    fn at_least_one_call_may_wait() {
        let start = Instant::now();
        let mut bucket = TokenBucket::empty(start);
        bucket.set(refill(30_000, 1), start);
        assert_eq!(bucket.soon(start), 1);
    }

    proptest! {
        #[test]
        fn no_more_start_than_rate_and_burst_permit(
            interval in 1_u64..1000,
            capacity in 1_u32..20,
            pauses in prop::collection::vec(0_u64..3000, 1..100),
        ) {
            let start = Instant::now();
            let mut bucket = TokenBucket::empty(start);
            bucket.set(refill(interval, capacity), start);
            let mut starts = Vec::new();
            let mut now = start;
            for pause in pauses {
                now += Duration::from_millis(pause);
                starts.push(now + bucket.take(now).unwrap());
            }
            for (index, first) in starts.iter().enumerate() {
                for (count, last) in starts[index..].iter().enumerate() {
                    let passed = u64::try_from((*last - *first).as_millis()).unwrap();
                    let allowed = passed / interval + u64::from(capacity);
                    prop_assert!((count as u64) < allowed);
                }
            }
        }
    }
}
