//! Decides how long a connection is used. Pure.

use std::time::Instant;

use super::ConnectionLimits;

/// The part of a limit that is random, so that connections that were opened together are not all
/// replaced together.
const JITTER: f64 = 0.25;

/// The remaining lifetime of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lifetime {
    ends_at: Instant,
    requests_left: u32,
}

impl Lifetime {
    /// Creates the lifetime of a connection that is opened now for its first request. `random` is
    /// from 0 to 1.
    pub(super) fn new(limits: ConnectionLimits, now: Instant, random: f64) -> Self {
        let fraction = 1.0 - JITTER * random.clamp(0.0, 1.0);
        let requests = (f64::from(limits.max_requests) * fraction).ceil();
        // Between 0 and the limit, which is a u32.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let requests = requests as u32;
        Self { ends_at: now + limits.max_age.mul_f64(fraction), requests_left: requests.max(1) }
    }

    /// Counts a request that was answered.
    pub(super) fn count_request(&mut self) {
        self.requests_left = self.requests_left.saturating_sub(1);
    }

    /// Returns whether the connection must not be used any more.
    pub(super) fn is_expired(&self, now: Instant) -> bool {
        self.requests_left == 0 || now >= self.ends_at
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LIMITS: ConnectionLimits =
        ConnectionLimits { max_age: Duration::from_secs(40), max_requests: 100 };

    fn requests(mut lifetime: Lifetime, now: Instant) -> u32 {
        let mut requests = 0;
        while !lifetime.is_expired(now) {
            lifetime.count_request();
            requests += 1;
        }
        requests
    }

    #[test]
    fn lifetime_is_between_three_quarters_and_all_of_its_limit() {
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        let longest = Lifetime::new(LIMITS, now, 0.0);
        assert!(!longest.is_expired(after(39)) && longest.is_expired(after(40)));
        assert_eq!(requests(longest, now), 100);
        let shortest = Lifetime::new(LIMITS, now, 1.0);
        assert!(!shortest.is_expired(after(29)) && shortest.is_expired(after(30)));
        assert_eq!(requests(shortest, now), 75);
    }

    #[test]
    fn a_limit_of_one_request_is_one_request() {
        let limits = ConnectionLimits { max_requests: 1, ..LIMITS };
        let now = Instant::now();
        assert_eq!(requests(Lifetime::new(limits, now, 1.0), now), 1);
    }
}
