//! Evaluates and changes a Lease. Pure.
//!
//! The rules are those of client-go's `leaderelection`: a lease has expired when it has not changed
//! for its duration, by the clock of the observer. The times in it are only information for users,
//! since the clocks of nodes may differ.

use std::time::{Duration, Instant};

use k8s_openapi::{
    api::coordination::v1::LeaseSpec, apimachinery::pkg::apis::meta::v1::MicroTime, jiff::Timestamp,
};

/// Duration of a lease after its last renewal. If a leader dies without releasing it, no operator
/// leads for that long.
pub(super) const LEASE_DURATION: Duration = Duration::from_secs(15);

/// A Lease, and the time since which this operator has not seen it change.
#[derive(Clone, Debug)]
pub(super) struct ObservedLease {
    spec: LeaseSpec,
    since: Instant,
}

// === impl ObservedLease ===

impl ObservedLease {
    /// Returns the Lease as it is now, given the previous observation.
    pub(super) fn new(spec: LeaseSpec, previous: Option<Self>, now: Instant) -> Self {
        match previous {
            Some(previous) if previous.spec == spec => previous,
            _ => Self { spec, since: now },
        }
    }

    /// Returns the holder; `None` if the Lease has no holder or has expired.
    pub(super) fn holder(&self, now: Instant) -> Option<&str> {
        let holder = self.spec.holder_identity.as_deref().filter(|holder| !holder.is_empty())?;
        (now.duration_since(self.since) < duration(&self.spec)).then_some(holder)
    }
}

/// Returns the duration of a lease, as its holder has set it.
fn duration(spec: &LeaseSpec) -> Duration {
    let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    seconds.map_or(LEASE_DURATION, Duration::from_secs)
}

/// Returns the lease, acquired or renewed by `identity`.
pub(super) fn claim(previous: &LeaseSpec, identity: &str, now: Timestamp) -> LeaseSpec {
    let renewal = previous.holder_identity.as_deref() == Some(identity);
    LeaseSpec {
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: i32::try_from(LEASE_DURATION.as_secs()).ok(),
        renew_time: Some(MicroTime(now)),
        acquire_time: previous.acquire_time.clone().filter(|_| renewal).or(Some(MicroTime(now))),
        lease_transitions: Some(
            previous.lease_transitions.unwrap_or_default() + i32::from(!renewal),
        ),
        ..previous.clone()
    }
}

/// Returns the lease, released.
pub(super) fn release(previous: &LeaseSpec, now: Timestamp) -> LeaseSpec {
    LeaseSpec {
        holder_identity: Some(String::new()),
        renew_time: Some(MicroTime(now)),
        ..previous.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn held_by(identity: &str) -> LeaseSpec {
        claim(&LeaseSpec::default(), identity, at(100))
    }

    #[test]
    fn a_lease_expires_when_it_is_not_renewed() {
        let start = Instant::now();
        let observed = ObservedLease::new(held_by("a"), None, start);
        assert_eq!(observed.holder(start), Some("a"));
        // The age of an unchanged lease continues.
        let observed = ObservedLease::new(held_by("a"), Some(observed), start + LEASE_DURATION / 2);
        assert_eq!(observed.holder(start + LEASE_DURATION), None);
        let renewed = claim(&held_by("a"), "a", at(105));
        let observed = ObservedLease::new(renewed, Some(observed), start + LEASE_DURATION / 2);
        assert_eq!(observed.holder(start + LEASE_DURATION), Some("a"));
    }

    #[test]
    fn clock_differences_do_not_matter() {
        let start = Instant::now();
        let long_ago = claim(&LeaseSpec::default(), "a", at(0));
        assert_eq!(ObservedLease::new(long_ago, None, start).holder(start), Some("a"));
    }

    #[test]
    fn a_released_lease_is_free_at_once() {
        let start = Instant::now();
        let free = release(&held_by("a"), at(101));
        assert_eq!(ObservedLease::new(free, None, start).holder(start), None);
        assert_eq!(ObservedLease::new(LeaseSpec::default(), None, start).holder(start), None);
    }

    #[test]
    fn the_holder_sets_the_duration() {
        let start = Instant::now();
        let lease = LeaseSpec { lease_duration_seconds: Some(60), ..held_by("a") };
        let observed = ObservedLease::new(lease, None, start);
        assert_eq!(observed.holder(start + Duration::from_secs(59)), Some("a"));
        assert_eq!(observed.holder(start + Duration::from_secs(60)), None);
    }

    #[test]
    fn a_renewal_is_not_a_transition() {
        let first = held_by("a");
        assert_eq!(
            (first.lease_transitions, first.acquire_time.clone()),
            (Some(1), Some(MicroTime(at(100))))
        );
        let renewed = claim(&first, "a", at(105));
        assert_eq!(
            (renewed.lease_transitions, renewed.acquire_time),
            (Some(1), Some(MicroTime(at(100))))
        );
        assert_eq!(renewed.renew_time, Some(MicroTime(at(105))));
        let taken = claim(&release(&first, at(106)), "b", at(110));
        assert_eq!(
            (taken.lease_transitions, taken.acquire_time),
            (Some(2), Some(MicroTime(at(110))))
        );
    }
}
