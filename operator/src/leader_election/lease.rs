//! Evaluates and changes a Lease for a candidate. Pure.
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
pub(super) const DURATION: Duration = Duration::from_secs(15);

/// A Lease, and the time since which it has not changed.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    spec: LeaseSpec,
    since: Instant,
}

// === impl Seen ===

impl Seen {
    /// Returns the Lease as it is now, given how it was seen before.
    pub(super) fn new(spec: LeaseSpec, before: Option<Self>, now: Instant) -> Self {
        match before {
            Some(before) if before.spec == spec => before,
            _ => Self { spec, since: now },
        }
    }

    /// Returns the holder; `None` if the Lease has no holder or has expired.
    pub(super) fn leader(&self, now: Instant) -> Option<&str> {
        let holder = self.spec.holder_identity.as_deref().filter(|holder| !holder.is_empty())?;
        (now.duration_since(self.since) < duration(&self.spec)).then_some(holder)
    }
}

/// Returns the duration of a lease, as its holder has set it.
fn duration(spec: &LeaseSpec) -> Duration {
    let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    seconds.map_or(DURATION, Duration::from_secs)
}

/// Returns the lease, taken or renewed by `me`.
pub(super) fn claim(before: &LeaseSpec, me: &str, now: Timestamp) -> LeaseSpec {
    let renewal = before.holder_identity.as_deref() == Some(me);
    LeaseSpec {
        holder_identity: Some(me.to_owned()),
        lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
        renew_time: Some(MicroTime(now)),
        acquire_time: before.acquire_time.clone().filter(|_| renewal).or(Some(MicroTime(now))),
        lease_transitions: Some(before.lease_transitions.unwrap_or_default() + i32::from(!renewal)),
        ..before.clone()
    }
}

/// Returns the lease, released.
pub(super) fn release(before: &LeaseSpec, now: Timestamp) -> LeaseSpec {
    LeaseSpec {
        holder_identity: Some(String::new()),
        renew_time: Some(MicroTime(now)),
        ..before.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn held_by(me: &str) -> LeaseSpec {
        claim(&LeaseSpec::default(), me, at(100))
    }

    #[test]
    fn a_lease_is_over_when_it_was_not_renewed_for_as_long_as_it_lasts() {
        let start = Instant::now();
        let seen = Seen::new(held_by("a"), None, start);
        assert_eq!(seen.leader(start), Some("a"));
        // The age of an unchanged lease continues.
        let seen = Seen::new(held_by("a"), Some(seen), start + DURATION / 2);
        assert_eq!(seen.leader(start + DURATION), None);
        let renewed = claim(&held_by("a"), "a", at(105));
        let seen = Seen::new(renewed, Some(seen), start + DURATION / 2);
        assert_eq!(seen.leader(start + DURATION), Some("a"));
    }

    #[test]
    fn clocks_that_differ_do_not_matter() {
        let start = Instant::now();
        let long_ago = claim(&LeaseSpec::default(), "a", at(0));
        assert_eq!(Seen::new(long_ago, None, start).leader(start), Some("a"));
    }

    #[test]
    fn a_lease_that_was_given_up_is_free_at_once() {
        let start = Instant::now();
        let free = release(&held_by("a"), at(101));
        assert_eq!(Seen::new(free, None, start).leader(start), None);
        assert_eq!(Seen::new(LeaseSpec::default(), None, start).leader(start), None);
    }

    #[test]
    fn whoever_holds_it_says_how_long_it_lasts() {
        let start = Instant::now();
        let lease = LeaseSpec { lease_duration_seconds: Some(60), ..held_by("a") };
        let seen = Seen::new(lease, None, start);
        assert_eq!(seen.leader(start + Duration::from_secs(59)), Some("a"));
        assert_eq!(seen.leader(start + Duration::from_secs(60)), None);
    }

    #[test]
    fn a_renewal_is_no_transition() {
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
