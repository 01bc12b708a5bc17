//! Computes how long a call waits for its next attempt.

use std::time::Duration;

use asyncqueue::retry::{Backoff, Jitter};
use jiff::Timestamp;

/// Waits of put-off calls end at a multiple of this time. After each delayed nak, nats-server goes
/// through all unacknowledged messages of the consumer, at most every 10 ms. So calls that come
/// back together cost it less.
const COME_BACK_EVERY: Duration = Duration::from_secs(1);

/// The same for delayed calls, which are to be late by little.
const DUE_EVERY: Duration = Duration::from_millis(250);

/// A delayed call comes back at least this often. The worker that has it then counts it as
/// scheduled, and a change of the lease moves its time by nothing.
const MAX_HAND_BACK: Duration = Duration::from_secs(3600);

/// Delayed calls that come back before they are due come back at a multiple of this time.
const COUNT_EVERY: Duration = Duration::from_secs(10);

/// The waits of what is put off without an attempt: a call whose function is scaled to zero, or a
/// result whose host is busy.
pub(crate) const PUT_OFF: BackoffPolicy = BackoffPolicy {
    min: Duration::from_secs(1),
    max: Duration::from_secs(60),
    backoff: Backoff::Exponential,
    jitter: Jitter::Equal,
};

/// Settings for the waits of a queue between attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackoffPolicy {
    /// Wait before the second attempt.
    pub min: Duration,
    /// Maximum wait.
    pub max: Duration,
    /// How the waits grow.
    pub backoff: Backoff,
    /// Which part of a wait is random.
    pub jitter: Jitter,
}

impl BackoffPolicy {
    /// Returns the wait after the `attempt`th invocation (1 is the first). `chance` is from 0 to 1.
    #[must_use]
    pub fn wait_after(&self, attempt: u64, chance: f64) -> Duration {
        let doublings = match self.backoff {
            Backoff::Exponential => u32::try_from(attempt.saturating_sub(1)).unwrap_or(u32::MAX),
            Backoff::Static => 0,
        };
        let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
        let wait = self.min.saturating_mul(factor).min(self.max);
        let chance = chance.clamp(0.0, 1.0);
        let factor = match self.jitter {
            Jitter::None => 1.0,
            Jitter::Full => chance,
            Jitter::Equal => 0.5 + chance / 2.0,
        };
        wait.mul_f64(factor).min(wait)
    }
}

/// Returns a wait that ends together with the waits of others, at most [`COME_BACK_EVERY`] later.
pub(crate) fn until_others_come(wait: Duration, now: Timestamp) -> Duration {
    until_multiple_of(COME_BACK_EVERY, wait, now)
}

/// Returns for how long a delayed call is handed back that is due after `rest`: until then and at
/// most [`DUE_EVERY`] longer, or for a part of it. `chance`, from 0 to 1, is for the jitter.
pub(crate) fn hand_back_for(rest: Duration, now: Timestamp, chance: f64) -> Duration {
    if rest <= MAX_HAND_BACK {
        return until_multiple_of(DUE_EVERY, rest, now);
    }
    // Calls that were submitted together do not come back together.
    let part = MAX_HAND_BACK.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0);
    let part = part.saturating_sub(COUNT_EVERY);
    until_multiple_of(COUNT_EVERY, part, now)
}

/// Returns the shortest wait of at least `wait` that ends at a multiple of `step` since 1970.
fn until_multiple_of(step: Duration, wait: Duration, now: Timestamp) -> Duration {
    let since_1970 = Duration::try_from(now.as_duration()).unwrap_or_default();
    let (end, step) = ((since_1970 + wait).as_nanos(), step.as_nanos());
    let rest = end.next_multiple_of(step) - end;
    wait + u64::try_from(rest).map_or(Duration::ZERO, Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use asyncqueue::duration::MAX_DURATION;
    use proptest::prelude::*;

    use super::*;

    fn policy(backoff: Backoff, jitter: Jitter) -> BackoffPolicy {
        BackoffPolicy {
            min: Duration::from_secs(10),
            max: Duration::from_secs(120),
            backoff,
            jitter,
        }
    }

    #[test]
    fn waits_double_up_to_the_maximum() {
        let policy = policy(Backoff::Exponential, Jitter::None);
        let seconds: Vec<u64> =
            (1..=6).map(|attempt| policy.wait_after(attempt, 0.5).as_secs()).collect();
        assert_eq!(seconds, [10, 20, 40, 80, 120, 120]);
    }

    #[test]
    fn static_waits_stay_the_same() {
        let policy = policy(Backoff::Static, Jitter::None);
        assert_eq!(policy.wait_after(1, 0.0), policy.wait_after(99, 1.0));
    }

    #[test]
    fn jitter_is_a_share_of_the_wait() {
        let full = policy(Backoff::Static, Jitter::Full);
        assert_eq!((full.wait_after(1, 0.0).as_secs(), full.wait_after(1, 1.0).as_secs()), (0, 10));
        let equal = policy(Backoff::Static, Jitter::Equal);
        assert_eq!(
            (equal.wait_after(1, 0.0).as_secs(), equal.wait_after(1, 1.0).as_secs()),
            (5, 10)
        );
    }

    #[test]
    fn what_is_put_off_waits_a_second_up_to_a_minute() {
        let seconds: Vec<_> =
            (1..=8).map(|times| PUT_OFF.wait_after(times, 1.0).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(PUT_OFF.wait_after(u64::MAX, 0.0).as_secs(), 30);
    }

    #[test]
    fn waits_end_together() {
        let now: Timestamp = "2026-11-29T19:00:00.3Z".parse().unwrap();
        for (wait, longer) in [(100, 700), (700, 700), (701, 1700), (5_200, 5_700)] {
            let [wait, longer] = [wait, longer].map(Duration::from_millis);
            assert_eq!(until_others_come(wait, now), longer);
        }
    }

    proptest! {
        #[test]
        fn delayed_call_comes_back_when_it_is_due_or_well_before(
            millis in 1..30_000_000_u64,
            now in 0..100_000_i64,
            chance in 0.0..1.0,
        ) {
            let (rest, now) =
                (Duration::from_millis(millis), Timestamp::from_millisecond(now).unwrap());
            let wait = hand_back_for(rest, now, chance);
            prop_assert!(wait <= MAX_HAND_BACK + DUE_EVERY, "{wait:?}");
            if rest <= MAX_HAND_BACK {
                prop_assert!(rest <= wait && wait < rest + DUE_EVERY, "{rest:?} {wait:?}");
            } else {
                prop_assert!(wait + COUNT_EVERY >= MAX_HAND_BACK / 2 && wait <= rest, "{wait:?}");
            }
        }

        #[test]
        fn no_wait_exceeds_the_maximum(
            attempt: u64,
            chance in prop_oneof![0.0..1.0, Just(f64::INFINITY), Just(-1.0)],
            min in 0..=MAX_DURATION.as_secs(),
            max in 0..=MAX_DURATION.as_secs(),
        ) {
            for backoff in [Backoff::Exponential, Backoff::Static] {
                for jitter in [Jitter::None, Jitter::Full, Jitter::Equal] {
                    let (min, max) = (Duration::from_secs(min), Duration::from_secs(max));
                    let policy = BackoffPolicy { min, max, backoff, jitter };
                    let wait = policy.wait_after(attempt, chance);
                    prop_assert!(wait <= max);
                }
            }
        }
    }
}
