//! Learns how many invocations of a function may be open, from the calls that the function refuses.
//! Pure.
//!
//! The limit grows while it is used and nothing is refused: by one for each call until the first
//! refusal, later by one in the time of a call, and faster the longer nothing is refused. Upon a
//! refusal it falls to nine tenths of what runs, once in the time of a call: what was started
//! before cannot show whether the lower limit is right. Further refusals of such calls lower it to
//! what still runs.

use std::time::{Duration, Instant};

/// Factor of what runs when a call is refused.
const DECREASE: f64 = 0.9;

/// Maximum of the limit. A worker runs no more calls.
const MAX_LIMIT: f64 = 10_000.0;

/// Pause after a refusal while no other call runs. It doubles with each such refusal.
const MIN_PAUSE: Duration = Duration::from_millis(100);

/// Maximum of that pause.
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// The limit of one function in one worker.
#[derive(Clone, Debug)]
pub(super) struct AdaptiveLimit {
    limit: f64,
    /// Whether a call was ever refused.
    was_refused: bool,
    /// How often the limit has fallen.
    falls: u64,
    /// Number of rounds. A round ends with a call that was started in it.
    round: u64,
    /// Number of rounds since the last refusal.
    quiet_rounds: u32,
    /// The limit at the start of this round.
    round_limit: u32,
    /// Maximum number of open invocations in this round.
    peak: u32,
    /// Whether the limit of the last round was reached. Calls that end together are counted in the
    /// next one.
    was_used: bool,
    /// Number of refusals in a row while no other call ran.
    refused_alone: u32,
    /// No invocation starts before this.
    closed_until: Option<Instant>,
}

/// When an invocation was started, as its end is judged by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Started {
    falls: u64,
    round: u64,
}

// === impl AdaptiveLimit ===

impl AdaptiveLimit {
    /// Creates a limit of one invocation.
    pub(super) fn new() -> Self {
        Self {
            limit: 1.0,
            was_refused: false,
            falls: 0,
            round: 0,
            quiet_rounds: 0,
            round_limit: 1,
            peak: 0,
            was_used: false,
            refused_alone: 0,
            closed_until: None,
        }
    }

    /// Returns how many invocations may be open now.
    pub(super) fn max_open(&self, now: Instant) -> u32 {
        if self.is_closed(now) { 0 } else { self.limit() }
    }

    /// Returns the limit, also while the function is closed.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the limit is from 1 to MAX_LIMIT"
    )]
    pub(super) fn limit(&self) -> u32 {
        self.limit as u32
    }

    /// Returns whether a call of the function was answered or refused.
    pub(super) fn has_learned(&self) -> bool {
        self.round > 0 || self.was_refused
    }

    /// Returns whether the function has refused its last call, although no other one ran.
    pub(super) fn refuses_all(&self) -> bool {
        self.refused_alone > 0
    }

    /// Returns for how long no invocation starts.
    pub(super) fn closed_for(&self, now: Instant) -> Duration {
        self.closed_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// Records the start of an invocation, after which so many are open.
    pub(super) fn started(&mut self, open: u32) -> Started {
        self.peak = self.peak.max(open);
        Started { falls: self.falls, round: self.round }
    }

    /// Records that the function has answered a call, after which so many invocations are open.
    pub(super) fn accepted(&mut self, started: Started, open: u32) {
        self.refused_alone = 0;
        let is_used = self.peak >= self.round_limit;
        if is_used || self.was_used {
            let step = if self.was_refused {
                f64::from(self.quiet_rounds.saturating_add(1)) / self.limit
            } else {
                1.0
            };
            self.limit = (self.limit + step).min(MAX_LIMIT);
        }
        if started.round == self.round && started.falls == self.falls {
            self.round += 1;
            self.quiet_rounds = self.quiet_rounds.saturating_add(1);
            self.was_used = is_used;
            self.round_limit = self.limit();
            self.peak = open;
        }
    }

    /// Records that the function has refused a call, after which so many invocations are open. No
    /// invocation starts for as long as the function has asked for.
    pub(super) fn refused(
        &mut self,
        started: Started,
        open: u32,
        retry_after: Option<Duration>,
        now: Instant,
    ) {
        self.was_refused = true;
        self.quiet_rounds = 0;
        if started.falls == self.falls {
            self.falls += 1;
            self.limit = self.limit.min(f64::from(open) * DECREASE);
        } else {
            self.limit = self.limit.min(f64::from(open));
        }
        self.limit = self.limit.max(1.0);
        self.round_limit = self.limit();
        self.peak = open;
        let pause = if open == 0 {
            let doublings = self.refused_alone.min(16);
            self.refused_alone = self.refused_alone.saturating_add(1);
            (MIN_PAUSE * (1 << doublings)).min(MAX_PAUSE)
        } else {
            Duration::ZERO
        };
        let closed_for = retry_after.unwrap_or_default().max(pause);
        if !closed_for.is_zero() {
            self.closed_until = self.closed_until.max(Some(now + closed_for));
        }
    }

    fn is_closed(&self, now: Instant) -> bool {
        self.closed_until.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use std::{cmp::Reverse, collections::BinaryHeap};

    use proptest::prelude::*;

    use super::*;

    /// A function that takes a second for each call and answers 429 at once beyond its capacity,
    /// and workers with a backlog.
    struct Simulation {
        workers: Vec<Worker>,
        start: Instant,
        /// Time in milliseconds.
        now: u64,
        done: u32,
        refused: u32,
    }

    struct Worker {
        limit: AdaptiveLimit,
        /// The ends of the calls that run.
        running: BinaryHeap<Reverse<(u64, u64)>>,
        starts: Vec<Started>,
    }

    impl Simulation {
        fn new(workers: usize) -> Self {
            let worker = || Worker {
                limit: AdaptiveLimit::new(),
                running: BinaryHeap::new(),
                starts: Vec::new(),
            };
            let workers = (0..workers).map(|_| worker()).collect();
            Self { workers, start: Instant::now(), now: 0, done: 0, refused: 0 }
        }

        fn running(&self) -> usize {
            self.workers.iter().map(|worker| worker.running.len()).sum()
        }

        fn run_step(&mut self, capacity: usize) {
            self.now += 5;
            let now = self.start + Duration::from_millis(self.now);
            for index in 0..self.workers.len() {
                let worker = &mut self.workers[index];
                while let Some(Reverse((end, number))) = worker.running.peek().copied()
                    && end <= self.now
                {
                    worker.running.pop();
                    let open = u32::try_from(worker.running.len()).unwrap();
                    worker.limit.accepted(worker.starts[usize::try_from(number).unwrap()], open);
                    self.done += 1;
                }
                loop {
                    let running = self.running();
                    let worker = &mut self.workers[index];
                    let open = u32::try_from(worker.running.len()).unwrap();
                    if open >= worker.limit.max_open(now) {
                        break;
                    }
                    let started = worker.limit.started(open + 1);
                    if running >= capacity {
                        worker.limit.refused(started, open, None, now);
                        self.refused += 1;
                        break;
                    }
                    // Calls take from 0.9 to 1.1 seconds.
                    let number = worker.starts.len() as u64;
                    let takes = 900 + number * 7919 % 200;
                    worker.running.push(Reverse((self.now + takes, number)));
                    worker.starts.push(started);
                }
            }
        }

        /// Runs for so many seconds, and returns how many calls were done and refused.
        fn run(&mut self, seconds: u64, capacity: usize) -> (u32, u32) {
            let before = (self.done, self.refused);
            let until = self.now + seconds * 1000;
            while self.now < until {
                self.run_step(capacity);
            }
            (self.done - before.0, self.refused - before.1)
        }
    }

    #[test]
    fn the_limit_follows_a_capacity_from_50_to_5_to_50() {
        let mut simulation = Simulation::new(1);
        simulation.run(20, 50);
        let (done, refused) = simulation.run(20, 50);
        assert!(done > 900 && refused < 40, "{done} done, {refused} refused");
        // What runs goes on, and the next ones are refused.
        let (_, refused) = simulation.run(10, 5);
        assert!(refused < 80, "{refused} refused");
        let (done, refused) = simulation.run(20, 5);
        assert!(done > 80 && refused < 40, "{done} done, {refused} refused");
        simulation.run(15, 50);
        let (done, refused) = simulation.run(20, 50);
        assert!(done > 900 && refused < 40, "{done} done, {refused} refused");
    }

    #[test]
    fn three_workers_share_a_capacity() {
        let mut simulation = Simulation::new(3);
        simulation.run(20, 50);
        let (done, refused) = simulation.run(20, 50);
        assert!(done > 850 && refused < 200, "{done} done, {refused} refused");
        simulation.run(10, 6);
        let (done, refused) = simulation.run(20, 6);
        assert!(done > 80 && refused < 200, "{done} done, {refused} refused");
    }

    #[test]
    fn a_function_that_refuses_all_calls_is_asked_rarely() {
        let mut simulation = Simulation::new(1);
        let (done, refused) = simulation.run(600, 0);
        assert!(done == 0 && refused < 75, "{refused}");
        // It recovers within the longest pause and some rounds.
        let (done, _) = simulation.run(30, 10);
        assert!(done > 100, "{done}");
    }

    #[test]
    fn a_limit_that_is_not_used_does_not_grow() {
        let mut limit = AdaptiveLimit::new();
        for _ in 0..10 {
            let started = limit.started(1);
            limit.accepted(started, 0);
        }
        assert_eq!(limit.limit(), 3);
    }

    #[test]
    fn a_requested_wait_closes_the_function() {
        let (mut limit, now) = (AdaptiveLimit::new(), Instant::now());
        let started = limit.started(1);
        limit.refused(started, 0, Some(Duration::from_secs(30)), now);
        assert_eq!(limit.max_open(now), 0);
        assert_eq!(limit.closed_for(now).as_secs(), 30);
        // A shorter one of another call does not open it earlier.
        limit.refused(started, 0, Some(Duration::from_secs(5)), now);
        assert_eq!(limit.max_open(now + Duration::from_secs(29)), 0);
        assert_eq!(limit.max_open(now + Duration::from_secs(30)), 1);
    }

    #[test]
    fn a_function_refuses_all_until_it_answers() {
        let (mut limit, now) = (AdaptiveLimit::new(), Instant::now());
        assert!(!limit.has_learned());
        let started = limit.started(2);
        limit.refused(started, 1, None, now);
        assert!(limit.has_learned() && !limit.refuses_all());
        limit.refused(started, 0, None, now);
        assert!(limit.refuses_all());
        let started = limit.started(1);
        limit.accepted(started, 0);
        assert!(limit.has_learned() && !limit.refuses_all());
    }

    #[test]
    fn refusals_of_one_round_lower_the_limit_to_what_runs() {
        let (mut limit, now) = (AdaptiveLimit::new(), Instant::now());
        limit.limit = 50.0;
        let starts: Vec<_> = (1..=50).map(|open| limit.started(open)).collect();
        for (refused, started) in starts.iter().take(45).enumerate() {
            let open = 49 - u32::try_from(refused).unwrap();
            limit.refused(*started, open, None, now);
            assert!(limit.max_open(now) <= open, "another one would start");
        }
        assert_eq!(limit.limit(), 5);
    }

    proptest! {
        #[test]
        fn the_limit_is_never_below_one(
            steps in prop::collection::vec((0_u32..100, any::<bool>(), any::<bool>()), 0..200),
        ) {
            let (mut limit, now) = (AdaptiveLimit::new(), Instant::now());
            let mut old = limit.started(1);
            for (open, is_refused, is_old) in steps {
                let started = limit.started(open + 1);
                let started = if is_old { old } else { started };
                let before = limit.limit();
                if is_refused {
                    limit.refused(started, open, None, now);
                    prop_assert!(limit.limit() <= before.max(1));
                } else {
                    limit.accepted(started, open);
                    prop_assert!(limit.limit() >= before);
                }
                prop_assert!((1..=10_000).contains(&limit.limit()));
                old = started;
            }
        }
    }
}
