//! Limits the failed logins of an address.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

/// Maximum number of failed logins of an address within [`WINDOW`].
pub(super) const MAX_FAILURES: u32 = 10;

const WINDOW: Duration = Duration::from_secs(60);

/// Maximum number of addresses that are remembered. Beyond it, further addresses wait.
const MAX_ADDRESSES: usize = 10_000;

/// The failed logins by address.
#[derive(Debug, Default)]
pub(super) struct FailureLimit {
    addresses: HashMap<IpAddr, Failures>,
}

#[derive(Debug)]
struct Failures {
    count: u32,
    since: Instant,
}

// === impl FailureLimit ===

impl FailureLimit {
    /// Returns whether the address has to wait before its next login.
    pub(super) fn is_exceeded(&mut self, address: IpAddr, now: Instant) -> bool {
        let key = network(address);
        if !self.addresses.contains_key(&key) && self.addresses.len() >= MAX_ADDRESSES {
            self.addresses.retain(|_, failures| failures.is_recent(now));
            return self.addresses.len() >= MAX_ADDRESSES;
        }
        let failures = self.addresses.get(&key).filter(|failures| failures.is_recent(now));
        failures.is_some_and(|failures| failures.count >= MAX_FAILURES)
    }

    /// Counts a failed login.
    pub(super) fn add(&mut self, address: IpAddr, now: Instant) {
        let failures =
            self.addresses.entry(network(address)).or_insert(Failures { count: 0, since: now });
        if !failures.is_recent(now) {
            *failures = Failures { count: 0, since: now };
        }
        failures.count += 1;
    }

    /// Forgets the failures of an address that has logged in.
    pub(super) fn forgive(&mut self, address: IpAddr) {
        self.addresses.remove(&network(address));
    }
}

impl Failures {
    fn is_recent(&self, now: Instant) -> bool {
        now.duration_since(self.since) < WINDOW
    }
}

/// Returns what is counted as one address: of IPv6, the network that one client has.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_waits_after_failures_and_only_for_a_while() {
        let (address, now) = (IpAddr::from([10, 0, 0, 1]), Instant::now());
        let mut limit = FailureLimit::default();
        for _ in 0..MAX_FAILURES {
            assert!(!limit.is_exceeded(address, now));
            limit.add(address, now);
        }
        assert!(limit.is_exceeded(address, now));
        assert!(!limit.is_exceeded(IpAddr::from([10, 0, 0, 2]), now));
        assert!(!limit.is_exceeded(address, now + WINDOW));
        limit.add(address, now + WINDOW);
        assert!(!limit.is_exceeded(address, now + WINDOW));
        limit.forgive(address);
        assert!(limit.addresses.is_empty());
    }

    #[test]
    fn addresses_of_one_ipv6_network_count_together() {
        let (first, second) = ("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap());
        assert_eq!(network(first), network(second));
        assert_ne!(network(first), network("fd00:0:0:1::1".parse().unwrap()));
    }

    #[test]
    fn number_of_addresses_is_bounded() {
        let (now, mut limit) = (Instant::now(), FailureLimit::default());
        let addresses = || (0..=u32::try_from(MAX_ADDRESSES).unwrap()).map(u32::to_be_bytes);
        for address in addresses().map(IpAddr::from) {
            if !limit.is_exceeded(address, now) {
                limit.add(address, now);
            }
        }
        assert_eq!(limit.addresses.len(), MAX_ADDRESSES);
        let new = IpAddr::from([9, 9, 9, 9]);
        assert!(limit.is_exceeded(new, now));
        assert!(!limit.is_exceeded(new, now + WINDOW));
    }
}
