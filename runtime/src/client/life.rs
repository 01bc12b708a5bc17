//! Decides how long a connection is used. Pure.

use std::time::Instant;

use super::ConnectionLimits;

/// The part of a limit that is random, so that connections that were opened together are not all
/// replaced together.
const JITTER: f64 = 0.25;

/// The remaining life of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    ends_at: Instant,
    requests_left: u32,
}

impl Life {
    /// Creates the life of a connection that is opened now for its first request. `chance` is from
    /// 0 to 1.
    pub(super) fn new(limits: ConnectionLimits, now: Instant, chance: f64) -> Self {
        let share = 1.0 - JITTER * chance.clamp(0.0, 1.0);
        let requests = (f64::from(limits.max_requests) * share).ceil();
        // Between 0 and the limit, which is a u32.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let requests = requests as u32;
        Self { ends_at: now + limits.max_age.mul_f64(share), requests_left: requests.max(1) }
    }

    /// Counts a request that was answered.
    pub(super) fn count(&mut self) {
        self.requests_left = self.requests_left.saturating_sub(1);
    }

    /// Returns whether the connection must not be used any more.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.requests_left == 0 || now >= self.ends_at
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LIMITS: ConnectionLimits =
        ConnectionLimits { max_age: Duration::from_secs(40), max_requests: 100 };

    fn requests(mut life: Life, now: Instant) -> u32 {
        let mut requests = 0;
        while !life.is_over(now) {
            life.count();
            requests += 1;
        }
        requests
    }

    #[test]
    fn no_life_is_longer_than_its_limits_or_shorter_by_more_than_a_quarter() {
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        let longest = Life::new(LIMITS, now, 0.0);
        assert!(!longest.is_over(after(39)) && longest.is_over(after(40)));
        assert_eq!(requests(longest, now), 100);
        let shortest = Life::new(LIMITS, now, 1.0);
        assert!(!shortest.is_over(after(29)) && shortest.is_over(after(30)));
        assert_eq!(requests(shortest, now), 75);
    }

    #[test]
    fn a_limit_of_one_request_is_one_request() {
        let limits = ConnectionLimits { max_requests: 1, ..LIMITS };
        let now = Instant::now();
        assert_eq!(requests(Life::new(limits, now, 1.0), now), 1);
    }
}
