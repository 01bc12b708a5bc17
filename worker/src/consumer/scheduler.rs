//! Decides from which lane to request messages: round robin between the lanes that have some.
//!
//! Of a lane with pending messages, as many are requested as it has turns among the free slots. Of
//! a lane without any, one message is requested, and the request stays open: so the next message of
//! the lane arrives at once, also while the backlog of another lane fills the slots. It then has
//! the next free slot. A worker whose slots are all taken sends no request, and its open ones
//! expire.
//!
//! Of a lane whose functions have limits, no more is requested than the lane may have in hand: a
//! lane at its limit has no turn and takes no slot.
//!
//! Pure: the time is a value.

use std::time::Duration;

use tokio::time::Instant;

/// How long a request for pending messages counts as filled, until they arrive. After that, other
/// workers may have them.
const FILL_TIME: Duration = Duration::from_millis(20);

/// Interval of the steps in which requests to idle lanes are sent. Each step doubles the open ones:
/// if all of these lanes have messages, few arrive without a free slot.
const STEP_INTERVAL: Duration = Duration::from_millis(5);

/// Identifies a lane of this worker. Never used again for another lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LaneId(pub(crate) u64);

/// A request to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LaneRequest {
    pub(crate) lane: LaneId,
    pub(crate) batch: usize,
}

/// The lanes of a queue, and what was requested of them.
#[derive(Debug, Default)]
pub(crate) struct Scheduler {
    lanes: Vec<Lane>,
    /// The lane that has the next turn.
    turn: usize,
    /// How many messages of that lane were requested in its turn.
    taken: u32,
    last_step: Option<Instant>,
}

#[derive(Debug)]
struct Lane {
    id: LaneId,
    /// Number of messages of its turn.
    weight: u32,
    /// Maximum number of messages that were requested or are in hand.
    max_in_hand: usize,
    /// Messages that have arrived and are not settled.
    in_hand: usize,
    /// Messages that are not delivered, as the server said last, less those requested since then.
    pending: u64,
    /// Messages that were requested and have not arrived.
    outstanding: usize,
    /// When messages were requested last.
    requested_at: Option<Instant>,
    /// How many of the outstanding ones are expected to arrive within [`FILL_TIME`].
    expected: usize,
}

// === impl Scheduler ===

impl Scheduler {
    /// Adds a lane with so many pending messages.
    pub(crate) fn add(&mut self, id: LaneId, pending: u64) {
        self.lanes.push(Lane {
            id,
            weight: 1,
            max_in_hand: usize::MAX,
            in_hand: 0,
            pending,
            outstanding: 0,
            requested_at: None,
            expected: 0,
        });
    }

    /// Changes the number of messages of a lane's turn.
    pub(crate) fn set_weight(&mut self, id: LaneId, weight: u32) {
        if let Some(lane) = self.lane(id) {
            lane.weight = weight.max(1);
        }
    }

    /// Changes how many messages of a lane may be requested or in hand. `max` gets the number that
    /// is in hand.
    pub(crate) fn set_max_in_hand(&mut self, id: LaneId, max: impl FnOnce(usize) -> usize) {
        if let Some(lane) = self.lane(id) {
            lane.max_in_hand = max(lane.in_hand);
        }
    }

    /// Returns whether a lane has messages that are not requested because it is at its limit.
    pub(crate) fn is_limited(&self) -> bool {
        self.lanes.iter().any(|lane| lane.outstanding == 0 && lane.room() == 0)
    }

    /// Removes a lane.
    pub(crate) fn remove(&mut self, id: LaneId) {
        let Some(index) = self.lanes.iter().position(|lane| lane.id == id) else { return };
        self.lanes.remove(index);
        if index < self.turn {
            self.turn -= 1;
        } else if index == self.turn {
            self.taken = 0;
        }
    }

    /// Corrects the number of pending messages by what the server reports, for a lane of which
    /// nothing is requested.
    pub(crate) fn set_pending(&mut self, id: LaneId, pending: u64) {
        if let Some(lane) = self.lane(id).filter(|lane| lane.outstanding == 0) {
            lane.pending = pending;
        }
    }

    /// Returns the requests to send now, where so many slots are free.
    pub(crate) fn next_requests(&mut self, free: usize, now: Instant) -> Vec<LaneRequest> {
        let mut requests = Vec::new();
        if free == 0 {
            return requests;
        }
        let expected: usize = self.lanes.iter().map(|lane| lane.expected_at(now)).sum();
        self.request_pending(free.saturating_sub(expected), now, &mut requests);
        self.request_idle(free, now, &mut requests);
        requests
    }

    /// Returns when [`Self::next_requests`] may return others, though nothing has happened.
    pub(crate) fn next_step(&self, free: usize, now: Instant) -> Option<Instant> {
        if free == 0 {
            return None;
        }
        let has_idle = self.lanes.iter().any(Lane::is_idle);
        let step = self.last_step.filter(|_| has_idle).map(|last| last + STEP_INTERVAL);
        let fills = self.lanes.iter().filter(|lane| lane.expected_at(now) > 0);
        let fill = fills.filter_map(|lane| lane.requested_at).map(|at| at + FILL_TIME).min();
        step.into_iter().chain(fill).min()
    }

    /// Records a message of a lane, which has so many others.
    pub(crate) fn received(&mut self, id: LaneId, pending: u64) {
        if let Some(lane) = self.lane(id) {
            lane.outstanding = lane.outstanding.saturating_sub(1);
            lane.expected = lane.expected.saturating_sub(1);
            lane.in_hand += 1;
            lane.pending = pending.saturating_sub(lane.outstanding as u64);
        }
    }

    /// Records that a message of a lane was settled, or is ignored.
    pub(crate) fn finished(&mut self, id: LaneId) {
        if let Some(lane) = self.lane(id) {
            lane.in_hand = lane.in_hand.saturating_sub(1);
        }
    }

    /// Records that a message of a lane was handed back.
    pub(crate) fn handed_back(&mut self, id: LaneId) {
        self.finished(id);
        if let Some(lane) = self.lane(id) {
            lane.pending += 1;
        }
    }

    /// Records that a request ended with this many messages not sent: the lane has no others. The
    /// server also reports the end of a request that was filled.
    pub(crate) fn expired(&mut self, id: LaneId, unfilled: usize) {
        if let Some(lane) = self.lane(id).filter(|_| unfilled > 0) {
            lane.outstanding = lane.outstanding.saturating_sub(unfilled);
            lane.expected = lane.expected.min(lane.outstanding);
            if lane.outstanding == 0 {
                lane.pending = 0;
            }
        }
    }

    /// Records that all requests to a lane are void.
    pub(crate) fn reset(&mut self, id: LaneId) {
        if let Some(lane) = self.lane(id) {
            (lane.outstanding, lane.expected) = (0, 0);
        }
    }

    /// Returns the lanes whose requests should have been answered by now, and were not.
    pub(crate) fn overdue(&self, timeout: Duration, now: Instant) -> Vec<LaneId> {
        let is_overdue = |lane: &&Lane| {
            lane.outstanding > 0 && lane.requested_at.is_some_and(|at| now > at + timeout)
        };
        self.lanes.iter().filter(is_overdue).map(|lane| lane.id).collect()
    }

    pub(crate) fn has_outstanding(&self) -> bool {
        self.lanes.iter().any(|lane| lane.outstanding > 0)
    }

    fn lane(&mut self, id: LaneId) -> Option<&mut Lane> {
        self.lanes.iter_mut().find(|lane| lane.id == id)
    }

    /// Requests messages of lanes that have some, each lane in its turn.
    fn request_pending(&mut self, mut room: usize, now: Instant, requests: &mut Vec<LaneRequest>) {
        let mut batches = vec![0; self.lanes.len()];
        let mut passed = 0;
        // The lane that was served last may be the only one.
        while room > 0 && !self.lanes.is_empty() && passed <= self.lanes.len() {
            self.turn %= self.lanes.len();
            let lane = &mut self.lanes[self.turn];
            // A lane has one request at a time, which brings its next messages.
            let has_room = lane.room() > batches[self.turn];
            let can_request = lane.pending > 0 && lane.outstanding == 0 && has_room;
            if can_request && self.taken < lane.weight {
                lane.pending -= 1;
                batches[self.turn] += 1;
                self.taken += 1;
                room -= 1;
                passed = 0;
            } else {
                self.turn += 1;
                self.taken = 0;
                passed += 1;
            }
        }
        for (lane, batch) in self.lanes.iter_mut().zip(batches).filter(|(_, batch)| *batch > 0) {
            lane.request(batch, now);
            lane.expected = batch;
            requests.push(LaneRequest { lane: lane.id, batch });
        }
    }

    /// Requests one message of lanes that have none, in steps.
    fn request_idle(&mut self, free: usize, now: Instant, requests: &mut Vec<LaneRequest>) {
        if self.last_step.is_some_and(|last| now < last + STEP_INTERVAL) {
            return;
        }
        let open = self.lanes.iter().filter(|lane| lane.outstanding > 0).count();
        let mut idle: Vec<_> = self.lanes.iter_mut().filter(|lane| lane.is_idle()).collect();
        if idle.is_empty() {
            return;
        }
        self.last_step = Some(now);
        // A lane that often has a message does not keep the others from being asked.
        idle.sort_by_key(|lane| lane.requested_at);
        for lane in idle.into_iter().take(free.max(open)) {
            lane.request(1, now);
            requests.push(LaneRequest { lane: lane.id, batch: 1 });
        }
    }
}

// === impl Lane ===

impl Lane {
    fn expected_at(&self, now: Instant) -> usize {
        let is_recent = self.requested_at.is_some_and(|at| now < at + FILL_TIME);
        if is_recent { self.expected } else { 0 }
    }

    fn is_idle(&self) -> bool {
        self.outstanding == 0 && self.pending == 0 && self.room() > 0
    }

    /// Returns how many messages may be requested.
    fn room(&self) -> usize {
        self.max_in_hand.saturating_sub(self.in_hand + self.outstanding)
    }

    fn request(&mut self, batch: usize, now: Instant) {
        self.outstanding += batch;
        self.requested_at = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scheduler(pending: &[(u32, u64)]) -> Scheduler {
        let mut scheduler = Scheduler::default();
        for (id, (weight, pending)) in pending.iter().enumerate() {
            scheduler.add(LaneId(id as u64), *pending);
            scheduler.set_weight(LaneId(id as u64), *weight);
        }
        scheduler
    }

    fn pairs(requests: &[LaneRequest]) -> Vec<(u64, usize)> {
        requests.iter().map(|request| (request.lane.0, request.batch)).collect()
    }

    #[tokio::test]
    async fn lanes_with_messages_take_turns() {
        let (mut scheduler, now) = (scheduler(&[(1, 100), (1, 100), (1, 100)]), Instant::now());
        assert_eq!(pairs(&scheduler.next_requests(4, now)), [(0, 2), (1, 1), (2, 1)]);
        assert_eq!(pairs(&scheduler.next_requests(4, now)), []);
        for (id, count) in [(0, 2), (1, 1), (2, 1)] {
            (0..count).for_each(|_| scheduler.received(LaneId(id), 98));
        }
        // The turn continues where it was.
        assert_eq!(pairs(&scheduler.next_requests(1, now)), [(1, 1)]);
        scheduler.received(LaneId(1), 97);
        assert_eq!(pairs(&scheduler.next_requests(1, now)), [(2, 1)]);
    }

    #[tokio::test]
    async fn a_weight_is_the_length_of_a_turn() {
        let (mut scheduler, now) = (scheduler(&[(3, 100), (1, 100)]), Instant::now());
        assert_eq!(pairs(&scheduler.next_requests(8, now)), [(0, 6), (1, 2)]);
    }

    #[tokio::test]
    async fn a_lane_at_its_limit_is_not_asked() {
        let (mut scheduler, now) = (scheduler(&[(1, 100), (1, 100)]), Instant::now());
        scheduler.set_max_in_hand(LaneId(0), |_| 2);
        assert_eq!(pairs(&scheduler.next_requests(9, now)), [(0, 2), (1, 7)]);
        assert!(!scheduler.is_limited());
        for (lane, count) in [(0, 2), (1, 7)] {
            (0..count).for_each(|_| scheduler.received(LaneId(lane), 90));
        }
        assert!(scheduler.is_limited());
        // The others get its turns.
        assert_eq!(pairs(&scheduler.next_requests(3, now)), [(1, 3)]);
        scheduler.finished(LaneId(0));
        (0..3).for_each(|_| scheduler.received(LaneId(1), 87));
        assert_eq!(pairs(&scheduler.next_requests(3, now)), [(0, 1), (1, 2)]);
    }

    #[tokio::test]
    async fn an_idle_lane_at_its_limit_is_asked_when_it_has_room() {
        let (mut scheduler, now) = (scheduler(&[(1, 0)]), Instant::now());
        scheduler.set_max_in_hand(LaneId(0), |in_hand| in_hand);
        assert_eq!(pairs(&scheduler.next_requests(3, now)), []);
        assert_eq!(scheduler.next_step(3, now), None);
        scheduler.set_max_in_hand(LaneId(0), |in_hand| in_hand + 1);
        assert_eq!(pairs(&scheduler.next_requests(3, now)), [(0, 1)]);
        // Its message is handed back, and the lane may be asked again.
        scheduler.received(LaneId(0), 0);
        scheduler.handed_back(LaneId(0));
        assert_eq!(pairs(&scheduler.next_requests(3, now)), [(0, 1)]);
    }

    #[tokio::test]
    async fn an_idle_lane_stays_asked_during_a_backlog() {
        let (mut scheduler, now) = (scheduler(&[(1, 100), (1, 0)]), Instant::now());
        assert_eq!(pairs(&scheduler.next_requests(1, now)), [(0, 1), (1, 1)]);
        scheduler.received(LaneId(0), 99);
        assert_eq!(pairs(&scheduler.next_requests(0, now)), []);
        // Its message comes while no slot is free: it has the next one.
        scheduler.received(LaneId(1), 5);
        assert_eq!(pairs(&scheduler.next_requests(1, now)), [(1, 1)]);
    }

    #[tokio::test]
    async fn requests_to_idle_lanes_are_doubled_in_steps() {
        let (mut scheduler, mut now) = (scheduler(&[(1, 0); 100]), Instant::now());
        let mut steps = Vec::new();
        while let Some(step) = scheduler.next_step(1, now).or((steps.is_empty()).then_some(now)) {
            now = step;
            steps.push(scheduler.next_requests(1, now).len());
        }
        assert_eq!(steps, [1, 1, 2, 4, 8, 16, 32, 36]);
    }

    #[tokio::test]
    async fn the_end_of_a_filled_request_says_nothing_of_the_lane() {
        let (mut scheduler, now) = (scheduler(&[(1, 9)]), Instant::now());
        assert_eq!(pairs(&scheduler.next_requests(1, now)), [(0, 1)]);
        scheduler.received(LaneId(0), 8);
        scheduler.expired(LaneId(0), 0);
        assert_eq!(pairs(&scheduler.next_requests(4, now)), [(0, 4)]);
    }

    #[tokio::test]
    async fn a_busy_lane_does_not_keep_idle_ones_from_being_asked() {
        let (mut scheduler, mut now) = (scheduler(&[(1, 0); 3]), Instant::now());
        let mut asked = std::collections::BTreeSet::new();
        for _ in 0..6 {
            for request in scheduler.next_requests(1, now) {
                asked.insert(request.lane.0);
                scheduler.received(request.lane, 0);
            }
            now += STEP_INTERVAL;
        }
        assert_eq!(asked.len(), 3);
    }

    #[tokio::test]
    async fn an_expired_request_is_sent_again() {
        let (mut scheduler, now) = (scheduler(&[(1, 0)]), Instant::now());
        assert_eq!(pairs(&scheduler.next_requests(3, now)), [(0, 1)]);
        scheduler.expired(LaneId(0), 1);
        let later = now + STEP_INTERVAL;
        assert_eq!(pairs(&scheduler.next_requests(3, later)), [(0, 1)]);
        assert_eq!(scheduler.overdue(Duration::from_secs(1), later), []);
        assert_eq!(scheduler.overdue(Duration::ZERO, later + FILL_TIME), [LaneId(0)]);
        scheduler.reset(LaneId(0));
        assert!(!scheduler.has_outstanding());
        scheduler.remove(LaneId(0));
        assert_eq!(pairs(&scheduler.next_requests(3, later + STEP_INTERVAL)), []);
    }

    #[tokio::test]
    async fn slots_go_elsewhere_if_messages_do_not_come() {
        let (mut scheduler, now) = (scheduler(&[(1, 9), (1, 9)]), Instant::now());
        assert_eq!(pairs(&scheduler.next_requests(1, now)), [(0, 1)]);
        let later = scheduler.next_step(1, now).unwrap();
        assert_eq!(later, now + FILL_TIME);
        // The first lane has an open request, and is not asked again.
        assert_eq!(pairs(&scheduler.next_requests(1, later)), [(1, 1)]);
        assert_eq!(pairs(&scheduler.next_requests(1, later + FILL_TIME)), []);
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Request(usize),
        Receive(u64, u64),
        Expire(u64, usize),
        HandBack(u64),
        Finish(u64),
        Limit(u64, usize),
        Add(u64),
        Remove(u64),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let lane = 0_u64..6;
        prop_oneof![
            (0_usize..20).prop_map(Step::Request),
            (lane.clone(), 0_u64..50).prop_map(|(lane, pending)| Step::Receive(lane, pending)),
            (lane.clone(), 0_usize..5).prop_map(|(lane, unfilled)| Step::Expire(lane, unfilled)),
            lane.clone().prop_map(Step::HandBack),
            lane.clone().prop_map(Step::Finish),
            (lane.clone(), 0_usize..5).prop_map(|(lane, max)| Step::Limit(lane, max)),
            lane.clone().prop_map(Step::Add),
            lane.prop_map(Step::Remove),
            (0_u64..30).prop_map(Step::Wait),
        ]
    }

    proptest! {
        #[test]
        fn free_slots_and_idle_lanes_are_never_forgotten(
            steps in prop::collection::vec(step(), 0..200)
        ) {
            let mut scheduler = scheduler(&[(1, 3), (2, 0)]);
            let mut now = Instant::now();
            let mut next = 6;
            for step in steps {
                match step {
                    Step::Request(free) => {
                        let expected: usize =
                            scheduler.lanes.iter().map(|lane| lane.expected_at(now)).sum();
                        let requests = scheduler.next_requests(free, now);
                        let of_pending: usize =
                            scheduler.lanes.iter().map(|lane| lane.expected_at(now)).sum();
                        prop_assert!(of_pending <= free.max(expected));
                        prop_assert!(requests.iter().all(|request| request.batch > 0));
                        prop_assert!(free > 0 || requests.is_empty());
                        for request in requests {
                            let lane = scheduler.lane(request.lane).unwrap();
                            prop_assert!(lane.outstanding + lane.in_hand <= lane.max_in_hand);
                        }
                    }
                    Step::Receive(lane, pending) => scheduler.received(LaneId(lane), pending),
                    Step::Expire(lane, unfilled) => scheduler.expired(LaneId(lane), unfilled),
                    Step::HandBack(lane) => scheduler.handed_back(LaneId(lane)),
                    Step::Finish(lane) => scheduler.finished(LaneId(lane)),
                    Step::Limit(lane, max) => scheduler.set_max_in_hand(LaneId(lane), |_| max),
                    Step::Add(pending) => {
                        scheduler.add(LaneId(next), pending);
                        next += 1;
                    }
                    Step::Remove(lane) => scheduler.remove(LaneId(lane)),
                    Step::Wait(millis) => now += Duration::from_millis(millis),
                }
            }
            // With free slots and time, each lane that is not at its limit is asked.
            for _ in 0..20 {
                now += FILL_TIME;
                scheduler.next_requests(50, now);
            }
            let is_asked = |lane: &Lane| lane.outstanding > 0 || lane.room() == 0;
            prop_assert!(scheduler.lanes.iter().all(is_asked));
        }
    }
}
