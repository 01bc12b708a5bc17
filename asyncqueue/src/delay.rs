//! Delayed calls: which delays a queue accepts, and when a call is due.
//!
//! A delayed call is stored like any other, with the time before which it does not run. A worker
//! that gets it earlier hands it back.

use std::time::Duration;

use jiff::Timestamp;

use crate::duration::GoDuration;

/// Default of the longest delay of a call.
pub const DEFAULT_MAX_DELAY: Duration = Duration::from_secs(7 * 24 * 3600);

/// The delays that a queue accepts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DelayLimits {
    /// The longest delay. `None`: the workers of the queue do not know delayed calls.
    pub max_delay: Option<Duration>,
    /// Maximum age of a call when it runs, if the queue has one.
    pub max_age: Option<Duration>,
}

/// A queue does not accept a delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DelayRefused {
    /// The program that writes the directory does not know delayed calls.
    #[error(
        "the queue does not take delayed calls: its operator, or the gateway that writes its \
         directory, is of an earlier version; upgrade it, or send the call without a delay"
    )]
    NotSupported,
    /// The delay is longer than the queue allows.
    #[error(
        "the call would wait for {}, and limits.maxDelay of the queue is {}: send a shorter \
         delay, or raise the limit",
        GoDuration(*.delay),
        GoDuration(*.max)
    )]
    TooLong {
        /// The delay.
        delay: Duration,
        /// The limit of the queue.
        max: Duration,
    },
    /// The call would be too old to run when it is due.
    #[error(
        "the call would wait for {}, and limits.maxAge of the queue is {}: it would expire before \
         it runs. Send a shorter delay, or raise the limit",
        GoDuration(*.delay),
        GoDuration(*.max)
    )]
    TooOld {
        /// The delay.
        delay: Duration,
        /// The limit of the queue.
        max: Duration,
    },
}

impl DelayLimits {
    /// The limits of a queue of which only the name is known.
    pub const DEFAULT: Self = Self { max_delay: Some(DEFAULT_MAX_DELAY), max_age: None };

    /// Checks the delay of a call.
    ///
    /// # Errors
    ///
    /// Fails if the queue does not accept it.
    pub fn check(self, delay: Duration) -> Result<(), DelayRefused> {
        let max = self.max_delay.ok_or(DelayRefused::NotSupported)?;
        if delay > max {
            return Err(DelayRefused::TooLong { delay, max });
        }
        match self.max_age {
            Some(max) if delay >= max => Err(DelayRefused::TooOld { delay, max }),
            _ => Ok(()),
        }
    }
}

/// Returns how long a call waits until it is due; `None` if it is due.
#[must_use]
pub fn time_until(not_before: Option<Timestamp>, now: Timestamp) -> Option<Duration> {
    let rest = Duration::try_from(not_before?.duration_since(now)).ok()?;
    (!rest.is_zero()).then_some(rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_delay_is_within_the_limits_of_its_queue() {
        let [second, minute] = [1, 60].map(Duration::from_secs);
        let limits = |max_delay, max_age| DelayLimits { max_delay, max_age };
        assert_eq!(limits(None, None).check(second), Err(DelayRefused::NotSupported));
        assert_eq!(limits(Some(minute), None).check(minute), Ok(()));
        let (delay, max) = (minute, second);
        assert_eq!(
            limits(Some(second), None).check(delay),
            Err(DelayRefused::TooLong { delay, max })
        );
        assert_eq!(limits(Some(minute), Some(minute * 2)).check(minute), Ok(()));
        let refused = limits(Some(minute * 5), Some(minute)).check(minute).unwrap_err();
        assert_eq!(refused, DelayRefused::TooOld { delay: minute, max: minute });
        assert!(refused.to_string().contains("1m, and limits.maxAge of the queue is 1m"));
        assert_eq!(DelayLimits::DEFAULT.check(DEFAULT_MAX_DELAY), Ok(()));
    }

    proptest! {
        #[test]
        fn a_call_waits_exactly_until_it_is_due(now in 0..10_000_i64, due in 0..10_000_i64) {
            let at = |millis| Timestamp::from_millisecond(millis).unwrap();
            let rest = time_until(Some(at(due)), at(now));
            prop_assert_eq!(rest.is_some(), now < due);
            if let Some(rest) = rest {
                prop_assert_eq!(at(now) + rest, at(due));
            }
            prop_assert_eq!(time_until(None, at(now)), None);
        }
    }
}
