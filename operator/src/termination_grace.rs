//! Computes how long the pods of workers have to end. Pure.

use std::time::Duration;

use asyncqueue_runtime::contract::GRACE_MARGIN;

/// Additional time until the kubelet kills a worker, so that it can still hand back unfinished
/// calls.
const KILL_MARGIN: Duration = Duration::from_secs(5);

/// The default for short time limits: a time limit may be raised up to about this time without a
/// new pod template.
const DEFAULT_MIN: Duration = Duration::from_secs(5 * 60);

/// The termination grace period of a pod, in whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TerminationGrace(u64);

// === impl TerminationGrace ===

impl TerminationGrace {
    /// Returns the grace period of pods in which an invocation takes up to `timeout`. `own` is what
    /// the spec says, and `current` what the pod template has now.
    ///
    /// Without `own`, a longer current one is kept: a shorter one would be another template, for
    /// which all workers would be replaced.
    pub(crate) fn new(timeout: Duration, own: Option<Duration>, current: Option<Self>) -> Self {
        let required = timeout + GRACE_MARGIN + KILL_MARGIN;
        match own {
            Some(own) => Self::rounded_up(own.max(required)),
            None => Self::rounded_up(required.max(DEFAULT_MIN)).max(current.unwrap_or(Self(0))),
        }
    }

    /// Returns the grace period of a pod template.
    pub(crate) fn from_seconds(seconds: i64) -> Option<Self> {
        u64::try_from(seconds).ok().map(Self)
    }

    /// Returns it as a pod template has it.
    pub(crate) fn seconds(self) -> Option<i64> {
        i64::try_from(self.0).ok()
    }

    /// Returns how long the worker itself waits for its running calls.
    pub(crate) fn of_worker(self) -> Duration {
        Duration::from_secs(self.0).saturating_sub(KILL_MARGIN)
    }

    /// Rounds up, so that a worker never gets less than its time.
    fn rounded_up(grace: Duration) -> Self {
        Self(grace.as_secs() + u64::from(grace.subsec_nanos() > 0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(timeout: u64, own: Option<u64>, current: Option<i64>) -> u64 {
        let current = current.and_then(TerminationGrace::from_seconds);
        let own = own.map(Duration::from_secs);
        TerminationGrace::new(Duration::from_secs(timeout), own, current).0
    }

    #[test]
    fn pods_have_the_time_limit_and_margins_or_five_minutes() {
        assert_eq!(seconds(60, None, None), 300);
        assert_eq!(seconds(285, None, None), 300);
        assert_eq!(seconds(286, None, None), 301);
        assert_eq!(seconds(900, None, None), 915);
        let odd = TerminationGrace::new(Duration::from_millis(300_500), None, None);
        assert_eq!((odd.0, odd.of_worker().as_secs()), (316, 311));
    }

    #[test]
    fn a_shorter_time_limit_keeps_the_pods() {
        assert_eq!(seconds(60, None, Some(915)), 915);
        assert_eq!(seconds(1200, None, Some(915)), 1215);
        // Pods of an earlier version had the time limit alone.
        assert_eq!(seconds(60, None, Some(75)), 300);
    }

    #[test]
    fn the_own_value_of_a_queue_applies_as_it_is() {
        assert_eq!(seconds(60, Some(90), Some(915)), 90);
        assert_eq!(seconds(60, Some(1200), Some(300)), 1200);
        // The API server refuses less. No call is cut short in any case.
        assert_eq!(seconds(900, Some(60), None), 915);
    }

    proptest! {
        #[test]
        fn no_invocation_outlives_its_worker(
            timeout in 1_u64..90_000_000, own: Option<u32>, current: Option<u32>
        ) {
            let timeout = Duration::from_millis(timeout);
            let own = own.map(|own| Duration::from_secs(own.into()));
            let current = current.map(|current| TerminationGrace(current.into()));
            let grace = TerminationGrace::new(timeout, own, current);
            prop_assert!(grace.of_worker() >= timeout + GRACE_MARGIN);
            // What fits stays as it is.
            let again = TerminationGrace::new(timeout, None, Some(grace));
            prop_assert!(own.is_some() || again == grace);
        }
    }
}
