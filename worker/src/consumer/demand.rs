//! Computes how many messages to request: never more than there are free slots.

/// Counts what runs and what was requested. It guarantees `running + outstanding <= max`, as long
/// as the server sends no more than was requested, and `max` is not lowered below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Demand {
    max: usize,
    running: usize,
    outstanding: usize,
    /// Maximum number of requested messages. Unlike `max`, it voids no requests.
    ahead: usize,
}

impl Demand {
    pub(crate) fn new(max: usize) -> Self {
        Self { max, running: 0, outstanding: 0, ahead: usize::MAX }
    }

    /// Changes the number of slots. Returns whether more was requested than is free now: the
    /// requests must then be made void.
    #[must_use]
    pub(crate) fn set_max(&mut self, max: usize) -> bool {
        self.max = max;
        self.outstanding > max.saturating_sub(self.running)
    }

    /// Changes how many messages may be requested at most. Returns whether this keeps some of the
    /// free slots from being requested.
    pub(crate) fn set_ahead(&mut self, ahead: usize) -> bool {
        self.ahead = ahead;
        ahead < self.max.saturating_sub(self.running)
    }

    /// Returns how many messages to request now, if any.
    ///
    /// Free slots are not requested one by one: a server keeps a limited number of requests of a
    /// consumer. Messages are requested once half of the free slots are not covered. So a worker
    /// has at most a handful of open requests, and while one of them is open, the next message
    /// arrives without delay.
    pub(crate) fn next_batch(&mut self) -> Option<usize> {
        let free = self.max.saturating_sub(self.running).min(self.ahead);
        if free == 0 || self.outstanding * 2 > free {
            return None;
        }
        let batch = free - self.outstanding;
        self.outstanding = free;
        Some(batch)
    }

    /// Records that a message arrived. Returns `false` if there is no slot for it.
    pub(crate) fn received(&mut self) -> bool {
        self.outstanding = self.outstanding.saturating_sub(1);
        let fits = self.running < self.max;
        if fits {
            self.running += 1;
        }
        fits
    }

    /// Records that this many calls have ended.
    pub(crate) fn finished(&mut self, calls: usize) {
        self.running = self.running.saturating_sub(calls);
    }

    /// Records that a request ended with this many messages not sent.
    pub(crate) fn expired(&mut self, unfilled: usize) {
        self.outstanding = self.outstanding.saturating_sub(unfilled);
    }

    /// Records that all requests are void.
    pub(crate) fn reset_outstanding(&mut self) {
        self.outstanding = 0;
    }

    pub(crate) fn running(&self) -> usize {
        self.running
    }

    pub(crate) fn has_outstanding(&self) -> bool {
        self.outstanding > 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_slot_requests_one_message_at_a_time() {
        let mut demand = Demand::new(1);
        assert_eq!(demand.next_batch(), Some(1));
        assert_eq!(demand.next_batch(), None);
        assert!(demand.received());
        assert_eq!(demand.next_batch(), None);
        demand.finished(1);
        assert_eq!(demand.next_batch(), Some(1));
    }

    #[test]
    fn an_expired_request_is_repeated() {
        let mut demand = Demand::new(4);
        assert_eq!(demand.next_batch(), Some(4));
        assert!(demand.received());
        demand.expired(3);
        assert_eq!(demand.next_batch(), Some(3));
    }

    #[test]
    fn a_lower_maximum_voids_requests_that_exceed_it() {
        let mut demand = Demand::new(5);
        assert_eq!(demand.next_batch(), Some(5));
        assert!(demand.received() && demand.received() && demand.received());
        assert!(!demand.set_max(6) && !demand.set_max(5), "3 run and 2 are requested");
        assert!(demand.set_max(2));
        demand.reset_outstanding();
        demand.finished(1);
        assert_eq!((demand.next_batch(), demand.running()), (None, 2));
        assert!(!demand.received(), "no slot is free");
        demand.finished(1);
        assert_eq!(demand.next_batch(), Some(1));
    }

    #[test]
    fn no_more_is_requested_than_may_wait() {
        let mut demand = Demand::new(10);
        assert!(demand.set_ahead(2));
        assert_eq!((demand.next_batch(), demand.next_batch()), (Some(2), None));
        assert!(demand.received() && demand.set_ahead(0));
        assert_eq!(demand.next_batch(), None);
        assert!(demand.received() && !demand.set_ahead(8));
        assert_eq!(demand.next_batch(), Some(8));
    }

    #[test]
    fn a_higher_maximum_is_requested_at_once() {
        let mut demand = Demand::new(1);
        assert_eq!(demand.next_batch(), Some(1));
        assert!(demand.received() && !demand.set_max(5));
        assert_eq!(demand.next_batch(), Some(4));
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Request,
        Receive,
        Finish,
        Expire(usize),
        Reset,
        SetMax(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            Just(Step::Request),
            Just(Step::Receive),
            Just(Step::Finish),
            (0_usize..5).prop_map(Step::Expire),
            Just(Step::Reset),
            (1_usize..64).prop_map(Step::SetMax)
        ]
    }

    proptest! {
        #[test]
        fn demand_never_exceeds_the_slots(
            max in 1_usize..64,
            steps in prop::collection::vec(step(), 0..200)
        ) {
            let (mut demand, mut max) = (Demand::new(max), max);
            for step in steps {
                let before = demand.running;
                match step {
                    Step::Request => {
                        demand.next_batch();
                        // Never stuck: with a free slot, a message is requested.
                        prop_assert!(demand.has_outstanding() || demand.running() >= max);
                    }
                    // The server sends only what was requested.
                    Step::Receive if demand.has_outstanding() => prop_assert!(demand.received()),
                    Step::Receive => {}
                    Step::Finish => demand.finished(1),
                    Step::Expire(n) => demand.expired(n),
                    Step::Reset => demand.reset_outstanding(),
                    Step::SetMax(new) => {
                        max = new;
                        if demand.set_max(max) {
                            demand.reset_outstanding();
                        }
                    }
                }
                // Calls that run when the maximum is lowered continue, and no other one starts
                // until there is room.
                prop_assert!(demand.running <= max.max(before));
                prop_assert!(demand.outstanding <= max.saturating_sub(demand.running));
            }
        }
    }
}
